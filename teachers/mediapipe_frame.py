"""How MediaPipe's landmarks become our joints: systematic offsets, measured in the frame of the hand itself.

The offsets hold for the crop they were measured in, MediaPipe's own (`fasthamer.detect.regions.landmark_region`). In
the wider crop that students see, the network puts the wrist a sixth of the palm's length further down the arm.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthamer.data.crop import mirror_points
from fasthamer.hand.conventions import MIDDLE_KNUCKLE, WRIST

INDEX_KNUCKLE, PINKY_KNUCKLE = 5, 17


def image_frame(points: NDArray[np.float64], right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The axes of hands in their images.

    Args:
        points: (N, 21, 2) pixels, MediaPipe's.
        right: (N,) whether it is a right hand.

    Returns:
        (N, 2, 2) rows: along, from the wrist to the middle knuckle; across, to the right of it as seen (of a left hand
        to the left). Both are as long as that distance.
    """
    along = points[:, MIDDLE_KNUCKLE] - points[:, WRIST]
    across = np.stack((-along[:, 1], along[:, 0]), -1) * np.where(right, 1, -1)[:, None]
    return np.stack((along, across), 1)


def palm_frame(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The axes of right hands in 3D.

    Args:
        points: (N, 21, 3) MediaPipe's, any unit.

    Returns:
        (N, 3, 3) rows: along, from the wrist to the middle knuckle; across, towards the index finger's side; and out of
        the palm's plane. Each is as long as the distance from wrist to middle knuckle.
    """
    along = points[:, MIDDLE_KNUCKLE] - points[:, WRIST]
    size = np.linalg.norm(along, axis=-1, keepdims=True)
    out = np.cross(along, points[:, INDEX_KNUCKLE] - points[:, PINKY_KNUCKLE])
    out /= np.linalg.norm(out, axis=-1, keepdims=True)
    return np.stack((along, np.cross(out, along), out * size), 1)


def to_our_keypoints(
    points: NDArray[np.float64], right: NDArray[np.bool_], offsets: NDArray[np.float64]
) -> NDArray[np.float64]:
    """MediaPipe's landmarks (N, 21, 2) in pixels as our joints; `offsets` (21, 2): theirs minus ours."""
    return points - offsets @ image_frame(points, right)


def to_our_joints(
    world: NDArray[np.float64], right: NDArray[np.bool_], offsets: NDArray[np.float64]
) -> NDArray[np.float64]:
    """MediaPipe's world landmarks (N, 21, 3) in metres as our joints; `offsets` (21, 3): theirs minus ours."""
    side = right[:, None, None]
    as_right = np.where(side, world, mirror_points(world))
    ours = as_right - offsets @ palm_frame(as_right)
    return np.where(side, ours, mirror_points(ours))


def keypoint_offsets(theirs: NDArray[np.float64], ours: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 21, 2) of right hands in their `image_frame`: along and across."""
    axes = image_frame(theirs, np.ones(len(theirs), bool))
    offsets: Any = np.linalg.solve(axes.swapaxes(1, 2), (theirs - ours).swapaxes(1, 2)).swapaxes(1, 2)
    return offsets


def joint_offsets(theirs: NDArray[np.float64], ours: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 21, 3) of right hands in their `palm_frame`, both from their own wrist, as training compares joints."""
    difference = (theirs - theirs[:, :1]) - (ours - ours[:, :1])
    offsets: Any = np.linalg.solve(palm_frame(theirs).swapaxes(1, 2), difference.swapaxes(1, 2)).swapaxes(1, 2)
    return offsets
