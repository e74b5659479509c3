"""Curves of a tokenizer's error: against the tokens M, the codes K and the time that it trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fasthamer.config import load_config
from fasthamer.distill.ablation_points import DEFAULT, GROUPS
from fasthamer.render.figure import COLOURS, INK, new_figure, plain_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACROSS = {"M": "tokens M", "K": "codes K"}  # a row's key: the group that changes it
TIMED = (DEFAULT, "layers_1", "tokens_24", "tokens_96", "codes_2048", "frame_camera")  # drawn over time
PANEL = (480, 400)  # width, height in pixels
ERROR = "tokenizer, PA-MPVPE mm"


def curves(rows: dict[str, dict[str, Any]]) -> Figure:
    """One panel for each of M, K and training time: held-out PA-MPVPE in mm, both axes logarithmic.

    Args:
        rows: at least one point, as `collect` returns them.
    """
    panels: list[tuple[str, list[str]]] = []
    for key, title in ACROSS.items():
        names = [name for group in GROUPS if group.title == title for name in group.points if name in rows]
        if names:
            panels.append((key, names))
    figure = new_figure(PANEL[0] * (len(panels) + 1), PANEL[1])
    *by_setting, over_seconds = figure.subplots(1, len(panels) + 1, squeeze=False)[0]
    for axes, (key, names) in zip(by_setting, panels, strict=True):
        spots = sorted((rows[name][key], rows[name]["tokenizer"]["pa_mpvpe_mm"]) for name in names)
        xs, ys = zip(*spots, strict=True)
        _draw(axes, xs, ys, 0)
        _finish(axes, ACROSS[key])
        axes.set_xticks(xs, [f"{x:g}" for x in xs])
        axes.set_xticks([], minor=True)
    timed = [name for name in TIMED if name in rows] or list(rows)[: len(TIMED)]
    for index, name in enumerate(timed):
        xs, ys = zip(*rows[name]["curve"], strict=True)
        _draw(over_seconds, xs, ys, index, name)
    _finish(over_seconds, "seconds of training")
    if len(timed) > 1:
        over_seconds.legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure


def _draw(axes: Axes, xs: Sequence[float], ys: Sequence[float], colour: int, label: str = "") -> None:
    axes.plot(
        xs,
        ys,
        color=COLOURS[colour],
        label=label,
        marker="o",
        markersize=6,
        markeredgecolor="white",
        linewidth=1.8,
        zorder=10 - colour,  # the first on top
    )


def _finish(axes: Axes, across: str) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    plain_axes(axes)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(0.08)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_title(ERROR, fontsize=11, color=INK)
    axes.set_xlabel(across, fontsize=10.5, color=INK)


def over_time(run: Path, final: float) -> list[tuple[float, float]]:
    """Seconds of training and held-out PA-MPVPE in mm, from a tokenizer's `metrics.jsonl`.

    Each line holds the images a second since the line before; evaluations and checkpoints do not count as training.

    Args:
        run: the run directory.
        final: the error after the last step, which is only in the scores.
    """
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    settings = load_config(run / "config.yaml").TRAIN
    images = settings.BATCH * settings.ACCUMULATE  # in a step, as the log counts them
    steps, seconds = [0], [0.0]
    for line in lines:
        if line["phase"] == "train":
            seconds.append(seconds[-1] + (line["step"] - steps[-1]) * images / line["images_per_second"])
            steps.append(line["step"])
    found = [(line["step"], line["pa_mpvpe_mm"]) for line in lines if line["phase"] == "eval"]
    return [(float(np.interp(step, steps, seconds)), error) for step, error in [*found, (steps[-1], final)]]
