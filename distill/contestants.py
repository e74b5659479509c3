"""Models by name for a speed comparison, where random weights are as good as trained ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from fasthamer.hand.mano import load_hand
from fasthamer.predict import open_model
from fasthamer.registry import unknown
from fasthamer.runtime.benchmark import Candidate
from fasthamer.students import STUDENTS, Student, build_student
from fasthamer.teachers import Teacher, random_hamer
from fasthamer.teachers.zoo import HAMER_VARIABLE

TEACHERS = ("hamer", "embedded")


def contestants(
    names: Sequence[str], hand_source: str | None, checkpoint: str, decoder_size: str, device: torch.device
) -> tuple[list[Candidate], str]:
    """The models, and the name of the one to compare with: the first teacher, else the first.

    Args:
        names: hamer, embedded, a student's file, a run directory, or a student's name (random weights).
        hand_source: embedded or a MANO file; None is each model's own.
        checkpoint: hamer.ckpt; without one HaMeR has random weights.
        decoder_size: of students given by name.

    Raises:
        KeyError, ValueError, FileNotFoundError: no such model, twice the same, or none.
    """
    if not names:
        raise ValueError("no model to time: --models takes names separated by commas")
    if len(set(names)) != len(names):
        raise ValueError(f"--models names one twice: {', '.join(names)}")
    found = [_candidate(name, hand_source, checkpoint, decoder_size) for name in names]
    for candidate in found:
        candidate.model.to(device).eval()
    return found, next((name for name in names if name in TEACHERS), names[0])


def _candidate(name: str, hand_source: str | None, checkpoint: str, decoder_size: str) -> Candidate:
    if name == "hamer" and not (checkpoint or os.environ.get(HAMER_VARIABLE)):
        return Candidate(name, random_hamer(load_hand(hand_source or "embedded")), "mano full", "random")
    if name in STUDENTS or name.startswith("timm:"):
        student = build_student(name, decoder_size=decoder_size, hand=load_hand(hand_source or "embedded"))
        return Candidate(name, student, f"mano {decoder_size}", "random")
    if name not in TEACHERS and not Path(name).exists():
        raise KeyError(
            unknown("model", name, [*TEACHERS, *STUDENTS]) + "; timm:<name>, a student's file or a run's folder"
        )
    model = open_model(name, hand_source, checkpoint)
    model = model.model if isinstance(model, Teacher) else model  # without its fixed precision
    if isinstance(model, Student):
        return Candidate(name, model, f"{model.spec['decoder']} {model.spec['decoder_size']}", "trained")
    return Candidate(name, model, "mano full", "trained")
