"""Teachers by name, and which one `auto` is."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from torch import nn

from fasthamer.hand.mano import Hand, load_hand
from fasthamer.registry import Registry, unknown
from fasthamer.students.files import load_student
from fasthamer.teachers.embedded import load_embedded
from fasthamer.teachers.hamer_checkpoint import load_hamer
from fasthamer.teachers.teacher import Teacher

logger = logging.getLogger(__name__)

TEACHERS = Registry("teacher")  # builder(checkpoint, hand) -> hand model
HAMER_VARIABLE = "FASTHAMER_HAMER_CKPT"
HOW_TO_GET_HAMER = (
    "the teacher hamer needs its checkpoint: get hamer_demo_data.tar.gz from the HaMeR project's page "
    "(github.com/geopavlakos/hamer, fetch_demo_data.sh), unpack _DATA/hamer_ckpts/checkpoints/hamer.ckpt and give it "
    f"as --teacher-ckpt FILE (TEACHER.CHECKPOINT) or in the variable {HAMER_VARIABLE}. HaMeR's code is MIT; the MANO "
    "model inside the checkpoint is for non-commercial research under its own licence (mano.is.tue.mpg.de)"
)


@TEACHERS.register
def hamer(checkpoint: str, hand: Hand | None) -> nn.Module:
    """ViT-H and transformer head, 670 M parameters; needs the published checkpoint."""
    checkpoint = _hamer_checkpoint(checkpoint)
    if not checkpoint:
        raise FileNotFoundError(HOW_TO_GET_HAMER)
    if not Path(checkpoint).is_file():
        raise FileNotFoundError(f"no HaMeR checkpoint {checkpoint!r}; {HOW_TO_GET_HAMER}")
    if hand is None:
        hand = load_hand(checkpoint)
    elif hand.is_embedded:
        logger.warning(
            "HaMeR predicts MANO's parameters but the hand is the embedded one, so its meshes are only approximate: "
            "set HAND.MODEL (--mano) to MANO_RIGHT.pkl or to hamer.ckpt itself"
        )
    return load_hamer(checkpoint, hand)


@TEACHERS.register
def embedded(checkpoint: str, hand: Hand | None) -> nn.Module:
    """The small teacher that ships with fasthamer; `checkpoint` is HaMeR's and not used."""
    return load_embedded(load_hand("embedded") if hand is None else hand)


def build_teacher(name: str, checkpoint: str = "", hand: Hand | None = None, precision: str = "auto") -> Teacher:
    """A frozen teacher.

    Args:
        name: one of `TEACHERS`, auto, or the path of a student's file.
        checkpoint: hamer.ckpt; empty looks at the variable FASTHAMER_HAMER_CKPT.
        hand: the hand model; None is the teacher's own.
        precision: see `Teacher`.

    Raises:
        KeyError: no such teacher or precision.
        FileNotFoundError: its file is not there; the message names the source.
        ValueError: its file is not usable.
    """
    name, _ = resolve_teacher(name, checkpoint)
    if name in TEACHERS:
        return Teacher(TEACHERS.build(name, checkpoint, hand), precision)
    return Teacher(load_student(name, hand), precision)


def resolve_teacher(name: str, checkpoint: str = "") -> tuple[str, str]:
    """The teacher that a name stands for, and one line with the reason.

    Args:
        name: as for `build_teacher`.
        checkpoint: hamer.ckpt, if configured.

    Raises:
        KeyError: neither a teacher's name nor a file.
    """
    configured = _hamer_checkpoint(checkpoint)
    if name == "auto":
        if configured:
            source = "TEACHER.CHECKPOINT" if checkpoint else HAMER_VARIABLE
            return "hamer", f"chosen since {source} names its checkpoint {configured}"
        return "embedded", f"chosen since neither --teacher-ckpt nor {HAMER_VARIABLE} names a HaMeR checkpoint"
    if name in TEACHERS:
        return name, "as given"
    if Path(name).is_file():
        return name, "as given, a student's file"
    raise KeyError(unknown("teacher", name, ["auto", *TEACHERS]) + "; or the path of a student's file")


def hand_for(teacher: str, checkpoint: str = "") -> str:
    """The hand model that HAND.MODEL auto stands for: a student must predict its teacher's parameters.

    Args:
        teacher: a resolved name.
        checkpoint: hamer.ckpt, if configured; MANO is in it.
    """
    return (_hamer_checkpoint(checkpoint) if teacher == "hamer" else "") or "embedded"


def _hamer_checkpoint(checkpoint: str) -> str:
    return checkpoint or os.environ.get(HAMER_VARIABLE, "")
