"""A cheap test whether fingers intersect each other or the palm: bones as capsules."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fasthamer.hand.kinematics import forward_kinematics, rest_bones

# radii (m) of the 15 finger bones in MANO's order, then of the four metacarpals
_RADII = np.array([9.0, 8.4, 7.2] * 2 + [7.6, 7.0, 6.2] + [8.6, 8.0, 7.0] + [10.5, 9.6, 8.4] + [9.5] * 4) / 1000
_MIDDLE_KNUCKLE = 4
_KNUCKLES = (1, 4, 7, 10)  # the metacarpals run from the wrist to these joints


def _pairs() -> np.ndarray:
    """Pairs of capsules (P, 2) that are tested; bones 1..15 as 0..14, metacarpals as 15..18."""
    pairs = []
    for a in range(15):
        for b in range(a + 1, 15):
            both_at_root = a % 3 == 0 and b % 3 == 0
            thumb_root = 12 in (a, b)
            if a // 3 != b // 3 and not both_at_root and not thumb_root:
                pairs.append((a, b))
        if a % 3 == 2 or (a % 3 == 1 and a // 3 == 4):
            pairs += [(a, palm) for palm in range(15, 19)]
    return np.array(pairs)


_PAIRS = _pairs()


class Capsules(NamedTuple):
    """The hand whose bones are tested: rest joints (16, 3) and fingertips (5, 3) in MANO's order, metres."""

    joints: np.ndarray
    tips: np.ndarray

    def depth(self, pose: np.ndarray) -> float:
        """The deepest overlap (m) of two capsules in the pose (15, 3) axis-angle; negative when all are apart."""
        joints, ends = self.posed(pose)
        wrist = np.broadcast_to(joints[0], (4, 3))
        knuckles = joints[list(_KNUCKLES)]
        a = np.concatenate([joints[1:], wrist + 0.35 * (knuckles - wrist)])
        b = np.concatenate([ends[1:], knuckles])
        tip = np.arange(2, 15, 3)  # the last bone's capsule ends inside the fingertip
        along = b[tip] - a[tip]
        b[tip] -= along / np.linalg.norm(along, axis=1, keepdims=True) * _RADII[tip, None]
        one, other = _PAIRS[:, 0], _PAIRS[:, 1]
        gap = segment_distances(a[one], b[one], a[other], b[other])
        return float((_RADII[one] + _RADII[other] - gap).max())

    def posed(self, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Joints (16, 3) and the far ends of their bones (16, 3) after forward kinematics."""
        rotations = np.concatenate([np.eye(3)[None], _matrices(pose)])  # (16, 3, 3), the wrist's none
        turned, joints = forward_kinematics(rotations, rest_bones(self.joints))
        last = np.arange(3, 16, 3)  # of each finger; its bone ends at the tip, the others' at the next joint
        ends = np.roll(joints, -1, axis=0)
        ends[0] = joints[_MIDDLE_KNUCKLE]
        ends[last] = joints[last] + np.einsum("jab,jb->ja", turned[last], self.tips - self.joints[last])
        return joints, ends


def _matrices(pose: np.ndarray) -> np.ndarray:
    """Axis-angle (N, 3) to rotation matrices (N, 3, 3)."""
    angle = np.linalg.norm(pose, axis=1)
    x, y, z = (pose / np.maximum(angle, 1e-12)[:, None]).T
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).reshape(-1, 3, 3)
    return np.eye(3) + np.sin(angle)[:, None, None] * cross + (1 - np.cos(angle))[:, None, None] * cross @ cross


def segment_distances(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Distance (P,) between segments a-b and c-d, (P, 3) each (Ericson, Real-Time Collision Detection, 5.1.9)."""
    u, v, w = b - a, d - c, a - c
    uu, vv, uv = (u * u).sum(1), (v * v).sum(1), (u * v).sum(1)
    uw, vw = (u * w).sum(1), (v * w).sum(1)
    s = np.clip((uv * vw - uw * vv) / np.maximum(uu * vv - uv * uv, 1e-12), 0, 1)
    t = np.clip((uv * s + vw) / vv, 0, 1)
    s = np.clip((uv * t - uw) / uu, 0, 1)
    return np.linalg.norm(w + s[:, None] * u - t[:, None] * v, axis=1)
