"""The chart of accuracy against speed; a circle's area is the number of parameters.

Accuracies come from the `scores.json` that `tools/eval.py` writes, speeds from the rows of the benchmark.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from fasthamer.files.safe_json import read_json
from fasthamer.one_line import one_line
from fasthamer.registry import unknown
from fasthamer.render.figure import COLOURS, FAINT, GRID, INK, new_figure, plain_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

SIZE = (1000, 640)  # width, height in pixels
SCORE = "pa_mpjpe_mm"
_LARGEST = 86.0  # points, the diameter of the model with the most parameters
_SMALLEST = 5.0


class Point(NamedTuple):
    """A model in the chart."""

    name: str
    fps: float  # images a second
    error_mm: float
    params_m: float
    eager_fps: float | None = None  # of plain torch in fp32; drawn as a ring joined to the circle


def read_score(path: str | Path) -> float:
    """Millimetres, from a scores.json or its folder.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not the scores of an evaluation.
    """
    path = Path(path)
    path = path / "scores.json" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"no scores {path}: `tools/eval.py` writes scores.json, give it or its folder")
    try:
        scores = read_json(path)
        score = float(scores[SCORE])
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        why = one_line(error)
        raise ValueError(f"{path} has no number {SCORE!r}: expected what tools/eval.py writes ({why})") from None
    if not (math.isfinite(score) and score > 0):
        raise ValueError(f"{path}: {SCORE} is {score}; expected millimetres above 0")
    return score


def read_scores(pairs: Iterable[str], models: Iterable[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """Millimetres by model and decoder.

    Args:
        pairs: `NAME=path`, or `NAME/DECODER=path` where a student is timed with several decoders.
        models: (name, decoder) of all timed models.

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
            raise ValueError(f"--scores {name}: it is timed with several decoders; name one of {options}")
        scores[named[name][0]] = read_score(path)
    return scores


def points(rows: Iterable[Mapping], scores: Mapping[tuple[str, str], float]) -> list[Point]:
    """A point for each model and decoder that has a score: its fastest row at batch 1, and its eager one.

    Rows in int8 are skipped: the scores are those of the model as it was trained, and int8 outputs differ.
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


def tradeoff(models: Sequence[Point], subtitle: str = "") -> Figure:
    """A chart of models: images a second (logarithmic) to the right, PA-MPJPE in mm upward.

    Args:
        models: at least one.
        subtitle: of the chart, such as the machine.

    Raises:
        ValueError: no models.
    """
    if not models:
        raise ValueError("no model with a score and a speed to draw: give --scores NAME=path")
    figure = new_figure(*SIZE)
    axes = plain_axes(figure.subplots())
    _limits(axes, models)
    most = max(model.params_m for model in models)
    diameters = [max(_LARGEST * math.sqrt(model.params_m / most), _SMALLEST) for model in models]
    order = sorted(range(len(models)), key=lambda index: -models[index].params_m)  # small ones on top
    for layer, index in enumerate(order, start=3):
        model, area = models[index], diameters[index] ** 2
        colour = COLOURS[index % len(COLOURS)]
        if model.eager_fps and model.eager_fps < model.fps:
            across = [model.eager_fps, model.fps]
            axes.plot(across, [model.error_mm] * 2, color=FAINT, linewidth=1, zorder=1)
            axes.scatter(
                model.eager_fps, model.error_mm, area, facecolors="white", edgecolors=FAINT, linewidths=1, zorder=2
            )
        axes.scatter(model.fps, model.error_mm, area, color=colour, edgecolors="white", linewidths=1.2, zorder=layer)
    about = "area: parameters; ring: plain torch in fp32" + (f"; {subtitle}" if subtitle else "")
    axes.set_title("Accuracy against speed\n", loc="left", fontsize=14, color=INK)
    axes.annotate(about, (0, 1), (0, 10), "axes fraction", "offset points", fontsize=9.5, color=FAINT)
    axes.set_xlabel("images a second (batch 1, crop to mesh), faster to the right", color=INK, fontsize=10.5)
    axes.set_ylabel("PA-MPJPE mm, better below", color=INK, fontsize=10.5)
    figure.canvas.draw()  # settles the layout, which the labels need
    figure.set_layout_engine("none")
    _add_labels(axes, models, diameters)
    return figure


def _limits(axes: Axes, models: Sequence[Point]) -> None:
    """A sixth of the data's range on every side, so that large circles and labels fit."""
    axes.set_xscale("log", subs=[2, 5])
    speeds = [math.log10(speed) for model in models for speed in (model.fps, model.eager_fps) if speed]
    errors = [model.error_mm for model in models]
    side = max((max(speeds) - min(speeds)) / 6, 0.2)
    axes.set_xlim(10 ** (min(speeds) - side), 10 ** (max(speeds) + side))
    side = max((max(errors) - min(errors)) / 6, 0.5)
    axes.set_ylim(min(errors) - side, max(errors) + side)
    for which in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        which(lambda value, _: f"{value:g}")
    axes.grid(which="minor", axis="x", color=GRID, linewidth=0.8)


def _add_labels(axes: Axes, models: Sequence[Point], diameters: Sequence[float]) -> None:
    """Writes each name where it covers least of the circles, rings and names that are there."""
    from matplotlib.transforms import Bbox

    pixel = axes.figure.dpi / 72  # of a point

    def circle(speed: float, index: int) -> Bbox:
        x, y = axes.transData.transform((speed, models[index].error_mm))
        half = diameters[index] * pixel / 2
        return Bbox.from_extents(x - half, y - half, x + half, y + half)

    taken = [circle(model.fps, index) for index, model in enumerate(models)]
    for index, model in enumerate(models):
        if model.eager_fps and model.eager_fps < model.fps:
            ring, own = circle(model.eager_fps, index), taken[index]
            middle = (own.y0 + own.y1) / 2
            taken += [ring, Bbox.from_extents(ring.x0, middle - 1, own.x1, middle + 1)]  # and the line between them
    for index, model in enumerate(models):
        half = diameters[index] / 2
        places: list[tuple[tuple[float, float], Literal["left", "right", "center"], Literal["center", "bottom", "top"]]]
        places = [((half + 4, 0), "left", "center"), ((-half - 4, 0), "right", "center")]
        places += [((0, half + 3), "center", "bottom"), ((0, -half - 3), "center", "top")]
        places += [((0.75 * half + 3, sign * (0.75 * half + 3)), "left", "center") for sign in (1, -1)]
        texts = [
            axes.annotate(
                f"{model.name}  {model.params_m:.3g} M",
                (model.fps, model.error_mm),
                offset,
                textcoords="offset points",
                ha=across,
                va=upward,
                color=INK,
                fontsize=9.5,
                zorder=100,
            )
            for offset, across, upward in places
        ]
        best = min(texts, key=lambda text: _covered(text, taken, axes.get_window_extent()))
        for text in texts:
            if text is not best:
                text.remove()
        taken.append(best.get_window_extent())


def _covered(text: Text, taken: Sequence[Bbox], page: Bbox) -> float:
    """Square pixels of a label that lie on something else; a large number where it leaves the page."""
    from matplotlib.transforms import Bbox

    box = text.get_window_extent()
    if box.x0 < page.x0 or box.x1 > page.x1 or box.y0 < page.y0 or box.y1 > page.y1:
        return 1e6
    shared = (Bbox.intersection(box, other) for other in taken)
    return sum(each.width * each.height for each in shared if each is not None)
