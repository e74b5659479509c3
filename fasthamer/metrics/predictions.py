"""`pred.json`, the official submission file of FreiHAND and HO-3D, and the truth it is scored against.

Both hold `[joints of all samples, vertices of all samples]` in metres, FreiHAND's in our order and axes, HO-3D's in
MANO's order and OpenGL's axes; here hands are always in ours.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fasthamer.files.atomic import write_text
from fasthamer.metrics.alignment import require_finite
from fasthamer.metrics.number_lists import read_number_lists
from fasthamer.metrics.protocols import from_official, to_official
from fasthamer.metrics.scores import Hands
from fasthamer.types import N_JOINTS, N_VERTICES

_JOINTS, _MESH = (N_JOINTS, 3), (N_VERTICES, 3)


def write_predictions(path: str | Path, hands: Hands, protocol: str = "freihand") -> None:
    """`[xyz_list, verts_list]`: per sample 21x3 and 778x3 metres, rounded to the micrometre."""
    if hands.vertices is None:
        raise ValueError("the official form holds joints and vertices; this prediction has no vertices")
    parts = (to_official(np.asarray(part, np.float64), protocol) for part in (hands.joints, hands.vertices))
    lists = [(np.round(part, 6) + 0.0).tolist() for part in parts]  # + 0.0: no "-0.0"
    write_text(Path(path), json.dumps(lists, separators=(",", ":")))


def read_predictions(path: str | Path, expected: int | None = None, protocol: str = "freihand") -> Hands:
    """Reads and checks a `pred.json`.

    A mesh of another topology than MANO's is dropped: only its joints are scored.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not of the official form, a wrong number of samples, or numbers that are not finite.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist")
    quickly = read_number_lists(Path(path), _JOINTS, _MESH)
    content = quickly or read_json(Path(path))
    if not isinstance(content, list) or len(content) != 2:
        raise ValueError(f"{path}: expected [joints of all samples, vertices of all samples], two lists")
    joints, vertices = content
    found = points_of(joints, _JOINTS, f"{path}: joints", expected)
    hands = Hands(from_official(found, protocol))
    first_mesh = vertices[0] if isinstance(vertices, list | np.ndarray) and len(vertices) else None
    if not isinstance(first_mesh, list | np.ndarray) or len(first_mesh) != N_VERTICES:
        return hands
    mesh = points_of(vertices, _MESH, f"{path}: vertices", len(joints))
    return hands._replace(vertices=from_official(mesh, protocol))


def read_truth(folder: str | Path, split: str = "evaluation", protocol: str = "freihand") -> Hands:
    """`<split>_xyz.json` and, where it is there, `<split>_verts.json` of an official folder.

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


def _read_points(path: Path, shape: tuple[int, int], expected: int | None) -> NDArray[np.float64]:
    quickly = read_number_lists(path, shape)
    return points_of(quickly[0] if quickly else read_json(path), shape, str(path), expected)


def read_json(path: Path) -> object:
    """
    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None


def points_of(samples: object, shape: tuple[int, int], name: str, expected: int | None) -> NDArray[np.float64]:
    """Nested lists (or an array) -> (N, *shape), or a ValueError that names the first sample that does not fit."""
    if not isinstance(samples, list | np.ndarray):
        raise ValueError(f"{name}: expected a list with one entry per sample, found {type(samples).__name__}")
    if expected is not None and len(samples) != expected:
        raise ValueError(f"{name}: {len(samples)} samples, expected {expected}")
    points = samples if isinstance(samples, np.ndarray) else np.empty((len(samples), *shape))
    for index, sample in enumerate(samples if isinstance(samples, list) else ()):
        try:
            array = np.asarray(sample, np.float64)
        except (TypeError, ValueError):
            raise ValueError(f"{name}: sample {index} is not a table of numbers {shape[0]}x{shape[1]}") from None
        if array.shape != shape:
            raise ValueError(f"{name}: sample {index} has shape {array.shape}, expected {shape}")
        points[index] = array
    require_finite(points, name)
    return points
