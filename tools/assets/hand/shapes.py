"""Ten shape directions: how adult hands differ, as a linear model in its principal axes. Millimetres."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fasthamer.tools.assets.hand.skeleton import FINGERS, Skeleton

# what varies -> its standard deviation in adults (relative, or degrees and mm where noted)
SPREADS = {
    "size": 0.054,
    "fingers": 0.028,
    "palm_length": 0.02,
    "palm_width": 0.04,
    "thickness": 0.06,
    "girth": 0.06,
    "thumb_length": 0.04,
    "index_against_ring": 0.022,
    "pinky_length": 0.04,
    "middle_phalanges": 0.035,
    "distal_phalanges": 0.045,
    "proximal_phalanges": 0.03,
    "taper": 0.05,
    "spread": 3.5,  # degrees between neighbours
    "thumb_base": 3.0,  # mm forward
    "wrist_width": 0.05,
}


def directions(vertices: np.ndarray, skin: np.ndarray, skeleton: Skeleton) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shape directions (V, 3, 10), joint motion (16, 3, 10) and the share of variance each explains (10,)."""
    columns, motions = [], []
    for name, deviation in SPREADS.items():
        step = 0.25 * deviation
        up = deform(vertices, skin, skeleton, {name: step})
        down = deform(vertices, skin, skeleton, {name: -step})
        columns.append((up[0] - down[0]).reshape(-1) / 0.5)
        motions.append((up[1] - down[1]).reshape(-1) / 0.5)
    matrix, motion = np.stack(columns, 1), np.stack(motions, 1)
    left, singular, right = np.linalg.svd(matrix, full_matrices=False)
    sign = np.sign(right[np.arange(len(right)), np.abs(right).argmax(1)])
    shapes = (left * singular * sign)[:, :10].reshape(-1, 3, 10)
    moves = (motion @ right.T * sign)[:, :10].reshape(-1, 3, 10)
    return shapes, moves, (singular**2 / (singular**2).sum())[:10]


def deform(
    vertices: np.ndarray, skin: np.ndarray, skeleton: Skeleton, change: dict[str, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) and joints (16, 3) of a hand that differs from the rest hand by `change`."""

    def of(name: str) -> float:
        return change.get(name, 0.0)

    wrist = skeleton.joints[0]
    scale = np.array([1 + of("palm_length"), 1 + of("thickness"), 1 + of("palm_width")])
    base_shift = np.array([-of("thumb_base"), 0.0, 0.0])

    def palm(points: np.ndarray) -> np.ndarray:
        offset = points - wrist
        at_wrist = np.exp(-((offset[:, :1] / 22.0) ** 2)) * np.array([0, 0.8, 1.0]) * of("wrist_width")
        near_thumb = np.exp(-(np.linalg.norm(points - skeleton.joints[13], axis=1, keepdims=True) ** 2) / 2 / 18.0**2)
        return wrist + offset * scale * (1 + at_wrist) + near_thumb * base_shift

    joints = np.zeros_like(skeleton.joints)
    joints[0] = wrist
    maps: list[Callable[[np.ndarray], np.ndarray]] = [palm]
    for number, finger in enumerate(FINGERS):
        first = 1 + 3 * number
        here = palm(skeleton.joints[first : first + 1])[0]
        turn = _about_y(
            np.radians(of("spread")) * {"index": 0.7, "middle": 0.1, "ring": -0.5, "pinky": -1.2}.get(finger, 0.6)
        )
        for segment in range(3):
            bone = first + segment
            joints[bone] = here
            longer, thicker = _bone_scale(finger, segment, of)
            start, axis = skeleton.joints[bone], skeleton.ends[bone] - skeleton.joints[bone]
            unit = axis / np.linalg.norm(axis)
            stretch = turn @ (thicker * np.eye(3) + (longer - thicker) * np.outer(unit, unit))
            maps.append(lambda points, a=start, m=stretch, b=here: b + (points - a) @ m.T)  # type: ignore[misc]
            here = here + stretch @ axis
    moved = sum(skin[:, [bone]] * maps[bone](vertices) for bone in range(16))
    size = 1 + of("size")
    return wrist + size * (moved - wrist), wrist + size * (joints - wrist)


def _bone_scale(finger: str, segment: int, of: Callable[[str], float]) -> tuple[float, float]:
    """Length and girth factors of one bone."""
    longer = 1 + of(("proximal_phalanges", "middle_phalanges", "distal_phalanges")[segment])
    if finger == "thumb":
        longer *= 1 + of("thumb_length") + 0.5 * of("fingers")
    else:
        longer *= 1 + of("fingers")
    longer *= 1 + of("pinky_length") * (finger == "pinky")
    longer *= 1 + of("index_against_ring") * {"index": 1.0, "ring": -1.0}.get(finger, 0.0)
    thicker = (1 + of("girth")) * (1 - of("taper") * (segment - 0.5))
    return longer, thicker


def _about_y(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
