"""Poses of a hand in anatomical angles: limits, gesture families, and their conversion to MANO's rotations.

An anatomical pose is (5, 4) degrees, fingers in MANO's order (index, middle, pinky, ring, thumb). A finger's four are
flexion at the knuckle, abduction towards the thumb, flexion at the middle joint, flexion at the last joint, all
measured from a straight finger that points ahead. The thumb's four: swing across the palm, swing out of the palm's
plane, flexion at its middle joint, flexion at its last; zero is the rest pose.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# what the rest mesh already has, degrees: subtracted before rotating
REST = np.array([[4, 7, 5, 4], [4, 0.5, 5, 4], [4, -14, 5, 4], [4, -5.5, 5, 4], [0, 0, 0, 0]], float)
LOWEST = np.array([[-25, -16, -5, -8], [-25, -16, -5, -8], [-25, -26, -5, -8], [-25, -18, -5, -8], [-25, -35, -25, -25]], float)
HIGHEST = np.array([[95, 18, 112, 85], [95, 16, 112, 85], [95, 10, 112, 85], [95, 12, 112, 85], [45, 40, 65, 85]], float)

PRONATION = -0.45  # degrees of thumb roll per degree of swing

_REACH = (75.0, 100.0, 62.0)  # flexion of a fully curled finger


class Axes(NamedTuple):
    """Rotation axes of the 15 joints, (15, 3) each: flexion curls to the palm, dorsal points to the nail's side."""

    flexion: np.ndarray
    dorsal: np.ndarray


def _finger(curl: float, abduction: float = 0.0) -> list[float]:
    return [_REACH[0] * curl, abduction, _REACH[1] * curl, _REACH[2] * curl]


def _pose(index, middle, ring, pinky, thumb) -> np.ndarray:
    return np.array([index, middle, pinky, ring, thumb], float)


PRESETS = {
    "rest": REST.copy(),
    "relaxed": _pose([22, 3, 30, 16], [26, 1, 34, 18], [28, -2, 36, 18], [28, -6, 34, 16], [5, 6, 8, 12]),
    "fist": _pose([82, 0, 100, 62], [86, 0, 102, 62], [86, 0, 102, 62], [86, 2, 100, 62], [35, 25, 35, 45]),
    "pointing": _pose([2, 2, 5, 4], [82, 0, 100, 62], [84, 0, 102, 62], [84, 2, 100, 62], [30, 22, 30, 40]),
    "pinch": _pose([48, 0, 45, 25], [38, 0, 35, 20], [30, -2, 30, 16], [24, -6, 26, 14], [25, 28, 10, 20]),
    "spread": _pose([-4, 16, 2, 2], [-6, 2, 2, 2], [-4, -10, 2, 2], [-4, -24, 2, 2], [-18, -10, -8, -8]),
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


class Capsules(NamedTuple):
    """Bones as capsules for a cheap collision test, metres."""

    joints: np.ndarray  # (16, 3)
    tips: np.ndarray  # (5, 3)

    @classmethod
    def of(cls, joints: np.ndarray, tips: np.ndarray) -> Capsules:
        return cls(np.asarray(joints, float), np.asarray(tips, float))


def sample(rng: np.random.Generator, axes: Axes, capsules: Capsules) -> np.ndarray:
    """One random pose (15, 3)."""
    curl = np.clip(rng.normal(0.35, 0.3) + rng.normal(0, 0.15, 4), -0.05, 1.0)
    pose = _pose(*[_finger(c) for c in curl], [rng.normal(8, 14), rng.normal(8, 14), rng.normal(10, 14), rng.normal(15, 20)])
    pose[:4, 1] = np.array([5, 0, -10, -4]) * rng.uniform(-0.3, 1.6) * (1 - curl[[0, 1, 3, 2]])
    pose += rng.normal(0, 4, (5, 4))
    return to_axis_angle(np.clip(pose, LOWEST, HIGHEST), axes)
