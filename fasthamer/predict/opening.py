"""Opening a model by name, file or run directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fasthamer.data.crop import shape_for
from fasthamer.runtime.exported_model import ModelArrays
from fasthamer.runtime.sessions import open_session
from fasthamer.types import View

if TYPE_CHECKING:
    from torch import nn

STUDENT_FILE = "student.safetensors"


class TorchModel:
    """A student or teacher, with the interface of `ExportedModel`."""

    def __init__(self, model: nn.Module, device: str, backend: str, threads: int) -> None:
        self.model = model
        self.session = open_session(model, backend, "auto", device, threads=threads)
        self.box_shape = shape_for(model)
        self.faces: NDArray[np.int64] = model.hand.faces  # type: ignore[assignment, union-attr]
        self.hands_mean: NDArray = model.hand.hands_mean  # type: ignore[assignment, union-attr]

    @property
    def crop_size(self) -> int:
        view: View = self.model.view  # type: ignore[assignment]
        image_size: int = self.model.image_size  # type: ignore[assignment]
        return round(image_size / (view.bottom - view.top))  # the part inside the view is then not resized

    def __call__(self, crops: NDArray[np.uint8]) -> ModelArrays:
        found = self.session(crops)
        mano = (found["global_orient"], found["hand_pose"], found["betas"]) if "global_orient" in found else None
        return ModelArrays(found["vertices"], found["joints"], found["keypoints_2d"], found["camera"], mano)


def open_model(source: str | Path, hand: str | Path | None = None, checkpoint: str = "") -> nn.Module:
    """A teacher or a student in eval mode, by name, file or run directory.

    Args:
        source: a shipped student (`fasthamer zoo`), embedded (the teacher that fasthamer ships), hamer, wilor, a
            student's file, a run directory, or a checkpoint of Fast-HaMeR (.ckpt); or several, joined by +, whose mean
            is the answer.
        hand: embedded or a MANO file; None is the embedded hand, for checkpoints the one inside.
        checkpoint: hamer.ckpt or wilor_final.ckpt; empty looks at FASTHAMER_HAMER_CKPT or FASTHAMER_WILOR_CKPT.

    Raises:
        FileNotFoundError, ValueError, KeyError: nothing of that name, or not usable; the message names the remedy.
    """
    from fasthamer.hand.mano import load_hand
    from fasthamer.students import load_student
    from fasthamer.students.shipped import shipped_students, student_file
    from fasthamer.teachers import TEACHERS, build_teacher, members_of

    if str(source) in TEACHERS or len(members_of(str(source))) > 1:
        return build_teacher(str(source), checkpoint, None if hand is None else load_hand(hand), "fp32")
    path = student_file(source)
    path = path / STUDENT_FILE if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(
            f"no model {str(source)!r}: give {', '.join([*shipped_students(), *sorted(TEACHERS)])}, a "
            f"{STUDENT_FILE}, a run directory or a checkpoint of Fast-HaMeR (.ckpt)"
        )
    return load_student(path, None if hand is None else load_hand(hand))
