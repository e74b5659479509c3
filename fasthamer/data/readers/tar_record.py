"""Labels in the format of HaMeR's training tars: `<key>.data.pyd`, a pickled list of dictionaries.

    keypoints_2d (21, 3) pixels, confidence      keypoints_3d (21, 4) metres, confidence
    center (2,) pixels, scale (2,) box / 200     right, has_hand_pose, has_betas
    hand_pose (48,) axis-angle, absolute         betas (10,)
    extra_info (optional) with fitting_loss      vertices (778, 3) metres: only in tars packed by tools/prepare_data.py

Joints are in OpenPose order; lengths are metres in the camera's frame.
"""

from __future__ import annotations

import pickle
from typing import Any, NamedTuple

import numpy as np

from fasthamer.data import crop
from fasthamer.data.sample import Labels
from fasthamer.files import safe_pickle
from fasthamer.hand.sides import are_right
from fasthamer.types import N_BETAS, N_JOINTS, N_VERTICES

BOX_UNIT = 200.0  # pixels; the unit of `scale`
PICKLE_PROTOCOL = 4  # readable by every Python 3


class TarHand(NamedTuple):
    """One hand of a record."""

    labels: Labels
    box: crop.Box
    left: bool


class Filters(NamedTuple):
    """HaMeR's filters for its training tars; the defaults are those of its released configuration."""

    confidence: float = 0.3  # keypoints below this are unknown
    keypoints: int = 4  # hands need more known keypoints than this
    fitting_loss: float = 31000.0  # hands with a fitting loss of at least this are left out
    betas: float = 3.0  # with any larger entry, shape and pose are not used as labels
    regular_betas: bool = True  # hands without a shape get the mean shape as label


def read_record(data: bytes, source: str, filters: Filters | None, shape: str = "hamer") -> list[TarHand]:
    """The hands of a `.data.pyd` file that pass the filters.

    Args:
        data: the file's content.
        source: its name for error messages.
        filters: None keeps every hand and label.
        shape: of the boxes, one of `crop.BOX_SHAPES`. Shards of `write_record` keep the boxes they were packed with;
            upright boxes are those of the keypoints if all are known, else the stored ones turned.

    Raises:
        ValueError: the pickle holds anything but plain data, an entry is missing, or a value is invalid.
    """
    content = safe_pickle.loads(data, source=source)
    hands = content if isinstance(content, list) else [content]
    found = (_read_hand(hand, f"{source}: hand {number}", filters, shape) for number, hand in enumerate(hands))
    return [hand for hand in found if hand is not None]


def write_record(labels: Labels, box: crop.Box, left: bool, name: str) -> bytes:
    """The `.data.pyd` file of one hand; `read_record` without filters gives the same labels in float32.

    Args:
        labels: of the hand, in the stored image.
        box: in the stored image. Its rotation is not stored: reading computes it from the keypoints.
        left: whether it is a left hand.
        name: where the hand comes from; stored for reference only.
    """
    pose, betas = labels.pose, labels.betas
    record = {
        "keypoints_2d": _float32(labels.keypoints, (N_JOINTS, 3)),
        "keypoints_3d": _float32(labels.joints, (N_JOINTS, 4)),
        "center": np.asarray(box.centre, np.float64),
        "scale": np.full(2, box.side / BOX_UNIT * np.divide(crop.BOX_SHAPES["hamer"], 256)),
        "hand_pose": _float32(None if pose is None else pose.reshape(48), (48,)),
        "betas": _float32(betas, (N_BETAS,)),
        "has_hand_pose": np.array(pose is not None, np.float32),
        "has_betas": np.array(betas is not None, np.float32),
        "right": np.array(not left, np.float32),
        "extra_info": {"name": name},
    }
    if labels.vertices is not None:
        record["vertices"] = _float32(labels.vertices, (N_VERTICES, 3))
    return pickle.dumps([record], protocol=PICKLE_PROTOCOL)


def _read_hand(hand: Any, where: str, filters: Filters | None, shape: str) -> TarHand | None:
    if not isinstance(hand, dict):
        raise ValueError(f"{where} is a {type(hand).__name__}, expected a dictionary")
    keypoints = _numbers(hand, "keypoints_2d", (N_JOINTS, 3), where)
    joints = _numbers(hand, "keypoints_3d", (N_JOINTS, 4), where)
    pose, betas = _numbers(hand, "hand_pose", (48,), where), _numbers(hand, "betas", (N_BETAS,), where)
    centre, scale = _numbers(hand, "center", (2,), where), _numbers(hand, "scale", (2,), where)
    has_pose, has_betas = (bool(_numbers(hand, name, (), where)) for name in ("has_hand_pose", "has_betas"))
    if not (np.isfinite(centre).all() and np.isfinite(scale).all() and scale.max() > 0):
        raise ValueError(f"{where} has no box: center {centre.tolist()}, scale {scale.tolist()}")
    for values, known, name in ((pose, has_pose, "hand_pose"), (betas, has_betas, "betas")):
        if known and not np.isfinite(values).all():
            raise ValueError(f"{where}: {name} holds numbers that are not finite")
    vertices = _numbers(hand, "vertices", (N_VERTICES, 3), where) if "vertices" in hand else None
    try:
        left = not are_right(_numbers(hand, "right", (), where))
    except ValueError as error:
        raise ValueError(f"{where}: right: {error}") from None
    if filters is not None:
        keypoints = np.where(keypoints[:, 2:] < filters.confidence, 0.0, keypoints)
        if (keypoints[:, 2] > 0).sum() <= filters.keypoints or _fitting_loss(hand, where) >= filters.fitting_loss:
            return None
        has_pose = has_betas = has_pose and has_betas and bool(np.abs(betas).max() <= filters.betas)
        if filters.regular_betas and not has_betas:
            betas, has_betas = np.zeros(N_BETAS), True
    labels = Labels(
        keypoints if keypoints[:, 2].any() else None,
        joints if joints[:, 3].any() else None,
        vertices,
        pose.reshape(16, 3) if has_pose else None,
        betas if has_betas else None,
    )
    if shape == "upright" and (keypoints[:, 2] > 0).all():
        return TarHand(labels, crop.hand_box(keypoints, shape), left)
    side = crop.box_side(scale * BOX_UNIT, shape)
    return TarHand(labels, crop.Box(centre, side, crop.shape_rotation(shape, keypoints)), left)


def _numbers(hand: dict, name: str, shape: tuple[int, ...], where: str) -> np.ndarray:
    if name not in hand:
        raise ValueError(f"{where} has no {name}")
    try:
        values = np.asarray(hand[name], dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"{where}: {name} is not an array of numbers") from None
    if values.shape != shape:
        raise ValueError(f"{where}: {name} is {values.shape}, expected {shape}")
    return values


def _fitting_loss(hand: dict, where: str) -> float:
    """The reprojection error of the fitted hand as measured by the authors of the labels; 0 if not given."""
    info = hand.get("extra_info")
    loss = info.get("fitting_loss") if isinstance(info, dict) else None
    if isinstance(loss, np.ndarray) and loss.dtype == object and loss.ndim == 0:
        loss = loss.item()
    value = loss.get("reprojection_loss") if isinstance(loss, dict) else None
    if value is None:
        return 0.0
    try:
        return float(np.asarray(value, dtype=np.float64).reshape(()))
    except (ValueError, TypeError):
        raise ValueError(f"{where}: the fitting loss is not one number") from None


def _float32(values: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    return np.zeros(shape, np.float32) if values is None else np.asarray(values, np.float32).reshape(shape)
