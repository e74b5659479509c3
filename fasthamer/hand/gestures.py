"""Poses of a hand in anatomical angles: limits, gesture families, and their conversion to MANO's rotations.

An anatomical pose is (5, 4) degrees, fingers in MANO's order (index, middle, pinky, ring, thumb). A finger's four are
flexion at the knuckle, abduction towards the thumb, flexion at the middle joint, flexion at the last joint, all
measured from a straight finger that points ahead. The thumb's four: swing across the palm, swing out of the palm's
plane, flexion at its middle joint, flexion at its last; zero is the rest pose.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# angles of the rest mesh, degrees: subtracted before rotating
REST = np.array([[4, 7, 5, 4], [4, 0.5, 5, 4], [4, -14, 5, 4], [4, -5.5, 5, 4], [0, 0, 0, 0]], float)
# limits of healthy adults, active motion, with a few degrees of passive reach
LOWEST = np.array(
    [[-25, -16, -8, -10], [-25, -18, -8, -10], [-25, -30, -8, -10], [-25, -20, -8, -10], [-30, -40, -15, -20]], float
)
HIGHEST = np.array(
    [[95, 20, 112, 85], [95, 16, 112, 85], [95, 10, 112, 85], [95, 12, 112, 85], [48, 28, 65, 80]], float
)
PRONATION = -0.45  # degrees of thumb roll per degree of swing


class Axes(NamedTuple):
    """Rotation axes of the 15 joints, (15, 3) each: flexion curls to the palm, dorsal points to the nail's side."""

    flexion: np.ndarray
    dorsal: np.ndarray


def hand_pose(index, middle, ring, pinky, thumb) -> np.ndarray:
    """An anatomical pose (5, 4) from the fingers in everyday order."""
    return np.array([index, middle, pinky, ring, thumb], float)


PRESETS = {
    "rest": REST.copy(),
    "relaxed": hand_pose([24, 3, 28, 15], [28, 1, 32, 17], [29, -2, 34, 17], [28, -7, 32, 16], [8, -8, 12, 14]),
    "fist": hand_pose([72, 0, 104, 58], [78, 0, 104, 60], [80, -1, 104, 60], [80, -2, 102, 60], [35, -5, 42, 40]),
    "pointing": hand_pose([2, 2, 4, 3], [76, 0, 104, 58], [80, -1, 104, 60], [80, -2, 102, 60], [37, -7, 42, 38]),
    "pinch": hand_pose([47, 0, 62, 34], [30, 0, 30, 16], [24, -3, 26, 14], [18, -8, 22, 12], [24, -19, 22, 26]),
    "spread": hand_pose([-4, 16, 2, 2], [-6, 2, 2, 2], [-4, -10, 2, 2], [-4, -25, 2, 2], [-20, 2, -4, -4]),
}


def to_axis_angle(pose: np.ndarray, axes: Axes) -> np.ndarray:
    """Anatomical degrees (5, 4) to absolute axis-angle rotations (15, 3) in MANO's frame."""
    angle = np.radians(pose - REST)
    out = np.empty((15, 3))
    for finger in range(5):
        base = 3 * finger
        turn = _turn(axes.dorsal[base], -angle[finger, 1] if finger == 4 else angle[finger, 1])
        turn = turn @ _turn(axes.flexion[base], angle[finger, 0])
        if finger == 4:  # the thumb's metacarpal pronates as it swings across the palm
            along = np.cross(axes.flexion[base], axes.dorsal[base])
            turn = turn @ _turn(along, PRONATION * angle[finger, 0])
        out[base] = _log(turn)
        out[base + 1] = axes.flexion[base + 1] * angle[finger, 2]
        out[base + 2] = axes.flexion[base + 2] * angle[finger, 3]
    return out


def _turn(axis: np.ndarray, angle: float) -> np.ndarray:
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _log(matrix: np.ndarray) -> np.ndarray:
    twist = np.array([matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]])
    sine = np.linalg.norm(twist) / 2
    angle = np.arctan2(sine, (np.trace(matrix) - 1) / 2)
    return twist / 2 if sine < 1e-9 else twist * (angle / (2 * sine))
