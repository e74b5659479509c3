"""`pred.json`, the official submission file of FreiHAND and HO-3D, and the truth it is scored against."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fasthamer.metrics.alignment import require_finite
from fasthamer.metrics.protocols import Hands
from fasthamer.types import N_JOINTS, N_VERTICES


def write_predictions(path: str | Path, hands: Hands) -> None:
    """`[xyz_list, verts_list]`: per sample 21x3 and 778x3 metres, rounded to the micrometre."""
    if hands.vertices is None:
        raise ValueError("the official form holds joints and vertices; this prediction has no vertices")
    lists = [np.round(np.asarray(part, np.float64), 6).tolist() for part in (hands.joints, hands.vertices)]
    Path(path).write_text(json.dumps(lists, separators=(",", ":")), encoding="utf-8")


def read_predictions(path: str | Path, expected: int | None = None) -> Hands:
    """Reads and checks a `pred.json`.

    A mesh of another topology than MANO's is dropped, as the official code does: only its joints are scored.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not of the official form, a wrong number of samples, or numbers that are not finite.
    """
    content = _read_json(Path(path))
    if not isinstance(content, list) or len(content) != 2:
        raise ValueError(f"{path}: expected [joints of all samples, vertices of all samples], two lists")
    joints, vertices = content
    joints = _points(joints, N_JOINTS, f"{path}: joints", expected)
    first_mesh = vertices[0] if isinstance(vertices, list) and vertices else []
    if not isinstance(first_mesh, list) or len(first_mesh) != N_VERTICES:
        return Hands(joints)
    return Hands(joints, _points(vertices, N_VERTICES, f"{path}: vertices", len(joints)))


def read_truth(folder: str | Path, split: str = "evaluation") -> Hands:
    """`<split>_xyz.json` and, where it is there, `<split>_verts.json` of an official folder.

    Raises:
        FileNotFoundError: the folder has no `<split>_xyz.json`.
        ValueError: the files are malformed.
    """
    folder = Path(folder)
    xyz, verts = folder / f"{split}_xyz.json", folder / f"{split}_verts.json"
    if not xyz.is_file():
        raise FileNotFoundError(f"{xyz} is missing: --gt takes the folder that holds {split}_xyz.json")
    joints = _points(_read_json(xyz), N_JOINTS, str(xyz), None)
    if not verts.is_file():
        return Hands(joints)
    return Hands(joints, _points(_read_json(verts), N_VERTICES, str(verts), len(joints)))


def _read_json(path: Path) -> object:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None


def _points(samples: object, count: int, name: str, expected: int | None) -> NDArray[np.float64]:
    """Nested lists -> (N, count, 3), or a ValueError that names the first sample that does not fit."""
    if not isinstance(samples, list):
        raise ValueError(f"{name}: expected a list with one entry per sample, found {type(samples).__name__}")
    if expected is not None and len(samples) != expected:
        raise ValueError(f"{name}: {len(samples)} samples, expected {expected}")
    points = np.empty((len(samples), count, 3))
    for index, sample in enumerate(samples):
        try:
            array = np.asarray(sample, np.float64)
        except (TypeError, ValueError):
            raise ValueError(f"{name}: sample {index} is not a table of numbers {count}x3") from None
        if array.shape != (count, 3):
            raise ValueError(f"{name}: sample {index} has shape {array.shape}, expected ({count}, 3)")
        points[index] = array
    require_finite(points, name)
    return points
