"""The trade-off image: accuracy against speed, a circle's area is the number of parameters.

Accuracies come from the `scores.json` that `tools/eval.py` writes, speeds from the benchmark's rows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthamer.registry import unknown
from fasthamer.render.chart import COLOURS, FAINT, Box, Page, round_numbers, text_width
from fasthamer.render.overlay import INK

SIZE = (1000, 640)  # width, height in pixels
SCORE = "pa_mpjpe_mm"
_LARGEST = 60.0  # pixels, the radius of the model with the most parameters
_SMALLEST = 3.0
_LEFT, _TOP, _RIGHT, _BOTTOM = 90, 50, 60, 70  # pixels around the plot
_LADDER = (1, 2, 5)  # of each decade of the speed's axis, those with a line


class Point(NamedTuple):
    """A model in the image."""

    name: str
    fps: float  # images a second
    error_mm: float
    params_m: float
    eager_fps: float | None = None  # before it was made fast: a faint ring, joined to the circle


def read_score(path: str | Path) -> float:
    """Millimetres, from a scores.json or the folder that it lies in.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not the scores of an evaluation.
    """
    path = Path(path)
    path = path / "scores.json" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"no scores {path}: `tools/eval.py` writes scores.json, give it or its folder")
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
        score = float(scores[SCORE])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} has no number {SCORE!r}: expected what tools/eval.py writes ({error})") from None
    if not (math.isfinite(score) and score > 0):
        raise ValueError(f"{path}: {SCORE} is {score}; expected millimetres above 0")
    return score


def read_scores(pairs: Iterable[str], models: Iterable[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """Millimetres by model and decoder.

    Args:
        pairs: texts `NAME=path`, or `NAME/DECODER=path` where a student is timed with several decoders.
        models: (name, decoder) of all that is timed.

    Raises:
        ValueError, KeyError, FileNotFoundError: not of that form, not one of `models`, or no scores there.
    """
    named: dict[str, list[tuple[str, str]]] = {}
    for name, decoder in models:
        named.setdefault(name, []).append((name, decoder))
        named[f"{name}/{decoder}"] = [(name, decoder)]
    scores = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not (name and equals and path):
            raise ValueError(f"--scores {pair!r}: expected NAME=path, such as mobilenetv3_l=runs/mine/eval/scores.json")
        if name not in named:
            raise KeyError(unknown("timed model", name, named) + " (--scores NAME=path)")
        if len(named[name]) > 1:
            options = " or ".join("/".join(each) for each in named[name])
            raise ValueError(f"--scores {name}: it is timed with several decoders, say whose score it is: {options}")
        scores[named[name][0]] = read_score(path)
    return scores


def points(rows: Iterable[Mapping], scores: Mapping[tuple[str, str], float]) -> list[Point]:
    """A point for each model and decoder that has a score: its fastest row of single images, and its eager one.

    Rows in int8 are passed over: scores are those of the model as it was trained, and int8 answers differ.
    """
    found = []
    single = [row for row in rows if (row["stage"], row["batch"]) == ("model", 1) and row["precision"] != "int8"]
    for (name, decoder), score in scores.items():
        own = [row for row in single if (row["model"], row["decoder"]) == (name, decoder)]
        if not own:
            raise ValueError(f"no speed of {name} to draw: time the stage model with --batch 1, not in int8 alone")
        fastest = max(own, key=lambda row: row["fps"])
        eager = [row["fps"] for row in own if (row["backend"], row["precision"]) == ("torch", "fp32")]
        label = f"{name}, {decoder}" if sum(other == name for other, _ in scores) > 1 else name
        found.append(Point(label, fastest["fps"], score, fastest["params_m"], eager[0] if eager else None))
    return found


def draw(models: Sequence[Point], subtitle: str = "") -> NDArray[np.uint8]:
    """(H, W, 3) RGB: to the right is faster (by its logarithm), below is more accurate.

    Args:
        models: at least one.
        subtitle: what was measured, and where.
    """
    if not models:
        raise ValueError("no model with a score and a speed to draw: give --scores NAME=path")
    axes = _Axes(models)
    page = Page(SIZE)
    _grid(page, axes)
    most = max(model.params_m for model in models)
    circles = [_circle(axes, model.fps, model, most) for model in models]
    order = sorted(range(len(models)), key=lambda index: -models[index].params_m)  # small ones on top
    taken = list(circles)
    for index in order:
        model, box = models[index], circles[index]
        if model.eager_fps and model.eager_fps < model.fps:
            taken += _ring(page, _circle(axes, model.eager_fps, model, most), box)
        colour = COLOURS[index % len(COLOURS)]
        page.ellipse(box, colour, INK)
    for index in order:
        taken.append(_label(page, models[index], circles[index], taken))
    page.text((SIZE[0] / 2, 16), "accuracy against speed; area: parameters; ring: in plain torch", 15, "mm")
    page.text((SIZE[0] / 2, 36), subtitle, 12, "mm", FAINT)
    return page.finish()


class _Axes:
    """From images a second and millimetres to pixels; margins of a sixth around the data."""

    def __init__(self, models: Sequence[Point]) -> None:
        speeds = [math.log10(speed) for model in models for speed in (model.fps, model.eager_fps) if speed]
        self.x = _widened(min(speeds), max(speeds), 0.2)
        errors = [model.error_mm for model in models]
        self.y = _widened(min(errors), max(errors), 0.5)

    def __call__(self, fps: float, millimetres: float) -> tuple[float, float]:
        across = (math.log10(fps) - self.x[0]) / (self.x[1] - self.x[0])
        up = (millimetres - self.y[0]) / (self.y[1] - self.y[0])
        width, height = SIZE[0] - _LEFT - _RIGHT, SIZE[1] - _TOP - _BOTTOM
        return _LEFT + across * width, _TOP + (1 - up) * height


def _widened(low: float, high: float, least: float) -> tuple[float, float]:
    margin = max((high - low) / 6, least)
    return low - margin, high + margin


def _grid(page: Page, axes: _Axes) -> None:
    for exponent in range(math.floor(axes.x[0]), math.ceil(axes.x[1]) + 1):
        for step in _LADDER:
            speed = step * 10.0**exponent
            if axes.x[0] <= math.log10(speed) <= axes.x[1]:
                x, _ = axes(speed, axes.y[0])
                page.line((x, _TOP), (x, SIZE[1] - _BOTTOM))
                page.text((x, SIZE[1] - _BOTTOM + 16), f"{speed:g}", 13, "mm")
    for millimetres in round_numbers(*axes.y):
        _, y = axes(10 ** axes.x[0], millimetres)
        page.line((_LEFT, y), (SIZE[0] - _RIGHT, y))
        page.text((_LEFT - 10, y), f"{millimetres:g}", 13, "rm")
    page.text((SIZE[0] / 2, SIZE[1] - 24), "images a second (batch 1, crop to mesh), faster to the right", 14, "mm")
    page.text((12, _TOP - 14), "PA-MPJPE mm, better below", 14, "lm")


def _circle(axes: _Axes, fps: float, model: Point, most: float) -> Box:
    x, y = axes(fps, model.error_mm)
    radius = max(_LARGEST * math.sqrt(model.params_m / most), _SMALLEST)
    return x - radius, y - radius, x + radius, y + radius


def _ring(page: Page, ring: Box, circle: Box) -> list[Box]:
    """A faint ring, joined to its circle where they are apart; what must not be written over."""
    page.ellipse(ring, None, FAINT)
    middle = (ring[1] + ring[3]) / 2
    if ring[2] >= circle[0]:
        return [ring]
    page.line((ring[2], middle), (circle[0], middle), FAINT)
    return [ring, (ring[2], middle - 1, circle[0], middle + 1)]


def _label(page: Page, model: Point, circle: Box, taken: Sequence[Box]) -> Box:
    """Writes the name where it covers least of what is there, and returns its box."""
    text, size = f"{model.name}  {model.params_m:.3g} M", 13
    width, height = text_width(text, size), size + 4
    x, y = (circle[0] + circle[2]) / 2, (circle[1] + circle[3]) / 2
    corners = [
        (circle[2] + 5, y - height / 2),
        (circle[0] - 5 - width, y - height / 2),
        (x - width / 2, circle[1] - 2 - height),
        (x - width / 2, circle[3] + 2),
        (circle[2], circle[3]),
        (circle[2], circle[1] - height),
    ]
    boxes = [(left, top, left + width, top + height) for left, top in corners]
    best = min(boxes, key=lambda box: sum(_overlap(box, other) for other in taken) + _outside(box))
    page.text(((best[0] + best[2]) / 2, (best[1] + best[3]) / 2), text, size, "mm")
    return best


def _overlap(one: Box, other: Box) -> float:
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return max(across, 0) * max(down, 0)


def _outside(box: Box) -> float:
    """A large number for a label that leaves the page."""
    inside = box[0] >= 0 and box[1] >= _TOP and box[2] <= SIZE[0] and box[3] <= SIZE[1] - _BOTTOM
    return 0.0 if inside else 1e6
