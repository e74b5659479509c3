"""What the records of a study say: means over seeds, paired comparisons within an axis, ratios, laws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from fasthamer.distill.study.cells import Record
from fasthamer.distill.study.grid import OWN_SET, Study
from fasthamer.distill.study.scaling import FEWEST, PowerLaw, power_law
from fasthamer.distill.study.scores import Scores, teacher_of

Levels = tuple[str, ...]  # one of each axis
MAIN = "pa_mpvpe_mm"
CROPS = "crops"  # an axis of this name varies TRAIN.STEPS


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


def recorded(records: dict[str, Record], name: str) -> dict[Levels, list[float]]:
    """An entry of the records, such as `images_per_second`, by levels: one number a seed that has it."""
    found: dict[Levels, list[float]] = {}
    for record in records.values():
        if name in record:
            found.setdefault(tuple(record["levels"].values()), []).append(record[name])
    return found


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
