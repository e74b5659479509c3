"""`student.safetensors`: a finished student, loadable in one line without network, ImageNet weights or pickle."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fasthamer.hand.mano import Hand, load_hand
from fasthamer.nn.weights import check_weights, shapes
from fasthamer.students.student import Student
from fasthamer.students.zoo import build_student

FORMAT = "fasthamer-student-1"
SPEC = {"name", "decoder", "decoder_size", "image_size", "view", "feature_layer", "hand", "hand_name"}
DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


def save_student(path: str | Path, student: nn.Module, metadata: dict[str, Any], dtype: str = "fp32") -> None:
    """Writes the student's weights (never the hand's arrays) with all that is needed to rebuild it; atomic.

    Args:
        path: ends in .safetensors; replaced whole or not at all.
        student: a `Student`.
        metadata: JSON values kept in the header, such as config, metrics and provenance.
        dtype: fp32 or fp16, of the stored weights.
    """
    path = Path(path)
    if not isinstance(student, Student):
        raise TypeError(f"{type(student).__name__} is not a Student: a learner's is `learner.student`")
    if dtype not in DTYPES:
        raise ValueError(f"student files are {' or '.join(DTYPES)}, not {dtype!r}")
    header = {
        "format": FORMAT,
        "student": {**student.spec, "hand": student.hand.fingerprint, "hand_name": student.hand.name},
        "metadata": metadata,
    }
    tensors = {key: _stored(value, DTYPES[dtype]) for key, value in student.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        save_file(tensors, temporary, {"fasthamer": json.dumps(header)})
        os.chmod(temporary, 0o644)  # mkstemp's file is its owner's alone
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def load_student(path: str | Path, hand: Hand | None = None) -> Student:
    """The student of a file, in fp32 and eval mode.

    Args:
        path: written by `save_student`.
        hand: the hand model it was trained with; None loads the embedded one.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a student's file, damaged, or trained with another hand.
    """
    header, tensors = _read(Path(path))
    spec = dict(header["student"])
    fingerprint, hand_name = spec.pop("hand"), spec.pop("hand_name")
    hand = load_hand("embedded") if hand is None else hand
    if hand.fingerprint != fingerprint:
        raise ValueError(
            f"{path}: this student was trained with the hand {hand_name!r} ({fingerprint}), not with {hand.name!r} "
            f"({hand.fingerprint}): its parameters mean nothing there. Load it with the hand it knows (HAND.MODEL)"
        )
    student = build_student(**spec, pretrained=False, hand=hand)
    _fill(student, tensors, str(path))
    return student.eval()


def student_metadata(path: str | Path) -> dict[str, Any]:
    """The header: `student` (how to rebuild it) and `metadata` (what `save_student` was given); reads no weights."""
    with _opened(Path(path)) as file:
        return _header(file, Path(path))


def _stored(value: Tensor, dtype: torch.dtype) -> Tensor:
    value = value.detach().cpu()
    if value.is_floating_point() and value.abs().max() <= torch.finfo(dtype).max:  # some batch variances exceed fp16
        value = value.to(dtype)
    return value.contiguous().clone()


def _opened(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"student file {path}: no such file")
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"{path}: not a student's file, or a damaged one ({error})") from error


def _header(file: Any, path: Path) -> dict[str, Any]:
    text = (file.metadata() or {}).get("fasthamer")
    if text is None:
        raise ValueError(f"{path}: a safetensors file, but not a student's (no fasthamer header)")
    try:
        header = json.loads(text)
        found, named = header["format"], set(header["student"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: a damaged fasthamer header ({type(error).__name__}: {error})") from None
    if found != FORMAT or named != SPEC:
        raise ValueError(
            f"{path}: a student of another version of fasthamer: format {found!r} with {', '.join(sorted(named))}; "
            f"this one reads {FORMAT!r} with {', '.join(sorted(SPEC))}"
        )
    return header


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with _opened(path) as file:
        return _header(file, path), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def _fill(student: Student, tensors: dict[str, Tensor], source: str) -> None:
    check_weights(tensors, shapes(student.state_dict()), f"{source}: weights that do not fit {student.spec['name']}")
    student.load_state_dict(tensors)
