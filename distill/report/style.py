"""The stylesheet and the script of a report's page."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light; --ink: #23262d; --soft: #6a6f7a; --line: #e3e4e0; --paper: #fbfbf9; --accent: #2f5f94; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
       font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main, header > div { max-width: 1180px; margin: 0 auto; padding: 0 24px; }
header { background: #fff; border-bottom: 1px solid var(--line); padding: 26px 0 18px; }
h1 { font-size: 26px; font-weight: 650; margin: 0; overflow-wrap: anywhere; letter-spacing: -.01em; }
h2 { font-size: 20px; font-weight: 650; margin: 40px 0 4px; overflow-wrap: anywhere; }
h3 { font-size: 15px; font-weight: 650; margin: 24px 0 4px; }
p { margin: 4px 0 10px; max-width: 82ch; }
.soft, figcaption { color: var(--soft); font-size: 13px; }
nav { margin-top: 10px; font-size: 14px; } nav a { color: var(--accent); margin-right: 18px; text-decoration: none; }
table { border-collapse: collapse; background: #fff; border: 1px solid var(--line); margin: 10px 0; font-size: 14px; }
th, td { padding: 6px 10px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; background: #f5f5f2; vertical-align: bottom; }
th.text, td.text { text-align: left; white-space: normal; overflow-wrap: anywhere;
                   max-width: 420px; min-width: 128px; }
td small { display: block; color: var(--soft); font-size: 12px; }
td.best { font-weight: 700; } td.best small { font-weight: 400; }
.wide { overflow-x: auto; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 16px; margin: 12px 0; }
figure { margin: 0; background: #fff; border: 1px solid var(--line); border-radius: 6px; padding: 12px 12px 8px;
         min-width: 0; }
figure h3 { margin: 0 0 2px; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(540px, 1fr)); gap: 14px; margin: 8px 0 14px; }
.cards.several { grid-template-columns: 1fr; }
.card { background: #fff; border: 1px solid var(--line); border-radius: 6px; padding: 10px 12px; min-width: 0; }
.card > div { display: flex; gap: 10px; flex-wrap: wrap; align-items: flex-start; }
.card h4 { margin: 0 0 6px; font-size: 13px; font-weight: 600; overflow-wrap: anywhere; }
.panel { display: flex; gap: 10px; flex-wrap: wrap; }
.several .panel { border-left: 1px solid var(--line); padding-left: 10px; }
.cell { width: 170px; font-size: 12px; color: var(--soft); overflow-wrap: anywhere; }
.cell img, .cell .view { display: block; width: 170px; height: 170px; border-radius: 4px; object-fit: contain; }
.cell .view { background: #f4f4f1; cursor: grab; overflow: hidden; }
.cell .view:empty::after { content: "click to show"; display: block; line-height: 170px; text-align: center; }
.several .cell, .several .cell img, .several .cell .view { width: 200px; }
.several .cell img, .several .cell .view { height: 200px; }
summary { cursor: pointer; color: var(--accent); font-size: 14px; margin: 8px 0; }
pre { background: #fff; border: 1px solid var(--line); border-radius: 6px; padding: 12px; overflow: auto;
      max-height: 480px; font-size: 12.5px; line-height: 1.45; }
footer { margin: 40px 0 30px; }
@media (max-width: 640px) { .charts, .cards { grid-template-columns: 1fr; } }
@media print { .card, figure { break-inside: avoid; } nav { display: none; } }
"""

# 3D views are made when they scroll into sight, one after the other. Browsers keep about 16 WebGL contexts: of more
# than LIVE views the oldest goes, if possible one that is out of sight; a click brings it back.
SCRIPT = """
"use strict";
const data = id => JSON.parse(document.getElementById(id).textContent);
const config = {displayModeBar: false, responsive: true};
for (const figure of document.querySelectorAll(".chart")) {
  const content = data(figure.dataset.figure);
  Plotly.newPlot(figure, content.data, content.layout, config);
}
const views = data("views"), live = [], seen = new Set(), LIVE = 12;
const error_colours = [[0, "#3b6fb6"], [0.35, "#8fc1c9"], [0.65, "#f1d08a"], [1, "#c8412f"]];
function mesh(points, faces, look) {
  return {type: "mesh3d", ...points, i: faces[0], j: faces[1], k: faces[2], hoverinfo: "skip",
          flatshading: false, lighting: {ambient: 0.55, diffuse: 0.7, specular: 0.12, roughness: 0.7},
          lightposition: {x: -800, y: -1500, z: -1500}, ...look};
}
function traces(view) {
  const faces = views.faces[view.faces];
  const prediction = view.error
    ? mesh(view.prediction, faces, {name: "prediction", intensity: view.error, cmin: 0, cmax: views.limit,
        showscale: false, colorscale: error_colours, hoverinfo: "text",
        text: view.error.map(value => value.toFixed(1) + " mm")})
    : mesh(view.prediction, faces, {name: "prediction", color: "#7aa7e0", opacity: 0.75});
  const truth = view.error
    ? mesh(view.truth, faces, {name: "ground truth", color: "#9a9a94", opacity: 0.35})
    : {type: "scatter3d", mode: "lines", ...view.truth, line: {color: "#333", width: 5}, hoverinfo: "skip"};
  return [prediction, truth];
}
const axis = {visible: false}, origin = {x: 0, y: 0, z: 0};
async function show(place) {
  if (live.includes(place) || !seen.has(place)) return;
  if (live.length >= LIVE) hide(live.find(other => !seen.has(other)) || live[0]);
  live.push(place);
  const camera = {eye: {x: 0, y: 0, z: -1.75}, up: {x: 0, y: -1, z: 0}, center: origin};
  await Plotly.newPlot(place, traces(views.samples[place.dataset.view]), {
    margin: {l: 0, r: 0, t: 0, b: 0}, showlegend: false, paper_bgcolor: "rgba(0,0,0,0)",
    scene: {xaxis: axis, yaxis: axis, zaxis: axis, aspectmode: "data", dragmode: "orbit", camera},
  }, {displayModeBar: false, responsive: false});
}
function hide(place) {
  live.splice(live.indexOf(place), 1);
  const canvases = [...place.querySelectorAll("canvas")];
  Plotly.purge(place);
  place.textContent = "";
  for (const canvas of canvases) canvas.getContext("webgl")?.getExtension("WEBGL_lose_context")?.loseContext();
}
let turn = Promise.resolve();
const request = place => { turn = turn.then(() => show(place)); };
const watcher = new IntersectionObserver(changes => {
  for (const {target, isIntersecting} of changes) {
    if (isIntersecting) { seen.add(target); request(target); } else seen.delete(target);
  }
});
for (const place of document.querySelectorAll(".view")) {
  watcher.observe(place);
  place.addEventListener("click", () => request(place));
}
"""
