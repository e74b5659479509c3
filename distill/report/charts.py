"""The charts of a report, as plotly figures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import cycle, product
from typing import Any

import numpy as np
import plotly.graph_objects as go

from fasthamer.distill.report.entry import Entry
from fasthamer.distill.report.errors import against, area, by_joint, joints_pck
from fasthamer.render.figure import COLOURS, GRID, INK

JOINTS = (
    "wrist",
    *(f"{finger} {n}" for finger in ("thumb", "index", "middle", "ring", "pinky") for n in (1, 2, 3, "tip")),
)
NO_LOSS = ("step", "phase", "images_per_second", "learning_rate", "skipped_steps", "overflows")  # of a training line
DASHES = ("solid", "dash", "dot", "dashdot")
POINTS = 1000  # of a training curve, at most


def pck_chart(entries: Sequence[Entry]) -> go.Figure:
    """The share of joints (solid) and vertices (dashed) with an error up to each threshold, and the area under it."""
    errors = entries[0].errors
    figure = _figure(f"error threshold, {errors.unit}", "share below the threshold (PCK)")
    for entry, colour in zip(entries, cycle(COLOURS), strict=False):
        curves = [("joints", joints_pck(entry.errors), "solid")]
        if entry.errors.vertices_pck is not None:
            curves.append(("vertices", entry.errors.vertices_pck, "dash"))
        for points, curve, dash in curves:
            name = f"{escape(entry.model, quote=False)}: {points}, AUC {area(curve, errors.thresholds):.3f}"
            line = {"color": colour, "dash": dash, "width": 2}
            figure.add_scatter(x=_rounded(errors.thresholds), y=_rounded(curve, 4), name=name, mode="lines", line=line)
    return figure.update_yaxes(range=[0, 1.02]).update_xaxes(range=[0, float(errors.thresholds[-1])])


def joint_chart(entries: Sequence[Entry]) -> go.Figure:
    """The mean error of each joint with its 95 % interval."""
    figure = _figure("", f"mean error, {entries[0].errors.unit}")
    for entry, colour in zip(entries, cycle(COLOURS), strict=False):
        curve = by_joint(entry.errors)
        figure.add_bar(
            x=[JOINTS[int(joint)] for joint in curve.at],
            y=_rounded(curve.mean),
            name=escape(entry.model, quote=False),
            marker={"color": colour},
            error_y=_interval(curve, "#666a73"),
        )
    return figure.update_xaxes(tickangle=-60).update_yaxes(rangemode="tozero")


def condition_chart(entries: Sequence[Entry], condition: str) -> go.Figure:
    """The mean error of groups of samples against a condition, with 95 % intervals."""
    figure = _figure(condition, f"mean error, {entries[0].errors.unit}")
    for entry, colour in zip(entries, cycle(COLOURS), strict=False):
        curve = against(entry.errors, condition)
        figure.add_scatter(
            x=_rounded(curve.at),
            y=_rounded(curve.mean),
            name=escape(entry.model, quote=False),
            mode="lines+markers",
            line={"color": colour, "width": 2},
            error_y=_interval(curve, colour),
        )
    return figure.update_yaxes(rangemode="tozero")


def loss_chart(lines: Sequence[dict[str, Any]]) -> go.Figure | None:
    """The weighted loss terms over the steps; `total` is their sum. None if no training line is there.

    Args:
        lines: of metrics.jsonl.
    """
    rows = _thinned([line for line in lines if line["phase"] == "train" and "total" in line])
    if not rows:
        return None
    names = [name for name in rows[0] if name not in NO_LOSS]
    figure = _figure("step", "weighted loss").update_yaxes(type="log", exponentformat="power")
    figure.update_layout(legend={"orientation": "v", "yanchor": "top", "x": 1.02, "y": 1.0})
    looks = product(DASHES, COLOURS)
    for name, (dash, colour) in zip(["total", *(name for name in names if name != "total")], looks, strict=False):
        _add_line(figure, rows, name, {"color": colour, "dash": dash, "width": 2.5 if name == "total" else 1.4})
    return figure


def evaluation_chart(lines: Sequence[dict[str, Any]]) -> go.Figure | None:
    """The scores in millimetres during the training; None where it was not evaluated during it.

    Args:
        lines: of metrics.jsonl.
    """
    rows = _thinned([line for line in lines if line["phase"] == "eval"])
    names = [name for name in ("pa_mpjpe_mm", "pa_mpvpe_mm", "mpjpe_rel_mm") if rows and name in rows[0]]
    if not names:
        return None
    figure = _figure("step", "evaluation, mm")
    for name, colour in zip(names, cycle(COLOURS), strict=False):
        _add_line(figure, rows, name, {"color": colour, "width": 2})
    return figure.update_yaxes(rangemode="tozero")


def _add_line(figure: go.Figure, rows: Sequence[dict[str, Any]], name: str, line: dict[str, Any]) -> None:
    shown = [row for row in rows if name in row]
    values = [float(f"{row[name]:.5g}") for row in shown]
    mode = "lines" if len(shown) > 20 else "lines+markers"
    figure.add_scatter(x=[row["step"] for row in shown], y=values, name=escape(name, quote=False), mode=mode, line=line)


def _thinned(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most POINTS rows, evenly spaced, the first and the last among them."""
    if len(rows) <= POINTS:
        return list(rows)
    return [rows[int(index)] for index in np.linspace(0, len(rows) - 1, POINTS).round()]


def _figure(x: str, y: str) -> go.Figure:
    axis = {"gridcolor": GRID, "zeroline": False, "linecolor": "#b8bac0", "automargin": True}
    return go.Figure(
        layout={
            "template": "none",
            "height": 340,
            "margin": {"l": 56, "r": 12, "t": 10, "b": 48},
            "font": {"family": "system-ui, sans-serif", "size": 12, "color": INK},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "xaxis": {**axis, "title": {"text": x}},
            "yaxis": {**axis, "title": {"text": y}},
            "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
            "showlegend": True,
            "hovermode": "closest",
        }
    )


def _interval(curve: Any, colour: str) -> dict[str, Any]:
    up, down = _rounded(curve.high - curve.mean), _rounded(curve.mean - curve.low)
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "color": colour, "thickness": 1}


def _rounded(values: Any, digits: int = 3) -> list[float]:
    return [round(float(value), digits) for value in values]
