"""A study as one plot: curves over an axis of numbers, or a row for every setting."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from fasthamer.distill.study.cells import Record
from fasthamer.distill.study.estimates import CROPS, MAIN, Levels, estimate, power_laws, scores
from fasthamer.distill.study.grid import OWN_SET, Study
from fasthamer.distill.study.scaling import PowerLaw
from fasthamer.distill.study.scores import Scores
from fasthamer.render.figure import COLOURS, FAINT, INK, new_figure, plain_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NUMBER = re.compile(r"(\d[\d ]*(?:\.\d+)?)(?: %)?")  # a level such as 0.3, 60 160 or 10 %
ERROR = "PA-MPVPE, mm"
FEWEST_SEEDS = 3  # of an interval that is drawn; that of two is 13 standard errors to each side
WIDTH, ROW, HEIGHT = 760, 26, 340  # pixels; of a row, of curves
APART = 0.025  # of neighbouring curves, so that their intervals do not hide each other; log10 of the number

Curve = dict[float, list[float]]  # the errors of the seeds by number


def plot(study: Study, records: dict[str, Record], teachers: dict[str, dict[str, Scores]]) -> Figure:
    """Every setting's PA-MPVPE: seeds as pale dots, the mean, and its 95 % interval from three seeds on.

    Curves over the first axis whose levels are numbers: a colour for each level of the last of the other axes, a panel
    for those of the rest. Without such an axis: a row for each setting.

    Args:
        study: whose axes.
        records: at least one.
        teachers: their scores, by `teacher_of`.
    """
    axis = next((name for name, levels in study.axes.items() if as_numbers(levels)), None)
    return _rows(study, records) if axis is None else _curves(study, records, teachers, axis)


def as_numbers(levels: Collection[str]) -> dict[str, float]:
    """Levels as numbers; none unless all of them are, and there is more than one."""
    found = {level: match for level in levels if (match := NUMBER.fullmatch(level))}
    if len(found) < max(2, len(levels)):
        return {}
    return {level: float(match[1].replace(" ", "")) for level, match in found.items()}


def _rows(study: Study, records: dict[str, Record]) -> Figure:
    found = scores(records, OWN_SET)
    last = list(list(study.axes.values())[-1]) if len(study.axes) > 1 else []
    figure = new_figure(WIDTH, 70 + ROW * len(found))
    axes = plain_axes(figure.subplots())
    for row, (levels, errors) in enumerate(found.items()):
        colour = _colour(last.index(levels[-1]) if last else 0)
        _draw(axes, list(errors.values()), row, colour, upright=False)
    axes.set_yticks(range(len(found)), [", ".join(levels) for levels in found])
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_xlabel(ERROR, color=INK)
    axes.axvline(min(estimate(list(each.values())).mean for each in found.values()), color=FAINT, linewidth=0.8)
    return figure


def _curves(study: Study, records: dict[str, Record], teachers: dict[str, dict[str, Scores]], axis: str) -> Figure:
    ticks, curves = as_numbers(study.axes[axis]), _by_number(study, records, axis)
    laws = power_laws(records) if axis == CROPS else {}
    panels = list(dict.fromkeys(others[:-1] for others in curves))
    rest = [levels for name, levels in study.axes.items() if name != axis]
    coloured = list(rest[-1]) if rest else [""]
    known = {scored[OWN_SET][MAIN] for scored in teachers.values() if MAIN in scored.get(OWN_SET, {})}
    figure = new_figure(max(WIDTH, 260 * len(panels)), HEIGHT)
    row = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for panel, axes in zip(panels, row, strict=True):
        plain_axes(axes)
        for others in (each for each in curves if each[:-1] == panel):
            label = "".join(others[-1:])
            place = coloured.index(label)
            _draw_curve(axes, curves[others], label, place, len(coloured))
            if others in laws:
                _draw_law(axes, laws[others], sorted(curves[others]), _colour(place))
        if len(known) == 1:
            axes.axhline(*known, color=FAINT, linestyle="--", linewidth=1, label="teacher")
        axes.set_xscale("log")
        axes.set_xticks(list(ticks.values()), list(ticks))
        axes.set_xticks([], minor=True)
        axes.set_title(", ".join(panel), color=INK, fontsize=10)
        axes.set_xlabel(axis, color=INK)
    row[0].set_ylabel(ERROR, color=INK)
    named = {label: line for axes in row for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named, loc="outside upper center", ncols=len(named), frameon=False, fontsize=9)
    return figure


def _by_number(study: Study, records: dict[str, Record], axis: str) -> dict[Levels, Curve]:
    """By the levels of the other axes, the errors over an axis of numbers."""
    numbers, place = as_numbers(study.axes[axis]), list(study.axes).index(axis)
    curves: dict[Levels, Curve] = {}
    for levels, errors in scores(records, OWN_SET).items():
        others = (*levels[:place], *levels[place + 1 :])
        curves.setdefault(others, {})[numbers[levels[place]]] = list(errors.values())
    return curves


def _draw_curve(axes: Axes, curve: Curve, label: str, place: int, of: int) -> None:
    shift = 10 ** (APART * (place - (of - 1) / 2))
    points = sorted(curve)
    axes.plot(
        [shift * each for each in points], [np.mean(curve[each]) for each in points], color=_colour(place), label=label
    )
    for each in points:
        _draw(axes, curve[each], shift * each, _colour(place), upright=True)


def _draw_law(axes: Axes, law: PowerLaw, points: list[float], colour: str) -> None:
    """Dotted, with a cross where it was not fitted but predicts."""
    crops = np.geomspace(points[0], points[-1], 100)
    axes.plot(crops, law.at(crops), ":", color=colour)
    axes.plot(points[-1], law.predicted, "x", color=colour, markersize=9)


def _draw(axes: Axes, errors: list[float], place: float, colour: str, upright: bool) -> None:
    """The seeds, mean and interval of one setting; errors go along y if `upright`, else along x."""
    value = estimate(errors)
    half = value.half if value.seeds >= FEWEST_SEEDS else 0.0
    seeds, mean = ([place] * len(errors), errors), (place, value.mean)
    if not upright:
        seeds, mean = seeds[::-1], mean[::-1]
    axes.plot(*seeds, "o", color=colour, alpha=0.35, markersize=5)
    along, across = (half, None) if upright else (None, half)
    axes.errorbar(*mean, yerr=along, xerr=across, fmt="o", color=colour, markersize=6, capsize=3 if half else 0)


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]
