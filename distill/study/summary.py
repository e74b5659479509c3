"""What a study found, to read: a page of tables, and a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fasthamer.distill.study.cells import Record
from fasthamer.distill.study.estimates import (
    MAIN,
    Levels,
    beside_teacher,
    estimate,
    gains,
    power_laws,
    recorded,
    scores,
)
from fasthamer.distill.study.grid import OWN_SET, Study
from fasthamer.distill.study.plots import plot
from fasthamer.distill.study.scaling import PowerLaw
from fasthamer.distill.study.scores import Scores
from fasthamer.files.atomic import write_text
from fasthamer.files.images import write_image
from fasthamer.render.figure import pixels

CAPTION = (
    "In the plot: seeds (pale), their mean and, from three seeds on, its interval; grey, the best; dashed, the "
    "teacher; dotted, fitted laws and, crossed, what they predict."
)


def write_summary(study: Study, records: dict[str, Record], teachers: dict[str, dict[str, Scores]], out: Path) -> str:
    """Writes STUDY.md and, with a cell to show, STUDY.png into `out`; returns the text."""
    text = markdown(study, records, teachers)
    write_text(out / f"{study.name}.md", text)
    if scores(records, OWN_SET):
        write_image(out / f"{study.name}.png", pixels(plot(study, records, teachers)))
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
        blocks += [
            f"![PA-MPVPE of every setting]({study.name}.png)",
            CAPTION,
            _settings_table(study, records, teachers),
        ]
        blocks += [_gains_table(study, records, axis) for axis in study.axes if gains(study, records, axis)]
        blocks += [_laws_table(laws)] if (laws := power_laws(records)) else []
    return "\n\n".join(blocks) + "\n"


def _settings_table(study: Study, records: dict[str, Record], teachers: dict[str, dict[str, Scores]]) -> str:
    sets = list(dict.fromkeys(name for record in records.values() for name in record["scores"]))
    columns = [(name, metric) for name in sets for metric in ("pa_mpjpe_mm", MAIN) if scores(records, name, metric)]
    found = [scores(records, *column) for column in columns]
    speed, shares = recorded(records, "images_per_second"), recorded(records, "teacher_share")
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
