"""A report: one HTML file with charts, samples, 3D views and provenance that loads nothing from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.offline import get_plotlyjs

from fasthamer.distill.report import charts, tables
from fasthamer.distill.report.entry import Entry
from fasthamer.distill.report.errors import FLEXION, PALM, VISIBLE
from fasthamer.distill.report.style import SCRIPT, STYLE
from fasthamer.distill.report.training_log import TrainingLog
from fasthamer.files.atomic import write_text

# The browser itself refuses whatever is not in the page. Plotly's 3D code compiles functions: 'unsafe-eval'.
POLICY = "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:"
ERROR_LIMIT = 20.0  # mm, the end of the colour scale of the 3D views
GROUPS = {"best": "Best", "typical": "Typical", "worst": "Worst", "unlabelled": "Samples without labels"}
CONDITIONS = {  # title and note of the chart
    FLEXION: ("finger flexion", "Angle between successive bones of the four fingers."),
    PALM: ("orientation", "0 degrees: the palm faces the camera; 180: the back of the hand does."),
    VISIBLE: ("occlusion", "Keypoints that are labelled as visible."),
}
LEFT_OUT = {
    FLEXION: "Error against pose is left out: the labels have no 3D joints.",
    VISIBLE: "Error against occlusion is left out: the labels mark no keypoint as hidden.",
}


class Section(NamedTuple):
    """A part of the page."""

    title: str
    html: str


class Page:
    """Collects what the HTML refers to by number: figures and 3D views."""

    def __init__(self) -> None:
        self.figures: list[str] = []
        self.views: list[dict[str, Any]] = []
        self.faces: list[list[list[int]]] = []  # of the hand models, three rows of vertex numbers each

    def chart(self, figure: go.Figure, title: str, caption: str = "") -> str:
        """A figure's place in the page."""
        self.figures.append(figure.to_json())
        note = f"<figcaption>{caption}</figcaption>" if caption else ""
        place = f'<div class="chart" data-figure="figure-{len(self.figures) - 1}"></div>'
        return f"<figure><h3>{escape(title)}</h3>{place}{note}</figure>"

    def view(self, view: dict[str, Any], faces: NDArray) -> str:
        """A 3D view's place in the page."""
        rows = np.asarray(faces).T.tolist()
        if rows not in self.faces:
            self.faces.append(rows)
        self.views.append({**view, "faces": self.faces.index(rows)})
        return f'<div class="view" data-view="{len(self.views) - 1}"></div>'


def write_report(
    path: Path,
    title: str,
    entries: Sequence[Entry],
    provenance: Mapping[str, Any],
    config: str,
    trainings: Sequence[TrainingLog] = (),
) -> None:
    """Writes the page, whole or not at all.

    Args:
        path: of the HTML file.
        title: names what was evaluated.
        entries: models and datasets; those of one dataset are shown side by side.
        provenance: from `fasthamer.training.provenance`.
        config: YAML.
        trainings: logs of the models that are runs.

    Raises:
        OSError: the file cannot be written.
    """
    page = Page()
    sections = [Section("Scores", _scores(entries))]
    sections += [Section(f"Training: {each.name}", html) for each in trainings if (html := _training(page, each))]
    for data in dict.fromkeys(entry.data for entry in entries):
        sections.append(Section(data, _dataset(page, [entry for entry in entries if entry.data == data])))
    settings = f"<details><summary>Configuration</summary><pre>{escape(config)}</pre></details>"
    sections.append(Section("Provenance", tables.facts(provenance) + settings))
    write_text(path, _document(title, sections, page, entries))


def _scores(entries: Sequence[Entry]) -> str:
    note = "Mean over all hands; below it the 95 % bootstrap interval over hands."
    if len({entry.model for entry in entries}) > 1:
        note += " The best model of each dataset is bold."
    details = f"<details><summary>All scores</summary>{tables.all_scores(entries)}</details>"
    return f'<p class="soft">{note}</p>{tables.main_scores(entries)}{details}'


def _training(page: Page, log: TrainingLog) -> str:
    shown = []
    if loss := charts.loss_chart(log.lines):
        shown.append(page.chart(loss, "Loss", "Each point is the mean since the one before."))
    if scores := charts.evaluation_chart(log.lines):
        shown.append(page.chart(scores, "Evaluation during the training"))
    return f'<div class="charts">{"".join(shown)}</div>' if shown else ""


def _dataset(page: Page, entries: Sequence[Entry]) -> str:
    scores = entries[0].scores
    about = f"{scores['n']} hands, protocol {scores['protocol']}, joints as {scores['joints']}."
    if "unreadable" in scores:
        about += f" {scores['unreadable']} samples that cannot be read are left out."
    if not np.isfinite(entries[0].errors.joints).any():
        note = " The labels are not public or not at hand: there are no errors to show."
        return f'<p class="soft">{escape(about + note)}</p>{_samples(page, entries)}'
    aligned = "after alignment to the labels" if entries[0].errors.unit == "mm" else "in the image"
    shown = [
        page.chart(charts.pck_chart(entries), "PCK", f"Errors {aligned}. AUC: area under the curve, 1 is perfect."),
        page.chart(charts.joint_chart(entries), "Error by joint", f"Errors {aligned}, with 95 % intervals."),
    ]
    conditions = entries[0].errors.conditions
    for name in conditions:
        title, note = CONDITIONS[name]
        figure = charts.condition_chart(entries, name)
        shown.append(page.chart(figure, f"Error against {title}", f"{note} Groups of equally many hands."))
    left_out = "".join(f'<p class="soft">{text}</p>' for name, text in LEFT_OUT.items() if name not in conditions)
    parts = f'<p class="soft">{escape(about)}</p>', f'<div class="charts">{"".join(shown)}</div>', left_out
    return "".join(parts) + _samples(page, entries)


def _samples(page: Page, entries: Sequence[Entry]) -> str:
    views = [sample.view for entry in entries for sample in entry.samples]
    lines = ["Ranked by the errors of the first model." if len(entries) > 1 else ""]
    if any(view and "error" in view for view in views):
        lines.append(
            f"3D: prediction after alignment, coloured by its distance to the true vertex (blue 0, red {ERROR_LIMIT:g} "
            "mm or more), and ground truth, grey. Drag to rotate, scroll to zoom."
        )
    elif any(views):
        lines.append("3D: predicted mesh after alignment of the joints, and the true skeleton. Drag to rotate.")
    else:
        lines.append("There is no 3D view: the labels have no 3D joints. Keypoints: true grey, predicted coloured.")
    lines.append("Left hands are mirrored, as the models see them.")
    html = f'<h3>Samples</h3><p class="soft">{" ".join(line for line in lines if line)}</p>'
    kind = "cards several" if len(entries) > 1 else "cards"
    for title, heading in GROUPS.items():
        places = [index for index, (group, _) in enumerate(entries[0].chosen) if group == title]
        if places:
            cards = "".join(_card(page, entries, place) for place in places)
            html += f'<h3>{heading}</h3><div class="{kind}">{cards}</div>'
    return html


def _card(page: Page, entries: Sequence[Entry], place: int) -> str:
    first = entries[0].samples[place]
    panels = ""
    for entry in entries:
        sample = entry.samples[place]
        error = "" if np.isnan(sample.error) else f"{sample.error:.1f} {entry.errors.unit}"
        name = f"{escape(entry.model)}: " if len(entries) > 1 and error else ""
        cells = f'<div class="cell"><img src="{sample.overlay}" alt="overlay">{name}{error or "prediction"}</div>'
        if sample.view:
            cells += f'<div class="cell">{page.view(sample.view, entry.faces)}3D</div>'
        panels += f'<div class="panel">{cells}</div>'
    crop = f'<div class="cell"><img src="{first.image}" alt="crop">image</div>'
    return f'<div class="card"><h4>sample {escape(first.name)}</h4><div>{crop}{panels}</div></div>'


def _document(title: str, sections: Sequence[Section], page: Page, entries: Sequence[Entry]) -> str:
    links = "".join(f'<a href="#s{number}">{escape(each.title)}</a>' for number, each in enumerate(sections))
    body = "".join(f'<h2 id="s{number}">{escape(each.title)}</h2>{each.html}' for number, each in enumerate(sections))
    content = {
        "scores": json.dumps([entry.scores for entry in entries]),
        "views": json.dumps({"faces": page.faces, "limit": ERROR_LIMIT, "samples": page.views}, separators=(",", ":")),
        **{f"figure-{number}": figure for number, figure in enumerate(page.figures)},
    }
    blocks = "".join(
        f'<script type="application/json" id="{id_}">{_inert(text)}</script>' for id_, text in content.items()
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body><header><div><h1>{escape(title)}</h1><nav>{links}</nav></div></header>\n"
        f"<main>{body}</main>\n{blocks}\n<script>{get_plotlyjs()}</script>\n<script>{SCRIPT}</script></body></html>\n"
    )


def _inert(text: str) -> str:
    """JSON that cannot end the script element that it stands in."""
    return text.replace("<", "\\u003c")
