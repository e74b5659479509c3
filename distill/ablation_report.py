"""What the ablations found: ablation.json, a table beside the paper's figures, and curves."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fasthamer.benchmark.timing import machine
from fasthamer.device import pick_device
from fasthamer.distill.ablation import Plan, finished, student_config, tokenizer_config
from fasthamer.distill.ablation_curves import curves, over_time
from fasthamer.distill.ablation_points import GROUPS, PAPER, Group, Point, all_points, changes
from fasthamer.distill.tokenizer import FILE
from fasthamer.files.atomic import write_json, write_text
from fasthamer.files.images import write_image
from fasthamer.render.figure import pixels
from fasthamer.students.files import STUDENT_FILE
from fasthamer.students.tokenhand.files import tokenizer_metadata
from fasthamer.students.tokenhand.mesh_decoder import mesh_decoder_params
from fasthamer.training.provenance import revision

Row = dict[str, Any]
IMAGE = "ablation.png"
_HEADS = (
    *("what", "point", "tokenizer PA-MPVPE", "codes in use", "mesh decoder, millions", "student PA-MPJPE", "PA-MPVPE"),
    *("the paper's PA-MPJPE", "PA-MPVPE"),
)


def write_report(plan: Plan) -> str:
    """Writes ablation.json, ablation.md and, with a tokenizer to show, ablation.png; returns the table.

    Every finished point in OUT is reported, whether it is one of the plan's or not: all were trained alike (`check`).
    """
    rows = collect(plan)
    summary = about(plan)
    write_json(plan.out / "ablation.json", {"about": summary, "points": rows})
    text = markdown(rows, summary)
    write_text(plan.out / "ablation.md", text)
    if rows:
        write_image(plan.out / IMAGE, pixels(curves(rows)))
    return text


def collect(plan: Plan) -> dict[str, Row]:
    """A row for each point whose tokenizer, and for a generator also whose student, is finished."""
    rows = {}
    for point in all_points():
        run, student = plan.tokenizer_run(point), plan.student_run(point)
        learnt = plan.student_steps > 0 and finished(student, STUDENT_FILE)
        if finished(run, FILE) and (learnt or point.tokenizer == point.name):
            rows[point.name] = _row(point, run) | ({"student": _scores(student)} if learnt else {})
    return rows


def _row(point: Point, run: Path) -> Row:
    spec = tokenizer_metadata(run / FILE)["tokenizer"]
    scores = _scores(run)
    curve = over_time(run, scores["pa_mpvpe_mm"])
    mesh_decoder = {key: spec[key] for key in ("code_width", "tokens", "widths", "blocks")}
    return {
        "changes": changes(point),
        "M": spec["tokens"][0],
        "K": spec["codes"],
        "mesh_decoder_params_m": mesh_decoder_params(**mesh_decoder) / 1e6,
        "tokenizer": scores,
        "seconds": curve[-1][0],
        "curve": curve,
        "paper": dict(zip(("pa_mpjpe_mm", "pa_mpvpe_mm"), PAPER[point.name], strict=True))
        if point.name in PAPER
        else None,
    }


def _scores(run: Path) -> dict[str, Any]:
    return json.loads((run / "eval" / "scores.json").read_text(encoding="utf-8"))


def about(plan: Plan) -> dict[str, Any]:
    """The scale of it, and where it ran."""
    point = all_points()[0]
    first, second = tokenizer_config(plan, point), student_config(plan, point)
    students = {
        "steps": plan.student_steps,
        "batch": second.TRAIN.BATCH,
        "name": second.STUDENT.NAME,
        "pixels": second.STUDENT.IMAGE_SIZE,
        "images": second.DATA.SYNTHETIC_SIZE,
        "scored_on": second.DATA.SYNTHETIC_EVAL_SIZE,
    }
    return {
        "tokenizers": {"steps": plan.steps, "batch": first.TRAIN.BATCH, "hands": first.TOKENIZER.HANDS},
        "students": students if plan.student_steps else None,
        "seed": first.SEED,
        "settings": " ".join(plan.overrides),
        "jobs": plan.jobs,
        "revision": revision(),
        **machine(pick_device(first.DEVICE)),
    }


def markdown(rows: dict[str, Row], summary: dict[str, Any]) -> str:
    """The points by group, the paper's figures beside them."""
    groups = [group for group in GROUPS if len(rows.keys() & set(group.points)) > 1]  # a group needs two points
    groups = groups or [Group("", tuple(rows))]
    blocks = [
        *_heading(summary),
        *([f"![error against M, K and training time]({IMAGE})"] if rows else []),
        "\n".join(
            [_cells(_HEADS), "|" + "---|" * len(_HEADS), *(each for group in groups for each in _lines(group, rows))]
        ),
        *(f"The paper on {group.title}: {group.finding}." for group in groups if group.finding),
    ]
    return "\n\n".join(blocks) + "\n"


def _heading(summary: dict[str, Any]) -> list[str]:
    first, second = summary["tokenizers"], summary["students"]
    students = "No students."
    if second:
        students = (
            f"Students: {second['name']} at {second['pixels']} pixels, {second['steps']} steps of {second['batch']} of "
            f"{second['images']} synthetic images, scored on {second['scored_on']} others."
        )
    hardware = ", ".join(str(summary[key]) for key in ("cpu", "gpu", "torch", "system", "load") if key in summary)
    settings = f" Settings: {summary['settings']}." if summary["settings"] else ""
    return [
        "# TokenHand's ablations, small",
        f"Tokenizers: {first['steps']} steps of {first['batch']} of {first['hands']} hands. {students}{settings}",
        f"Seed {summary['seed']}, {summary['jobs']} trainings at a time on {hardware}. Written {summary['date']} "
        f"at revision {summary['revision']}.",
        "Errors in millimetres. Ours are of synthetic images and short trainings, the paper's of FreiHAND: only the "
        "order of the points compares. One seed each: small differences are not significant.",
    ]


def _lines(group: Group, rows: dict[str, Row]) -> list[str]:
    lines: list[str] = []
    for name in (name for name in group.points if name in rows):
        row, paper = rows[name], PAPER.get(name, (None, None))
        ours, student = row["tokenizer"], row.get("student", {})
        cells = [_number(ours["pa_mpvpe_mm"], 2), f"{ours['codes_used_share']:.0%}"]
        cells += [_number(row["mesh_decoder_params_m"], 2)]
        cells += [_number(student.get(key), 2) for key in ("pa_mpjpe_mm", "pa_mpvpe_mm")]
        lines.append(_cells(["" if lines else group.title, name, *cells, *(_number(each, 1) for each in paper)]))
    return lines


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _cells(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"
