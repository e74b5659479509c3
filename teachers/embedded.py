"""The teacher that comes with fasthamer, so that distillation runs without MANO's licence and without a download.

It is a student's file, trained by the recipe `configs/embedded_teacher.yaml`; its accuracy: docs/embedded_teacher.md.
"""

from __future__ import annotations

from pathlib import Path

import fasthamer
from fasthamer.hand.mano import Hand
from fasthamer.students.files import load_student
from fasthamer.students.student import Student

FILE = Path(fasthamer.__file__).resolve().parent / "assets" / "embedded_teacher.safetensors"


def load_embedded(hand: Hand, path: Path = FILE) -> Student:
    """The embedded teacher.

    Args:
        hand: the embedded hand.
        path: its file.

    Raises:
        FileNotFoundError: this copy of fasthamer has none.
        ValueError: `hand` is not the embedded hand, whose parameters it predicts.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"this copy of fasthamer has no embedded teacher ({path.name} is missing from its assets): install it "
            "anew, train one with `python tools/distill.py --config embedded_teacher`, or give a student's file"
        )
    if not hand.is_embedded:
        raise ValueError(
            f"the embedded teacher predicts the embedded hand's parameters, not those of {hand.name!r}: leave --mano "
            "out, or bring a MANO teacher (TEACHER.NAME hamer, or a student's file trained with this hand)"
        )
    return load_student(path, hand)
