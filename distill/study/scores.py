"""Scores of a study's students and teachers on all of its evaluation sets."""

from __future__ import annotations

import json
import re
from pathlib import Path

from torch import nn
from yacs.config import CfgNode

from fasthamer.distill.preparation import teacher_and_hand
from fasthamer.distill.scoring import open_for_scoring, prepare, score_model
from fasthamer.distill.study.grid import OWN_SET, Cell, Study
from fasthamer.recipes import flatten

Scores = dict[str, float]

HARD_TOKENS = "likeliest codes"  # of a token student, on the recipe's own set
KEPT = ("pa_mpjpe_mm", "pa_mpvpe_mm", "mpjpe_rel_mm", "mpvpe_rel_mm")
DECISIVE = (  # what a teacher's score depends on beside the teacher
    *("IMAGE_SIZE", "HAND.MODEL", "TEACHER.CHECKPOINT", "DATA.NAME", "DATA.ROOT", "DATA.BOX", "DATA.BOX_SHAPE"),
    *("DATA.BLUR", "DATA.EVAL_NAME", "DATA.EVAL_ROOT", "DATA.EVAL_SPLIT", "DATA.SYNTHETIC_EVAL_SIZE"),
)


def score_cell(study: Study, cell: Cell, run: Path) -> dict[str, Scores]:
    """The scores of a cell's student by evaluation set; of a token student also with the likeliest codes alone.

    Args:
        study: which sets there are.
        cell: of it.
        run: its run directory, with the student and its own scores.
    """
    cfg = study.config(cell)
    own = json.loads((run / "eval" / "scores.json").read_text(encoding="utf-8"))
    scores = {OWN_SET: _kept(own)}
    _, hand, _ = teacher_and_hand(cfg)
    student = open_for_scoring(cfg, str(run), hand)
    for name, each in study.set_configs(cell).items():
        scores[name] = _scored(student, each, cell.name, run / "eval" / name)
    if cfg.STUDENT.DECODER == "token":
        student = open_for_scoring(cfg, str(run), hand, hard_tokens=True)
        scores[HARD_TOKENS] = _scored(student, cfg, cell.name, run / "eval" / "hard")
    return scores


def score_teacher(study: Study, cell: Cell, out: Path) -> dict[str, Scores]:
    """The scores of a cell's teacher by evaluation set, on crops as its students get.

    Args:
        study: which sets there are.
        cell: names the teacher; with DATA.BOX_SHAPE auto the crops have the shape that the teacher was trained on.
        out: gets the files of the evaluations.
    """
    cfg = study.config(cell)
    teacher = open_for_scoring(cfg, *teacher_and_hand(cfg)[:2])
    sets = {OWN_SET: cfg, **study.set_configs(cell)}
    return {name: _scored(teacher, each, cfg.TEACHER.NAME, out / name) for name, each in sets.items()}


def teacher_of(study: Study, cell: Cell) -> str:
    """Names a cell's teacher, or the one it does without, so that the name may be a file's.

    A path is named whole: every run calls its student's file the same. Where the study's levels change what a teacher's
    score depends on (`DECISIVE`), the name says these settings too.
    """
    cfg = study.config(cell)
    values = dict(flatten(cfg))
    varied = {key for levels in study.axes.values() for settings in levels.values() for key in settings}
    parts = [cfg.TEACHER.NAME, *(f"{key} {values[key]}" for key in DECISIVE if key in varied)]
    return re.sub(r"[/\\:]", "_", ", ".join(parts))


def _scored(model: nn.Module, cfg: CfgNode, name: str, out: Path) -> Scores:
    found, _ = score_model(prepare(cfg, model, name, "auto", "auto"), out)
    return _kept(found)


def _kept(scores: dict[str, float]) -> Scores:
    return {key: scores[key] for key in KEPT if key in scores}
