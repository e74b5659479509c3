"""Joints in the orders of other tools and datasets."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthamer.camera import project_pixels
from fasthamer.hand.conventions import INTERHAND_TO_OPENPOSE, MANO_TO_OPENPOSE, TIPS
from fasthamer.registry import unknown

FINGERS = ("thumb", "index", "middle", "ring", "pinky")
NAMES = ("wrist", *(f"{finger}{number}" for finger in FINGERS for number in range(1, 5)))  # OpenPose order, 4 is a tip
MEDIAPIPE_NAMES = (
    *("WRIST", "THUMB_CMC", "THUMB_MCP", "THUMB_IP", "THUMB_TIP"),
    *("INDEX_FINGER_MCP", "INDEX_FINGER_PIP", "INDEX_FINGER_DIP", "INDEX_FINGER_TIP"),
    *("MIDDLE_FINGER_MCP", "MIDDLE_FINGER_PIP", "MIDDLE_FINGER_DIP", "MIDDLE_FINGER_TIP"),
    *("RING_FINGER_MCP", "RING_FINGER_PIP", "RING_FINGER_DIP", "RING_FINGER_TIP"),
    *("PINKY_MCP", "PINKY_PIP", "PINKY_DIP", "PINKY_TIP"),
)
_SAME = tuple(range(21))
ORDERS = {  # which of OpenPose's joints each one is, and whose fingertips it has (None: the model's own, HaMeR's)
    "mediapipe": (_SAME, None),
    "freihand": (_SAME, "freihand"),
    "ho3d": (tuple(np.argsort(MANO_TO_OPENPOSE).tolist()), "ho3d"),
    "interhand": (tuple(np.argsort(INTERHAND_TO_OPENPOSE).tolist()), None),
    "smplx": (tuple(np.argsort(MANO_TO_OPENPOSE).tolist()), None),
}
_TIP_JOINTS = [4, 8, 12, 16, 20]


class OrderedJoints(NamedTuple):
    """The joints of one hand in another order; frames and units stay those of `HandResult`."""

    joints: NDArray[np.float64]  # (21, 3) metres, hand frame
    joints_camera: NDArray[np.float64]  # (21, 3) metres, camera frame
    keypoints_2d: NDArray[np.float64]  # (21, 2) pixels of the image
    names: tuple[str, ...]  # 21


def ordered(
    order: str,
    joints: NDArray,
    vertices: NDArray,
    translation: NDArray[np.float64],
    intrinsics: NDArray[np.float64],
    side: str,
) -> OrderedJoints:
    """The joints (21, 3) of a hand with these vertices (778, 3) in another order.

    Raises:
        ValueError: no such order.
    """
    if order not in ORDERS:
        raise ValueError(unknown("joint order", order, ORDERS))
    rows, tips = ORDERS[order]
    joints = np.array(joints, np.float64)
    if tips is not None:
        joints[_TIP_JOINTS] = vertices[list(TIPS[tips])]
    joints = joints[list(rows)]
    placed = joints + translation
    return OrderedJoints(joints, placed, project_pixels(placed, intrinsics), _names(order, rows, side))


def _names(order: str, rows: tuple[int, ...], side: str) -> tuple[str, ...]:
    if order == "mediapipe":
        return MEDIAPIPE_NAMES
    if order == "smplx":  # a tip has the finger's name alone
        return tuple(f"{side}_{NAMES[row].removesuffix('4')}" for row in rows)
    return tuple(NAMES[row] for row in rows)
