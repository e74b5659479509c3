"""The files of `tools/prepare_data.py label`: a teacher's labels of the hands in a folder of images.

ROOT/labels.json                                what made them, how many there are, what was left out
ROOT/000000.npz, 000000.vertices.npy ...        the hands of up to 1,000 images each; vertices where there are any
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthamer.files.atomic import replacing, write_json
from fasthamer.files.safe_json import read_json
from fasthamer.files.safe_npz import read_npz
from fasthamer.one_line import one_line
from fasthamer.types import N_BETAS, N_HAND_JOINTS, N_JOINTS, N_VERTICES

ABOUT = "labels.json"
SHAPES = {
    "names": (None,),
    "held_out": (None,),
    "right": (None,),
    "score": (None,),
    "boxes": (None, 4),
    "keypoints": (None, N_JOINTS, 3),
    "joints": (None, N_JOINTS, 4),
    "pose": (None, 1 + N_HAND_JOINTS, 3),
    "betas": (None, N_BETAS),
}
WITHOUT_PARAMETERS = ("pose", "betas")  # missing where the teacher gives points or a mesh only


class LabelledHand(NamedTuple):
    """One hand of an image, as the image shows it: a left hand is a left hand."""

    name: str  # the image's path in the folder of images, with /
    held_out: bool  # for evaluation
    right: bool
    score: float  # the detector's probability of a hand
    box: NDArray  # (4,) x1, y1, x2, y2 pixels, tight around the detector's landmarks
    keypoints: NDArray  # (21, 3) pixels and confidence
    joints: NDArray  # (21, 4) metres and confidence; axes as the camera's, any origin
    vertices: NDArray | None = None  # (778, 3) metres, of the joints' frame
    pose: NDArray | None = None  # (16, 3) axis-angle, absolute, wrist first, as `fasthamer.data.sample.Labels`
    betas: NDArray | None = None  # (10,)


class LabelTable(NamedTuple):
    """All hands of a folder of labels, N of them."""

    names: NDArray[np.bytes_]  # (N,) UTF-8
    held_out: NDArray[np.bool_]  # (N,)
    right: NDArray[np.bool_]  # (N,)
    score: NDArray[np.float32]  # (N,)
    boxes: NDArray[np.float32]  # (N, 4)
    keypoints: NDArray[np.float32]  # (N, 21, 3)
    joints: NDArray[np.float32]  # (N, 21, 4)
    pose: NDArray[np.float32] | None  # (N, 16, 3)
    betas: NDArray[np.float32] | None  # (N, 10)
    vertices: tuple[NDArray[np.float16], ...]  # of each file, (its hands, 778, 3), mapped; empty without vertices
    ends: NDArray[np.int64]  # the number of hands up to the end of each file


def write_part(path: Path, hands: Sequence[LabelledHand]) -> None:
    """Writes the hands of some images: the whole file, with its vertices beside it, or nothing.

    Args:
        path: the .npz.
        hands: all of one teacher, so with the same fields; may be empty.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    shapes: dict[str, Any] = {name: (0, *shape[1:]) for name, shape in SHAPES.items()}
    columns: dict[str, NDArray] = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    if hands:
        columns = {
            "names": np.array([hand.name.encode("utf-8", "surrogateescape") for hand in hands]),
            "held_out": np.array([hand.held_out for hand in hands]),
            "right": np.array([hand.right for hand in hands]),
            "score": np.array([hand.score for hand in hands], np.float32),
            "boxes": np.array([hand.box for hand in hands], np.float32),
            "keypoints": np.array([hand.keypoints for hand in hands], np.float32),
            "joints": np.array([hand.joints for hand in hands], np.float32),
        }
        if hands[0].pose is not None:
            columns["pose"] = np.array([hand.pose for hand in hands], np.float32)
            columns["betas"] = np.array([hand.betas for hand in hands], np.float32)
    with replacing(path) as draft:
        np.savez(draft, **columns)  # type: ignore[arg-type]  # its stub takes the second argument for a flag
        if hands and hands[0].vertices is not None:
            np.save(draft.parent / vertices_file(path).name, np.array([hand.vertices for hand in hands], np.float16))


def vertices_file(path: Path) -> Path:
    """The file of vertices beside a part."""
    return path.with_suffix(".vertices.npy")


def read_about(root: Path) -> dict[str, Any]:
    """The content of labels.json.

    Raises:
        FileNotFoundError: it is missing.
        ValueError: it is damaged.
    """
    path = root / ABOUT
    if not path.is_file():
        raise FileNotFoundError(
            f"{root} has no {ABOUT}: make it with tools/prepare_data.py label FOLDER --out {root} --teacher NAME"
        )
    try:
        about = read_json(path)
        images, settings, parts = about["images"], about["settings"], about["parts"]
        good = isinstance(images, list) and isinstance(settings["teacher"], str) and isinstance(parts, dict)
        good = good and isinstance(about["complete"], bool) and isinstance(settings["hand"], str | None)
        good = (
            good
            and all(isinstance(each, str) for each in images)
            and all(isinstance(part["hands"], int) and isinstance(part["left_out"], list) for part in parts.values())
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        good = False
    if not good:
        raise ValueError(f"{path} is damaged: label the images again")
    return about


def write_about(root: Path, about: dict[str, Any]) -> None:
    """Writes labels.json, whole or not at all."""
    write_json(root / ABOUT, about)


def read_table(root: Path, parts: Sequence[str], meshes: bool) -> LabelTable:
    """The hands of all parts, in their order.

    Args:
        root: their folder.
        parts: the names of the .npz files.
        meshes: whether vertices are opened.

    Raises:
        FileNotFoundError, ValueError: a file is missing or damaged, or the parts do not belong together.
    """
    read = [read_npz(root / name, SHAPES, WITHOUT_PARAMETERS) for name in parts]
    tables = [(root / name, table) for name, table in zip(parts, read, strict=True) if len(table["names"])]
    for path, table in tables:
        if table["names"].dtype.kind != "S" or len({len(column) for column in table.values()}) > 1:
            raise ValueError(f"{path}: not a file of labels, or a damaged one: label the images again")
    if not tables:
        raise ValueError(f"{root} holds no labelled hands")
    known = set(tables[0][1])
    if strange := [path for path, table in tables if set(table) != known]:
        raise ValueError(f"{strange[0]} holds other labels than {tables[0][0]}: they are of different teachers")
    columns = {name: np.concatenate([table[name] for _, table in tables]) for name in SHAPES if name in known}
    vertices = tuple(_vertices(path, len(table["names"])) for path, table in tables) if meshes else ()
    return LabelTable(
        columns["names"],
        columns["held_out"].astype(bool),
        columns["right"].astype(bool),
        columns["score"],
        columns["boxes"],
        columns["keypoints"],
        columns["joints"],
        columns.get("pose"),
        columns.get("betas"),
        vertices,
        np.cumsum([len(table["names"]) for _, table in tables]),
    )


def _vertices(path: Path, hands: int) -> NDArray[np.float16]:
    """(hands, 778, 3), read from the disk when they are used."""
    file = vertices_file(path)
    try:
        vertices = np.load(file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise FileNotFoundError(f"{file} is missing") from None
    except Exception as error:  # NumPy's parser of headers raises anything
        raise ValueError(f"{file}: damaged ({one_line(error)}): label the images again") from None
    if getattr(vertices, "shape", None) != (hands, N_VERTICES, 3) or vertices.dtype != np.float16:
        raise ValueError(f"{file}: does not fit {path.name}: label the images again")
    return vertices
