"""Submission files of the official evaluations, and files of the ground truth.

In memory, hands are in our axes and order; see `fasthamer.metrics.protocols`.

- FreiHAND and HO-3D, `pred.json`: `[joints of all samples, vertices of all samples]` in metres, FreiHAND's in our order
  and axes, HO-3D's in MANO's order and OpenGL's axes.
- DexYCB, `results.txt`: a line per image, `image_id,x1,y1,z1,...,x21,y21,z21` in millimetres. The image id is the
  frame's number in the toolkit's list of the split (`dex_ycb_toolkit/hpe_eval.py`); every frame with a hand is
  required, others are ignored, and of two lines with the same id the later one counts.
- HInt, `keypoints.json`: 21x2 pixels of the image for each hand, in the order of HaMeR's file; HInt has no server and
  no format of its own. The ground truth is read from HaMeR's evaluation files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fasthamer.files.atomic import write_text
from fasthamer.files.number_lists import read_number_lists
from fasthamer.files.safe_json import read_json
from fasthamer.files.safe_npz import read_npz
from fasthamer.metrics.alignment import require_finite
from fasthamer.metrics.pck import Annotated
from fasthamer.metrics.protocols import from_official, to_official
from fasthamer.metrics.scores import Hands
from fasthamer.types import N_JOINTS, N_VERTICES

_JOINTS, _MESH = (N_JOINTS, 3), (N_VERTICES, 3)
_NUMBERS = 1 + 3 * N_JOINTS  # in a line of DexYCB's file


def write_predictions(path: str | Path, hands: Hands, protocol: str = "freihand") -> None:
    """`[xyz_list, verts_list]`: per sample 21x3 and 778x3 metres, rounded to the micrometre."""
    if hands.vertices is None:
        raise ValueError("the official format has joints and vertices; this prediction has no vertices")
    parts = (to_official(np.asarray(part, np.float64), protocol) for part in (hands.joints, hands.vertices))
    lists = [(np.round(part, 6) + 0.0).tolist() for part in parts]  # + 0.0: no "-0.0"
    write_text(Path(path), json.dumps(lists, separators=(",", ":")))


def read_predictions(path: str | Path, expected: int | None = None, protocol: str = "freihand") -> Hands:
    """Reads and checks a `pred.json`.

    Meshes with another topology than MANO's are dropped: only the joints are scored.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another format, a wrong number of samples, or numbers that are not finite.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist")
    quickly = read_number_lists(Path(path), _JOINTS, _MESH)
    content = quickly or read_json(Path(path))
    if not isinstance(content, list) or len(content) != 2:
        raise ValueError(f"{path}: expected [joints of all samples, vertices of all samples], two lists")
    joints, vertices = content
    found = _points_of(joints, _JOINTS, f"{path}: joints", expected)
    hands = Hands(from_official(found, protocol))
    first_mesh = vertices[0] if isinstance(vertices, list | np.ndarray) and len(vertices) else None
    if not isinstance(first_mesh, list | np.ndarray) or len(first_mesh) != N_VERTICES:
        return hands
    mesh = _points_of(vertices, _MESH, f"{path}: vertices", len(joints))
    return hands._replace(vertices=from_official(mesh, protocol))


def read_truth(folder: str | Path, split: str = "evaluation", protocol: str = "freihand") -> Hands:
    """Reads `<split>_xyz.json` and, if it exists, `<split>_verts.json` of an official folder.

    Raises:
        FileNotFoundError: the folder has no `<split>_xyz.json`.
        ValueError: the files are malformed.
    """
    folder = Path(folder)
    xyz, verts = folder / f"{split}_xyz.json", folder / f"{split}_verts.json"
    if not xyz.is_file():
        raise FileNotFoundError(f"{xyz} is missing: --gt takes the folder that holds {split}_xyz.json")
    joints = _read_points(xyz, _JOINTS, None)
    hands = Hands(from_official(joints, protocol))
    if not verts.is_file():
        return hands
    mesh = _read_points(verts, _MESH, len(joints))
    return hands._replace(vertices=from_official(mesh, protocol))


def write_result_lines(path: str | Path, image_ids: Sequence[int], joints: NDArray) -> None:
    """Writes DexYCB's `results.txt`.

    Args:
        path: of the file.
        image_ids: N numbers.
        joints: (N, 21, 3) metres, camera frame, OpenPose order.
    """
    rows = 1000 * np.asarray(joints, np.float64).reshape(len(joints), -1)
    form = ",".join(["%d"] + ["%.4f"] * (_NUMBERS - 1))
    lines = [form % (image_id, *row) for image_id, row in zip(image_ids, rows.tolist(), strict=True)]
    write_text(Path(path), "\n".join(lines) + "\n")


def read_result_lines(path: str | Path, image_ids: Sequence[int]) -> NDArray[np.float64]:
    """Reads the joints of the given images from DexYCB's `results.txt`: (N, 21, 3) metres, in the order of the ids.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a malformed line, a missing image, or a number that is not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text file: expected lines of {_NUMBERS} numbers, comma-separated") from None
    table = np.array([_row(line, number, path) for number, line in enumerate(lines, 1)]).reshape(-1, _NUMBERS)
    row_of = {int(image_id): row for row, image_id in enumerate(table[:, 0])}
    missing = [image_id for image_id in image_ids if image_id not in row_of]
    if missing:
        raise ValueError(
            f"{path}: image {missing[0]} is missing ({len(missing)} of {len(image_ids)} are): every frame of the split "
            "that shows a hand needs a line"
        )
    joints = table[[row_of[image_id] for image_id in image_ids], 1:].reshape(-1, N_JOINTS, 3) / 1000
    require_finite(joints, f"{path}: prediction")
    return joints


def write_keypoints(path: str | Path, points: NDArray) -> None:
    """Writes (N, 21, 2) pixels, rounded to a thousandth."""
    write_text(Path(path), json.dumps(np.round(np.asarray(points, np.float64), 3).tolist(), separators=(",", ":")))


def read_keypoints(path: str | Path, expected: int | None = None) -> NDArray[np.float64]:
    """Reads (N, 21, 2) pixels.

    Raises:
        FileNotFoundError, ValueError: as `read_predictions`.
    """
    return _points_of(read_json(Path(path)), (N_JOINTS, 2), str(path), expected)


def read_annotated(path: str | Path) -> Annotated:
    """Reads HaMeR's `TEST_<set>_img_all.npz`, and the occluded joints from `..._occ.npz` beside it if that exists.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, or the two list different images.
    """
    path = Path(path)
    labels = _labels(path)
    points, known = labels["hand_keypoints_2d"][..., :2], labels["hand_keypoints_2d"][..., 2] > 0.5
    beside = path.with_name(path.name.replace("_all.npz", "_occ.npz"))
    occluded = None
    if beside != path and beside.is_file():
        other = _labels(beside)
        if other["imgname"].tolist() != labels["imgname"].tolist():
            raise ValueError(f"{beside} lists other images than {path.name}: they are not of one set")
        occluded = other["hand_keypoints_2d"][..., 2] > 0.5
    return Annotated(points, known, labels["scale"].reshape(len(points), -1).max(1), occluded)


def _read_points(path: Path, shape: tuple[int, int], expected: int | None) -> NDArray[np.float64]:
    quickly = read_number_lists(path, shape)
    return _points_of(quickly[0] if quickly else read_json(path), shape, str(path), expected)


def _points_of(samples: object, shape: tuple[int, int], name: str, expected: int | None) -> NDArray[np.float64]:
    """Nested lists (or an array) -> (N, *shape), or a ValueError that names the first sample that does not fit."""
    if not isinstance(samples, list | np.ndarray):
        raise ValueError(f"{name}: expected a list with one entry per sample, found {type(samples).__name__}")
    if expected is not None and len(samples) != expected:
        raise ValueError(f"{name}: {len(samples)} samples, expected {expected}")
    points = samples if isinstance(samples, np.ndarray) else np.empty((len(samples), *shape))
    for index, sample in enumerate(samples if isinstance(samples, list) else ()):
        try:
            array = np.asarray(sample, np.float64)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"{name}: sample {index} is not a table of numbers {shape[0]}x{shape[1]}") from None
        if array.shape != shape:
            raise ValueError(f"{name}: sample {index} has shape {array.shape}, expected {shape}")
        points[index] = array
    require_finite(points, name)
    return points


def _row(line: str, number: int, path: Path) -> NDArray[np.float64]:
    numbers = line.split(",")
    try:
        if len(numbers) != _NUMBERS:
            raise ValueError
        return np.array(numbers, dtype=np.float64)
    except ValueError:
        raise ValueError(
            f"{path}, line {number}: expected {_NUMBERS} comma-separated numbers (image id, then 21 times x, y, z in "
            f"millimetres), found {len(numbers)} beginning {line[:30]!r}"
        ) from None


def _labels(path: Path) -> dict[str, NDArray]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: --gt takes HaMeR's TEST_<set>_img_all.npz")
    try:
        found = read_npz(path, {"imgname": (None,), "scale": None, "hand_keypoints_2d": (None, N_JOINTS, 3)})
    except ValueError as error:
        raise ValueError(f"{error}: not one of HaMeR's evaluation files") from None
    if len({array.shape[:1] for array in found.values()}) > 1 or found["scale"].dtype.kind not in "fiu":
        raise ValueError(f"{path}: every image needs its scale and its keypoints: not one of HaMeR's evaluation files")
    return found
