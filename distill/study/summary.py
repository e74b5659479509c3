"""What a study found: a table of means over seeds, paired comparisons within each axis, a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import stats

from fasthamer.distill.study.cells import Record
from fasthamer.distill.study.grid import OWN_SET, Study
from fasthamer.distill.study.scaling import FEWEST, PowerLaw, power_law
from fasthamer.distill.study.scores import Scores, teacher_of
from fasthamer.files.atomic import write_text
from fasthamer.files.images import write_image
from fasthamer.render.figure import COLOURS, FAINT, INK, new_figure, pixels, plain_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Levels = tuple[str, ...]  # one of each axis
MAIN = "pa_mpvpe_mm"
CROPS = "crops"  # an axis of this name varies TRAIN.STEPS
ROW = 26  # pixels of a row of the plot


class Estimate(NamedTuple):
    """A mean over seeds and half the width of its 95 % interval (Student's t; NaN for a single seed)."""

    mean: float
    half: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:.1f}" + (f" ± {self.half:.1f}" if self.seeds > 1 else "")


def estimate(values: Sequence[float]) -> Estimate:
    """Of at least one value."""
    count = len(values)
    half = float(stats.t.ppf(0.975, count - 1) * stats.sem(values)) if count > 1 else float("nan")
    return Estimate(float(np.mean(values)), half, count)


def scores(records: dict[str, Record], name: str, metric: str = MAIN) -> dict[Levels, dict[int, float]]:
    """An evaluation set's metric by levels and seed; without the cells that have none."""
    found: dict[Levels, dict[int, float]] = {}
    for record in records.values():
        if metric in record["scores"].get(name, {}):
            found.setdefault(tuple(record["levels"].values()), {})[record["seed"]] = record["scores"][name][metric]
    return found


def gains(
    study: Study, records: dict[str, Record], axis: str, name: str = OWN_SET
) -> dict[str, dict[Levels, Estimate]]:
    """By how many per cent a level of an axis lowers the error of the axis's first level, all else equal.

    Compared seed by seed: what a seed does to both does not count.

    Returns:
        By level, then by the levels of the other axes.
    """
    place, found = list(study.axes).index(axis), scores(records, name)
    first, *others = study.axes[axis]
    gained: dict[str, dict[Levels, Estimate]] = {}
    for levels, errors in found.items():
        before = found.get((*levels[:place], first, *levels[place + 1 :]), {})
        shared = sorted(errors.keys() & before.keys())
        if levels[place] in others and shared:
            rest = (*levels[:place], *levels[place + 1 :])
            values = [100 * (1 - errors[seed] / before[seed]) for seed in shared]
            gained.setdefault(levels[place], {})[rest] = estimate(values)
    return gained


def beside_teacher(
    study: Study, records: dict[str, Record], teachers: dict[str, dict[str, Scores]]
) -> dict[Levels, Estimate]:
    """A student's PA-MPVPE in units of its teacher's on the same images, where the teacher is scored."""
    ratios: dict[Levels, list[float]] = {}
    for cell in study.cells():
        teacher = teachers.get(teacher_of(study, cell), {}).get(OWN_SET, {})
        if cell.name in records and MAIN in teacher:
            error = records[cell.name]["scores"][OWN_SET][MAIN]
            ratios.setdefault(tuple(cell.levels.values()), []).append(error / teacher[MAIN])
    return {levels: estimate(values) for levels, values in ratios.items()}


def write_summary(study: Study, records: dict[str, Record], teachers: dict[str, dict[str, Scores]], out: Path) -> str:
    """Writes STUDY.md and, with a cell to show, STUDY.png into `out`; returns the text."""
    text = markdown(study, records, teachers)
    write_text(out / f"{study.name}.md", text)
    if scores(records, OWN_SET):
        write_image(out / f"{study.name}.png", pixels(plot(study, records)))
    return text


def markdown(study: Study, records: dict[str, Record], teachers: dict[str, dict[str, Scores]]) -> str:
    """The tables."""
    cells = study.cells()
    done = [cell for cell in cells if cell.name in records]
    blocks = [
        f"# Study {study.name}",
        f"{len(done)} of {len(cells)} trainings, seeds {', '.join(map(str, study.seeds))}. Errors in mm, means over "
        "seeds with 95 % intervals (Student's t). Teacher: the student's PA-MPVPE divided by its teacher's. Its share: "
        "of the time of a training step, what its answers take.",
    ]
    if done:
        blocks += [f"![{MAIN} of every setting]({study.name}.png)", _settings_table(study, records, teachers)]
        blocks += [_gains_table(study, records, axis) for axis in study.axes if gains(study, records, axis)]
        blocks += [_laws_table(laws)] if (laws := power_laws(records)) else []
    return "\n\n".join(blocks) + "\n"


def _settings_table(study: Study, records: dict[str, Record], teachers: dict[str, dict[str, Scores]]) -> str:
    sets = list(dict.fromkeys(name for record in records.values() for name in record["scores"]))
    columns = [(name, metric) for name in sets for metric in ("pa_mpjpe_mm", MAIN) if scores(records, name, metric)]
    found = [scores(records, *column) for column in columns]
    speed, shares = _costs(records, "images_per_second"), _costs(records, "teacher_share")
    heads = [f"{name} {'PA-MPJPE' if metric == 'pa_mpjpe_mm' else 'PA-MPVPE'}" for name, metric in columns]
    ratios = beside_teacher(study, records, teachers)
    lines = [
        _cells([*study.axes, *heads, "teacher", "images/s", "its share"]),
        _cells(["---"] * (len(study.axes) + len(heads) + 3)),
    ]
    for levels, speeds in speed.items():
        values = [str(estimate(list(each[levels].values()))) if levels in each else "" for each in found]
        ratio = f"{ratios[levels].mean:.2f}" if levels in ratios else ""
        share = f"{np.median(shares[levels]):.0%}" if levels in shares else ""
        lines.append(_cells([*levels, *values, ratio, f"{np.median(speeds):.0f}", share]))
    return "\n".join(lines)


def _costs(records: dict[str, Record], name: str) -> dict[Levels, list[float]]:
    """By levels, one number a seed."""
    found: dict[Levels, list[float]] = {}
    for record in records.values():
        if name in record:
            found.setdefault(tuple(record["levels"].values()), []).append(record[name])
    return found


def _gains_table(study: Study, records: dict[str, Record], axis: str) -> str:
    first = next(iter(study.axes[axis]))
    others = [name for name in study.axes if name != axis]
    lines = [
        f"PA-MPVPE lower than with {axis} {first}, in per cent, compared seed by seed:\n",
        _cells([axis, *others, "lower by %"]),
        _cells(["---"] * (len(others) + 2)),
    ]
    for level, by_rest in gains(study, records, axis).items():
        lines += [_cells([level, *rest, str(gain)]) for rest, gain in by_rest.items()]
    return "\n".join(lines)


def power_laws(records: dict[str, Record]) -> dict[Levels, PowerLaw]:
    """The law of each setting that was trained with enough different numbers of crops; of means over seeds.

    Returns:
        By the levels of the axes other than `CROPS`.
    """
    curves: dict[Levels, dict[int, list[float]]] = {}
    for record in records.values():
        levels = tuple(level for axis, level in record["levels"].items() if axis != CROPS)
        error = record["scores"][OWN_SET][MAIN]
        curves.setdefault(levels, {}).setdefault(record["crops"], []).append(error)
    return {
        levels: power_law(sorted(curve), [float(np.mean(curve[crops])) for crops in sorted(curve)])
        for levels, curve in curves.items()
        if len(curve) >= FEWEST
    }


def _laws_table(laws: dict[Levels, PowerLaw]) -> str:
    lines = [
        "PA-MPVPE = floor + (scale / crops) ^ exponent, fitted without the largest number of crops, which it "
        "predicts:\n",
        _cells(["", "floor, mm", "exponent", "predicted, mm", "measured, mm"]),
        _cells(["---"] * 5),
    ]
    for levels, law in laws.items():
        values = (law.floor, law.exponent, law.predicted, law.measured)
        lines.append(_cells([", ".join(levels), *(f"{value:.2f}" for value in values)]))
    return "\n".join(lines)


def _cells(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"


def plot(study: Study, records: dict[str, Record]) -> Figure:
    """Every setting's PA-MPVPE: its seeds as dots, mean and interval; a colour for each level of the last axis."""
    found = scores(records, OWN_SET)
    last = list(list(study.axes.values())[-1])
    figure = new_figure(760, 70 + ROW * len(found))
    axes = plain_axes(figure.subplots())
    for row, (levels, errors) in enumerate(found.items()):
        colour, value = COLOURS[last.index(levels[-1]) % len(COLOURS)], estimate(list(errors.values()))
        axes.plot(list(errors.values()), [row] * len(errors), "o", color=colour, alpha=0.35, markersize=5)
        half = 0 if np.isnan(value.half) else value.half
        axes.errorbar(value.mean, row, xerr=half, fmt="o", color=colour, markersize=7, capsize=3)
    axes.set_yticks(range(len(found)), [", ".join(levels) for levels in found])
    axes.invert_yaxis()
    axes.set_xlabel("PA-MPVPE, mm", color=INK)
    axes.axvline(min(estimate(list(each.values())).mean for each in found.values()), color=FAINT, linewidth=0.8)
    return figure
