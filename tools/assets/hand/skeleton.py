"""The sixteen joints and five fingertips of the embedded hand at rest.

Frame: MANO's. Right hand, fingers towards -x, palm towards -y, thumb towards +z. Unit here: millimetres.
Segment lengths start from the means of Buryanov and Kotiuk (2010), the distal ones with their soft tissue; see
docs/embedded_hand.md.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

FINGERS = ("index", "middle", "pinky", "ring", "thumb")  # MANO's order
WRIST_X = 92.0  # mm

# joint at the finger's base seen from the wrist: forward, dorsal, towards the thumb (mm)
BASES = {
    "index": (87.0, 1.0, 25.5),
    "middle": (89.5, 4.0, 4.5),
    "ring": (82.5, 2.5, -14.5),
    "pinky": (73.0, -2.5, -31.0),
    "thumb": (25.0, -10.0, 24.0),
}
# proximal, middle, distal to the fleshy tip; the thumb: metacarpal, proximal, distal (mm)
LENGTHS = {
    "index": (39.8, 23.4, 21.8),
    "middle": (44.0, 27.0, 22.6),
    "ring": (40.8, 26.0, 22.4),
    "pinky": (32.2, 18.9, 20.0),
    "thumb": (42.0, 32.0, 28.0),
}
SPREAD = {"index": 7.0, "middle": 0.5, "ring": -5.5, "pinky": -14.0}  # degrees towards the thumb
CURVE = (4.0, 5.0, 4.0)  # degrees of flexion in which fingers rest: at the base, the middle and the last joint
THUMB_DIRECTIONS = ((0.76, -0.24, 0.60), (0.80, -0.16, 0.58), (0.86, -0.10, 0.50))  # forward, dorsal, sideways


class Skeleton(NamedTuple):
    """Rest geometry, mm. Bone j starts at joint j; `ends[j]` is its far end (the wrist's: middle knuckle)."""

    joints: np.ndarray  # (16, 3)
    ends: np.ndarray  # (16, 3)
    tips: np.ndarray  # (5, 3) index, middle, pinky, ring, thumb
    dorsal: np.ndarray  # (16, 3) unit, towards the nail side
    flexion: np.ndarray  # (16, 3) unit, right-handed axis that curls the bone towards the palm


def point(forward: float, dorsal: float, sideways: float) -> np.ndarray:
    """A point given from the wrist, in the mesh's frame."""
    return np.array([WRIST_X - forward, dorsal, sideways])


def build() -> Skeleton:
    """The rest skeleton."""
    joints, ends, tips = np.zeros((16, 3)), np.zeros((16, 3)), np.zeros((5, 3))
    dorsal, flexion = np.zeros((16, 3)), np.zeros((16, 3))
    joints[0] = point(0, 0, 0)
    dorsal[0], flexion[0] = (0, 1, 0), (0, 0, 1)
    for number, finger in enumerate(FINGERS):
        first = 1 + 3 * number
        here = point(*BASES[finger])
        for segment in range(3):
            joint = first + segment
            direction, axis = _thumb_axes(segment) if finger == "thumb" else _finger_axes(finger, segment)
            joints[joint] = here
            here = here + LENGTHS[finger][segment] * direction
            ends[joint] = here
            flexion[joint] = axis
            dorsal[joint] = np.cross(direction, axis)
        tips[number] = here
    ends[0] = joints[4]
    return Skeleton(joints, ends, tips, dorsal, flexion)


def _finger_axes(finger: str, segment: int) -> tuple[np.ndarray, np.ndarray]:
    yaw = np.radians(SPREAD[finger])
    pitch = np.radians(sum(CURVE[: segment + 1]))
    flat = np.array([-np.cos(yaw), 0.0, np.sin(yaw)])
    direction = np.cos(pitch) * flat + np.sin(pitch) * np.array([0.0, -1.0, 0.0])
    return direction, np.cross(flat, [0.0, -1.0, 0.0])


def _thumb_axes(segment: int) -> tuple[np.ndarray, np.ndarray]:
    forward, up, sideways = THUMB_DIRECTIONS[segment]
    direction = np.array([-forward, up, sideways])
    direction /= np.linalg.norm(direction)
    nail = np.array([0.25, 0.62, 0.74])  # the thumb's nail looks outwards and up
    axis = np.cross(nail, direction)
    return direction, axis / np.linalg.norm(axis)
