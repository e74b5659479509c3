"""Whether labels can be what they are said to be: a hand before the camera, of the side that was named."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np

WITNESSES = 32  # samples of a set that are asked for their side
_ENOUGH = 8  # hands, before anything is said
_DOUBT = 0.5  # of the mean of `handedness`: among natural poses it is about 3, single hands go down to -1.4


def check_in_front(joints: np.ndarray, where: str) -> None:
    """Refuses a hand behind the camera.

    Args:
        joints: (N, 3) camera frame, x right, y down, z forward.
        where: the file and record, for the message.

    Raises:
        ValueError: a joint is not in front.
    """
    nearest = float(joints[:, 2].min())
    if nearest <= 0:
        raise ValueError(
            f"{where}: a joint is at depth {nearest:.3g}, behind the camera: are its axes those of OpenGL?"
        )


def handedness(joints: np.ndarray) -> float:
    """How surely these are the joints of a right hand (above 0) or a left one (below 0).

    Fingers bend about axes that point across the palm: on a right hand from pinky to index, on a left one the other
    way. The result is the sum over index to pinky of the sines of the bends at the two outer joints.

    Args:
        joints: (21, 3) OpenPose order, any right-handed frame.
    """
    across = _unit(joints[5] - joints[17])
    bones = _unit(np.diff(joints[5:].reshape(4, 4, 3), axis=1))  # (4, 3, 3)
    return float(np.cross(bones[:, :-1], bones[:, 1:]).sum((0, 1)) @ across)


def check_sides(
    joints_of: Callable[[int], np.ndarray | None], is_left: Callable[[int], bool], length: int, where: str
) -> None:
    """Refuses a set whose hands are those of the other side, judged by a few samples from all over it.

    A single hand may mislead (an overstretched finger, a noisy label), a set does not. Damaged samples are passed
    over here: whoever asks for them is told.

    Args:
        joints_of: sample number to (21, 3) joints, OpenPose order, camera frame; None where there are none.
        is_left: which samples are said to be left hands.
        length: of the set.
        where: the set, for the message.

    Raises:
        ValueError: on average they are the other hand's.
    """
    scores = []
    for index in np.unique(np.linspace(0, length - 1, WITNESSES).astype(int)):
        with contextlib.suppress(ValueError, FileNotFoundError):
            joints = joints_of(int(index))
            if joints is not None:
                scores.append(-handedness(joints) if is_left(int(index)) else handedness(joints))
    if len(scores) >= _ENOUGH and np.mean(scores) < -_DOUBT:
        raise ValueError(
            f"{where}: {int((np.array(scores) < 0).sum())} of {len(scores)} hands bend like the other hand: left and "
            "right are swapped, or images and labels are mirrored; mirror images, cameras and points alike"
        )


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
