"""Curves of a tokenizer's error: against the tokens M, the codes K and the time that it trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthamer.config import load_config
from fasthamer.distill.ablation_points import DEFAULT, GROUPS
from fasthamer.render.chart import Curve, panel

ACROSS = {"M": "tokens M", "K": "codes K"}  # what a row calls it: the group that changes it
TIMED = (DEFAULT, "layers_1", "tokens_24", "tokens_96", "codes_2048", "frame_camera")  # drawn over time
ERROR = "tokenizer, PA-MPVPE mm"


def curves(rows: dict[str, dict[str, Any]]) -> NDArray[np.uint8]:
    """(H, W, 3) RGB, a panel for each.

    Args:
        rows: at least one point, as `collect` gives them.
    """
    panels = []
    for key, title in ACROSS.items():
        names = [name for group in GROUPS if group.title == title for name in group.points if name in rows]
        if names:
            spots = sorted((rows[name][key], rows[name]["tokenizer"]["pa_mpvpe_mm"]) for name in names)
            xs, ys = zip(*spots, strict=True)
            panels.append(panel([Curve("", xs, ys)], ERROR, title, xs))
    timed = [name for name in TIMED if name in rows] or list(rows)[: len(TIMED)]
    lines = [Curve(name, *zip(*rows[name]["curve"], strict=True)) for name in timed]
    return np.hstack([*panels, panel(lines, ERROR, "seconds of training")])


def over_time(run: Path, final: float) -> list[tuple[float, float]]:
    """Seconds of training and held-out PA-MPVPE in mm, from a tokenizer's `metrics.jsonl`.

    A line of it tells the images a second since the line before; scores and checkpoints are not counted as training.

    Args:
        run: the run directory.
        final: the error in the end, which stands in its scores only.
    """
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    batch = load_config(run / "config.yaml").TRAIN.BATCH
    steps, seconds = [0], [0.0]
    for line in lines:
        if line["phase"] == "train":
            seconds.append(seconds[-1] + (line["step"] - steps[-1]) * batch / line["images_per_second"])
            steps.append(line["step"])
    found = [(line["step"], line["pa_mpvpe_mm"]) for line in lines if line["phase"] == "eval"]
    return [(float(np.interp(step, steps, seconds)), error) for step, error in [*found, (steps[-1], final)]]
