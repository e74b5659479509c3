"""Reads the arrays of a MANO hand from any file that contains them, without executing anything in it.

Accepted: the official `MANO_RIGHT.pkl` (chumpy inside; chumpy is not needed), a converted `.npz`, and HaMeR's
checkpoint, whose `mano.*` buffers are the hand. The result has MANO's own keys as plain NumPy arrays.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from fasthamer.files import safe_pickle
from fasthamer.files.safe_npz import unpack_npz
from fasthamer.hand.conventions import MANO_PARENTS
from fasthamer.hand.procedural import embedded_arrays
from fasthamer.one_line import one_line
from fasthamer.types import N_BETAS, N_FACES, N_VERTICES

SHAPES: dict[str, tuple[int | None, ...]] = {  # None: any length
    "v_template": (N_VERTICES, 3),  # metres
    "f": (N_FACES, 3),
    "shapedirs": (N_VERTICES, 3, N_BETAS),
    "posedirs": (N_VERTICES, 3, 135),
    "J_regressor": (16, N_VERTICES),
    "weights": (N_VERTICES, 16),
    "kintree_table": (2, 16),
    "hands_mean": (45,),  # axis-angle
    "hands_components": (None, 45),  # 45 of them in MANO's file, 6 in HaMeR's checkpoint
}
_LEFT_MD5 = "11aeaca8631aa20db964d4eba491e885"  # of MANO_LEFT.pkl as released

_CH, _SELECT, _CSC = "chumpy.ch.Ch", "chumpy.reordering.Select", "scipy.sparse.csc.csc_matrix"
_RECORDS = (_CH, _SELECT, _CSC, "scipy.sparse._csc.csc_matrix")
_WRONG_SIDE = {
    "left": "{}: this is a left hand; fasthamer mirrors left hands and needs MANO_RIGHT",
    "right": "{}: this is a right hand; HAND.LEFT takes MANO_LEFT",
}
_CHECKPOINT_NAMES = {  # smplx's buffer -> MANO's key
    "v_template": "v_template",
    "faces_tensor": "f",
    "shapedirs": "shapedirs",
    "posedirs": "posedirs",
    "J_regressor": "J_regressor",
    "lbs_weights": "weights",
    "parents": "kintree_table",
    "hand_mean": "hands_mean",
    "hand_components": "hands_components",
}


def read_hand_arrays(path: str | Path, side: str = "right") -> dict[str, np.ndarray]:
    """The nine arrays of `SHAPES`, checked; floats as float64, indices as int64.

    Args:
        path: `MANO_RIGHT.pkl` or a converted .pkl or .npz, or `hamer.ckpt`; or "embedded" for the hand that fasthamer
            ships.
        side: right or left.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, unsafe, incomplete, of wrong shape, or the other hand.
    """
    if str(path) == "embedded":
        return check_hand_arrays(embedded_arrays(), "the embedded hand")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no hand model {str(path)!r}: HAND.MODEL takes 'embedded', MANO_RIGHT.pkl (from mano.is.tue.mpg.de), "
            "a converted .npz, or hamer.ckpt"
        )
    if path.suffix == ".pkl":
        arrays = _from_pickle(path, side)
    elif path.suffix == ".npz":
        arrays = _from_npz(path)
    elif path.suffix in (".ckpt", ".pt", ".pth"):
        arrays = _from_checkpoint(path)
    else:
        raise ValueError(f"{path}: a hand model is a .pkl, .npz or .ckpt file")
    return check_hand_arrays(arrays, str(path), side)


def check_hand_arrays(arrays: dict[str, Any], source: str, side: str = "right") -> dict[str, np.ndarray]:
    """The arrays of `SHAPES` in canonical types.

    Raises:
        ValueError: something is missing, has the wrong shape, is not finite, or belongs to the other hand.
    """
    missing = [key for key in SHAPES if key not in arrays]
    if missing:
        present = one_line(", ".join(map(str, arrays))) or "-"
        raise ValueError(f"{source}: not a MANO hand, {', '.join(missing)} missing (it has: {present})")
    checked = {}
    for key, shape in SHAPES.items():
        array = np.asarray(arrays[key])
        fits = array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
        if not fits or array.dtype.kind not in "fiu":
            raise ValueError(
                f"{source}: {key} is {array.dtype} {array.shape}, MANO's is {shape}".replace("None", "any")
            )
        checked[key] = array.astype(np.int64 if key in ("f", "kintree_table") else np.float64)
        if not np.isfinite(checked[key]).all():
            raise ValueError(f"{source}: {key} holds numbers that are not finite")
    if checked["f"].min() < 0 or checked["f"].max() >= N_VERTICES:
        raise ValueError(f"{source}: f points at vertices that do not exist")
    if tuple(checked["kintree_table"][0, 1:]) != MANO_PARENTS[1:]:
        raise ValueError(f"{source}: kintree_table is not MANO's (its joints are in another order)")
    checked["kintree_table"][0, 0] = -1  # 2**32 - 1 in the official file
    found = _side(checked)
    if found not in (side, None):
        raise ValueError(_WRONG_SIDE[found].format(source))
    return checked


def _from_pickle(path: Path, side: str) -> dict[str, Any]:
    raw = path.read_bytes()
    if side == "right" and hashlib.md5(raw, usedforsecurity=False).hexdigest() == _LEFT_MD5:
        raise ValueError(_WRONG_SIDE["left"].format(path))
    content = safe_pickle.loads(raw, records=_RECORDS, source=str(path))
    if not isinstance(content, dict):
        raise ValueError(f"{path}: a MANO pickle holds a dict, this one a {type(content).__name__}")
    try:
        return {key: _plain(value) for key, value in content.items() if key in SHAPES}
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError) as error:
        what = f"{type(error).__name__}: {one_line(error)}"
        raise ValueError(f"{path}: damaged, or not MANO's layout ({what})") from None


def _plain(value: Any) -> Any:
    """The array of a chumpy or SciPy record of the file."""
    if not isinstance(value, safe_pickle.Record):
        return value
    kind, state = f"{value.module}.{value.name}", value.state
    if kind == _SELECT:
        return _plain(state["a"]).ravel()[np.asarray(state["idxs"])].reshape(state["preferred_shape"])
    if kind == _CH:
        return np.asarray(state["x"])
    if tuple(state["_shape"]) != SHAPES["J_regressor"]:  # the one sparse array; another size could fill any memory
        raise ValueError(f"a sparse array of {state['_shape']}")
    dense = np.zeros(state["_shape"])
    columns = np.repeat(np.arange(dense.shape[1]), np.diff(state["indptr"]))
    np.add.at(dense, (state["indices"], columns), state["data"])
    return dense


def _from_npz(path: Path) -> dict[str, Any]:
    try:
        return unpack_npz(path, str(path), SHAPES)
    except ValueError as error:
        raise ValueError(
            f"{error}. To write one: np.savez(file, **fasthamer.hand.mano_files.read_hand_arrays('MANO_RIGHT.pkl'))"
        ) from None


def _from_checkpoint(path: Path) -> dict[str, Any]:
    from fasthamer.files.safe_checkpoint import read_state_dict

    state = read_state_dict(path, prefix="mano.")
    found = {new: state[old].numpy() for old, new in _CHECKPOINT_NAMES.items() if old in state}
    if not found:
        raise ValueError(f"{path}: a checkpoint without MANO (no mano.* buffers); give MANO_RIGHT.pkl instead")
    if "posedirs" in found:  # smplx keeps (135, 778 * 3)
        found["posedirs"] = found["posedirs"].T.reshape(-1, 3, found["posedirs"].shape[0])
    if "kintree_table" in found:
        found["kintree_table"] = np.stack((found["kintree_table"], np.arange(len(found["kintree_table"]))))
    found.setdefault("hands_components", np.zeros((0, 45)))
    return found


def _side(arrays: dict[str, np.ndarray]) -> str | None:
    """The hand on whose palm side the fingers curl in the mean pose: right, left, or None where it is no hand."""
    joints = arrays["J_regressor"] @ arrays["v_template"]  # (16, 3)
    knuckles = np.array([1, 4, 10, 7])  # index, middle, ring, pinky
    curl = np.cross(arrays["hands_mean"].reshape(15, 3)[knuckles - 1], joints[knuckles + 1] - joints[knuckles]).sum(0)
    forward, to_pinky = joints[4] - joints[0], joints[7] - joints[1]
    palm_side = np.cross(forward, to_pinky) @ curl
    if not 0.05 < np.linalg.norm(forward) < 0.15 or palm_side == 0:
        return None
    return "right" if palm_side > 0 else "left"
