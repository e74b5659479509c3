"""`student.safetensors`: a trained student, loaded in one line without network, ImageNet weights or pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from fasthamer.files.headed_tensors import Kind, read_headed, read_header, write_headed
from fasthamer.files.weights import check_weights, shapes
from fasthamer.hand.mano import Hand, load_hand
from fasthamer.one_line import one_line
from fasthamer.students.fast_hamer_checkpoint import BOX_SHAPE, SUFFIXES, load_fast_hamer
from fasthamer.students.student import Student
from fasthamer.students.tokenhand.tokenizer import Tokenizer, TokenizerSpec
from fasthamer.students.zoo import build_student

STUDENT_FILE = "student.safetensors"  # in a run directory
LARGEST_IMAGE = 1024  # pixels
CLASSIFIER = 50_000_000  # weights that timm's networks have behind their maps, at most
_SPEC = {"name", "decoder", "decoder_size", "image_size", "view", "feature_layer", "hand", "hand_name"}
STUDENT = Kind("student", "fasthamer-student-1", _SPEC, {"tokenizer", "generator", "box_shape"})


def save_student(path: str | Path, student: nn.Module, metadata: dict[str, Any], dtype: str = "fp32") -> None:
    """Writes the student's weights (never the hand's arrays) with the description that rebuilds it; atomic.

    Args:
        path: ends in .safetensors; replaced whole or not at all.
        student: a `Student`.
        metadata: JSON values kept in the header, such as config, metrics and provenance.
        dtype: fp32 or fp16, of the stored weights.
    """
    if not isinstance(student, Student):
        raise TypeError(f"{type(student).__name__} is not a Student: a learner's is `learner.student`")
    description = {**student.spec, "hand": student.hand.fingerprint, "hand_name": student.hand.name}
    write_headed(Path(path), STUDENT, description, metadata, student.state_dict(), dtype)


def load_student(path: str | Path, hand: Hand | None = None) -> Student:
    """The student of a file, in fp32 and eval mode.

    Args:
        path: written by `save_student`; or one of Fast-HaMeR's checkpoints, see `load_fast_hamer`.
        hand: the hand model it was trained with; None loads the embedded one, of a checkpoint the one inside.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a student's file, damaged, or trained with another hand.
    """
    if Path(path).suffix in SUFFIXES:
        return load_fast_hamer(path, hand)
    header, tensors = read_headed(Path(path), STUDENT)
    spec = dict(header["student"])
    fingerprint, hand_name = spec.pop("hand"), spec.pop("hand_name")
    hand = load_hand("embedded") if hand is None else hand
    if hand.fingerprint != fingerprint:
        raise ValueError(
            f"{path}: this student was trained with the hand {hand_name!r} ({fingerprint}), not with {hand.name!r} "
            f"({hand.fingerprint}): its parameters do not fit that hand. Load it with its own hand (HAND.MODEL)"
        )
    try:
        _check_size(spec, tensors)
        if "tokenizer" in spec:  # its mesh decoder and codes are among the student's own weights
            spec["tokenizer"] = Tokenizer(TokenizerSpec(**spec["tokenizer"]), hand)
        student = build_student(**spec, pretrained=False, hand=hand)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:  # of whatever the header holds
        raise ValueError(f"{path}: no student can be built from its description: {one_line(error)}") from error
    _fill(student, tensors, str(path))
    return student.eval()


def box_shape_of(path: str | Path) -> str:
    """The shape of the boxes that the student of a file was trained on; reads no weights.

    Raises:
        FileNotFoundError, ValueError: no such file, or not a student's.
    """
    if Path(path).suffix in SUFFIXES:
        return BOX_SHAPE
    return student_metadata(path)["student"].get("box_shape", "hamer")


def student_metadata(path: str | Path) -> dict[str, Any]:
    """The header: `student` (the arguments that rebuild it) and `metadata` (as saved); reads no weights."""
    return read_header(Path(path), STUDENT)


def _check_size(spec: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Refuses descriptions of networks that are far larger than the file, before their memory is taken."""
    name, size = str(spec["name"]), spec["image_size"]
    if not isinstance(size, int) or not 1 <= size <= LARGEST_IMAGE:
        raise ValueError(f"its images are of {one_line(repr(size))} pixels")
    if name.startswith("timm:") and timm.is_model(name.removeprefix("timm:").split(".")[0]):
        with torch.device("meta"):
            network = timm.create_model(name.removeprefix("timm:"))
        stored = sum(tensor.numel() for tensor in tensors.values())
        if sum(parameter.numel() for parameter in network.parameters()) > 2 * stored + CLASSIFIER:
            raise ValueError(f"{name} has far more weights than the file")


def _fill(student: Student, tensors: dict[str, Tensor], source: str) -> None:
    check_weights(tensors, shapes(student.state_dict()), f"{source}: weights that do not fit {student.spec['name']}")
    student.load_state_dict(tensors)
