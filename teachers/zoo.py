"""Teachers by name, and which one `auto` is."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from torch import nn

from fasthamer.hand.mano import Hand, load_hand
from fasthamer.registry import Registry, unknown
from fasthamer.students.fast_hamer_checkpoint import SUFFIXES, hand_of_checkpoint
from fasthamer.students.files import STUDENT_FILE, box_shape_of, load_student
from fasthamer.students.shipped import shipped_students, student_file
from fasthamer.teachers.embedded import FILE, load_embedded
from fasthamer.teachers.embedded import FILE as EMBEDDED_FILE
from fasthamer.teachers.ensemble import JOINED, Ensemble
from fasthamer.teachers.hamer_checkpoint import load_hamer
from fasthamer.teachers.mediapipe import NAME as POINTS_ONLY
from fasthamer.teachers.teacher import Teacher
from fasthamer.teachers.wilor import LICENCE as WILOR_LICENCE
from fasthamer.teachers.wilor_checkpoint import load_wilor

logger = logging.getLogger(__name__)

TEACHERS = Registry("teacher")  # builder(checkpoint, hand) -> hand model
HAMER_VARIABLE, WILOR_VARIABLE = "FASTHAMER_HAMER_CKPT", "FASTHAMER_WILOR_CKPT"


class Published(NamedTuple):
    """A teacher whose weights its authors publish and the user has to get."""

    title: str
    file: str
    variable: str  # of the environment: where the file is
    source: str  # where to get it
    terms: str
    load: Callable[[str | Path, Hand], nn.Module]
    notice: str = ""  # terms that are named whenever it teaches


PUBLISHED = {
    "hamer": Published(
        "HaMeR",
        "hamer.ckpt",
        HAMER_VARIABLE,
        "get hamer_demo_data.tar.gz from the HaMeR project's page (github.com/geopavlakos/hamer, fetch_demo_data.sh), "
        "unpack _DATA/hamer_ckpts/checkpoints/hamer.ckpt",
        "HaMeR's code is MIT; the MANO model inside the checkpoint is for non-commercial research under its own "
        "licence (mano.is.tue.mpg.de)",
        load_hamer,
    ),
    "wilor": Published(
        "WiLoR",
        "wilor_final.ckpt",
        WILOR_VARIABLE,
        "get wilor_final.ckpt from the WiLoR project's page (github.com/rolpotamias/WiLoR)",
        f"{WILOR_LICENCE}; the MANO model inside the checkpoint is for non-commercial research under its own licence "
        "(mano.is.tue.mpg.de)",
        load_wilor,
        WILOR_LICENCE,
    ),
}


@TEACHERS.register
def hamer(checkpoint: str, hand: Hand | None) -> nn.Module:
    """ViT-H and transformer head, 670 M parameters; needs the published checkpoint."""
    return _load_published("hamer", checkpoint, hand)


@TEACHERS.register
def wilor(checkpoint: str, hand: Hand | None) -> nn.Module:
    """ViT-H with parameter tokens and refinement, 639 M parameters; needs the published checkpoint."""
    return _load_published("wilor", checkpoint, hand)


@TEACHERS.register
def embedded(checkpoint: str, hand: Hand | None) -> nn.Module:
    """The small teacher that ships with fasthamer; `checkpoint` is another teacher's and not used."""
    return load_embedded(load_hand("embedded") if hand is None else hand)


def build_teacher(name: str, checkpoint: str = "", hand: Hand | None = None, precision: str = "auto") -> Teacher:
    """A frozen teacher.

    Args:
        name: one of `TEACHERS`, auto, or the path of a student's file, run directory or Fast-HaMeR checkpoint; or
            several of them, joined by +: an `Ensemble`.
        checkpoint: hamer.ckpt or wilor_final.ckpt; empty looks at the variables FASTHAMER_HAMER_CKPT and
            FASTHAMER_WILOR_CKPT.
        hand: the hand model; None is the teacher's own.
        precision: see `Teacher`.

    Raises:
        KeyError: no such teacher or precision.
        FileNotFoundError: its file is not there; the message names the source.
        ValueError: its file is not usable.
    """
    models = []
    for member in members_of(resolve_teacher(name, checkpoint)[0]):
        models.append(TEACHERS.build(member, checkpoint, hand) if member in TEACHERS else load_student(member, hand))
    return Teacher(Ensemble(models) if len(models) > 1 else models[0], precision)


def members_of(name: str) -> list[str]:
    """The names in an ensemble's name, which are not checked; a single teacher's name alone."""
    return [name] if Path(name).exists() else name.split(JOINED)


def resolve_teacher(name: str, checkpoint: str = "") -> tuple[str, str]:
    """The teacher that a name stands for, and one line with the reason.

    Args:
        name: as for `build_teacher`.
        checkpoint: hamer.ckpt or wilor_final.ckpt, if configured. `auto` takes it for HaMeR's.

    Raises:
        KeyError: neither a teacher's name nor a file.
        ValueError: a teacher that gives no meshes.
    """
    if len(members := members_of(name)) > 1:
        return JOINED.join(resolve_teacher(member, checkpoint)[0] for member in members), "as given, an ensemble"
    if name == POINTS_ONLY:
        raise ValueError(
            f"the teacher {name} gives points only, no mesh to distil: label images with it first "
            f"(tools/prepare_data.py label FOLDER --out OUT --teacher {name}), then train on them with "
            "--data labelled --data-root OUT --kd none"
        )
    if name == "auto":
        for known, published in PUBLISHED.items():
            if configured := checkpoint_of(known, checkpoint):
                source = "TEACHER.CHECKPOINT" if checkpoint else published.variable
                return known, f"chosen since {source} names its checkpoint {configured}"
        return "embedded", (
            f"chosen since neither --teacher-ckpt nor {HAMER_VARIABLE} names a HaMeR checkpoint, "
            f"nor {WILOR_VARIABLE} one of WiLoR"
        )
    if name in TEACHERS:
        return name, "as given"
    shipped = shipped_students()
    path = shipped.get(name, Path(name) / STUDENT_FILE if Path(name).is_dir() else Path(name))
    if path.is_file():
        return str(path), "as given, a student's file"
    other = "; or a student's file or run directory, or several of these joined by +"
    raise KeyError(unknown("teacher", name, ["auto", *TEACHERS, *shipped]) + other)


def box_shape_for(model: str) -> str:
    """The box shape that DATA.BOX_SHAPE auto stands for: that of the model's own training.

    Args:
        model: a resolved teacher's name, a student's file, or a shipped student's name.
    """
    model = members_of(model)[0]  # an ensemble's members agree
    if model == "embedded":
        return box_shape_of(FILE)
    return "hamer" if model in TEACHERS else box_shape_of(student_file(model))


def hand_for(teacher: str, checkpoint: str = "") -> str:
    """The hand model that HAND.MODEL auto stands for: a student must predict the parameters of its teacher's hand.

    Args:
        teacher: a resolved name.
        checkpoint: hamer.ckpt or wilor_final.ckpt, if configured; MANO is in it.
    """
    teacher = members_of(teacher)[0]
    if Path(teacher).suffix in SUFFIXES:
        return hand_of_checkpoint(teacher)
    return checkpoint_of(teacher, checkpoint) or "embedded"


def notice_of(teacher: str) -> str:
    """The terms to be named whenever a teacher teaches; empty where there are none.

    Args:
        teacher: a resolved name.
    """
    notices = [PUBLISHED[member].notice for member in members_of(teacher) if member in PUBLISHED]
    return "; ".join(filter(None, notices))


def checkpoint_of(teacher: str, checkpoint: str = "") -> str:
    """The file of a published teacher's weights: the one that is configured, else its variable's; empty if neither."""
    return (checkpoint or os.environ.get(PUBLISHED[teacher].variable, "")) if teacher in PUBLISHED else ""


def weights_of(teacher: str, checkpoint: str = "") -> list[Path]:
    """The files of a teacher's weights, one for each member of an ensemble.

    Args:
        teacher: a resolved name.
        checkpoint: hamer.ckpt or wilor_final.ckpt, if configured.
    """
    return [
        EMBEDDED_FILE if member == "embedded" else Path(checkpoint_of(member, checkpoint) or member)
        for member in members_of(teacher)
    ]


def _load_published(name: str, checkpoint: str, hand: Hand | None) -> nn.Module:
    published, checkpoint = PUBLISHED[name], checkpoint_of(name, checkpoint)
    how = (
        f"the teacher {name} needs its checkpoint: {published.source} and give it as --teacher-ckpt FILE "
        f"(TEACHER.CHECKPOINT) or in the variable {published.variable}. {published.terms}"
    )
    if not checkpoint:
        raise FileNotFoundError(how)
    if not Path(checkpoint).is_file():
        raise FileNotFoundError(f"no {published.title} checkpoint {checkpoint!r}; {how}")
    if hand is None:
        hand = load_hand(checkpoint)
    elif hand.is_embedded:
        logger.warning(
            f"{published.title} predicts MANO's parameters but the hand is the embedded one, so its meshes are only "
            f"roughly right: set HAND.MODEL (--mano) to MANO_RIGHT.pkl or to {published.file} itself"
        )
    return published.load(checkpoint, hand)
