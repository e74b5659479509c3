"""The hand as an implicit surface: squashed round cones on bones, joined by a smooth minimum. Millimetres."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fasthamer.tools.assets.hand.skeleton import FINGERS, Skeleton, point


class Cone(NamedTuple):
    """A round cone from `a` to `b`; each end rides on a bone. `squash` < 1 thins it along `normal`."""

    a: np.ndarray
    b: np.ndarray
    radius_a: float
    radius_b: float
    bone_a: int
    bone_b: int
    normal: np.ndarray
    squash: float


class Parts(NamedTuple):
    """The hand's cones by group, and the planes that flatten the nails: point, normal, bone."""

    palm: list[Cone]
    fingers: list[list[Cone]]  # MANO order
    nails: list[tuple[np.ndarray, np.ndarray, int]]


# radii at base, middle joint, last joint, tip (mm)
RADII = {
    "index": (10.4, 9.5, 8.3, 6.9),
    "middle": (10.6, 9.7, 8.5, 7.1),
    "ring": (9.9, 9.0, 8.0, 6.7),
    "pinky": (9.0, 7.9, 7.1, 6.0),
    "thumb": (13.0, 11.4, 10.4, 8.4),
}


def build(skeleton: Skeleton) -> Parts:
    """All volumes of the hand at rest."""
    fingers, nails = [], []
    for number, finger in enumerate(FINGERS):
        cones, nail = _finger(skeleton, number, RADII[finger], thumb=finger == "thumb")
        fingers.append(cones)
        nails.append(nail)
    return Parts(_palm(skeleton), fingers, nails)


def _finger(skeleton: Skeleton, number: int, radii: tuple[float, ...], thumb: bool):
    cones = []
    first = 1 + 3 * number
    for segment in range(3):
        bone = first + segment
        a, b, up = skeleton.joints[bone], skeleton.ends[bone], skeleton.dorsal[bone]
        direction = (b - a) / np.linalg.norm(b - a)
        ra, rb = radii[segment], radii[segment + 1]
        if thumb and segment == 0:
            a, ra = a - 2 * up, 13.5
        if segment == 2:
            b = b - rb * direction  # the tip's sphere ends where the finger does
            cones.append(Cone(a, b, ra * 0.97, rb, bone, bone, up, 0.90))
            pad = a + 0.52 * (skeleton.ends[bone] - a)
            cones.append(Cone(pad - 1.9 * up, b - 1.2 * up, rb * 0.98, rb * 0.88, bone, bone, up, 0.92))
        else:
            waist = 0.5 * (a + b)
            middle = 0.5 * (ra + rb)
            cones.append(Cone(a, waist, ra, middle * 0.96, bone, bone, up, 0.95))
            cones.append(Cone(waist, b, middle * 0.96, rb * 0.985, bone, bone, up, 0.95))
            if not (thumb and segment == 0):
                pad = waist - 2.3 * up + 1.0 * direction
                reach = 0.17 * np.linalg.norm(b - a)
                cones.append(
                    Cone(
                        pad - reach * direction,
                        pad + reach * direction,
                        middle * 0.86,
                        middle * 0.86,
                        bone,
                        bone,
                        up,
                        0.92,
                    )
                )
            knuckle = b + 1.9 * up - 1.0 * direction
            cones.append(Cone(knuckle, knuckle - 2.5 * direction, rb * 0.83, rb * 0.8, bone, bone, up, 0.95))
    bone = first + 2
    up = skeleton.dorsal[bone]
    axis = skeleton.ends[bone] - skeleton.joints[bone]
    axis = axis / np.linalg.norm(axis)
    slope = np.radians(7.0)
    normal = np.cos(slope) * up + np.sin(slope) * axis
    nail = (
        skeleton.joints[bone] + 0.62 * (skeleton.ends[bone] - skeleton.joints[bone]) + 0.73 * radii[3] * up,
        normal,
        bone,
    )
    return cones, nail


def _palm(skeleton: Skeleton) -> list[Cone]:
    joints, up = skeleton.joints, np.array([0.0, 1.0, 0.0])

    def cone(a, b, radius_a, radius_b, bone_a=0, bone_b=0, squash=1.0):
        return Cone(a, b, radius_a, radius_b, bone_a, bone_b, up, squash)

    index, middle, pinky, ring, thumb = (joints[1 + 3 * n] for n in range(5))
    cones = [
        # forearm stub and carpus
        cone(point(-30, 0, -9), point(12, 0, -8), 19.0, 18.5, squash=0.98),
        cone(point(-30, 0, 9), point(12, 0, 9), 19.0, 18.5, squash=0.98),
        # metacarpals
        cone(point(14, 0, 12), index + np.array([3, -3.5, 0]), 15.0, 11.5, squash=0.95),
        cone(point(14, 0.5, 3), middle + np.array([3, -5.0, 0]), 15.5, 11.8, squash=0.95),
        cone(point(14, 0, -6), ring + np.array([3, -4.5, 0]), 15.5, 11.5, squash=0.95),
        cone(point(14, -1, -14), pinky + np.array([3, -2.5, 1.0]), 15.0, 10.6, squash=0.95),
        # knuckles
        cone(index + np.array([1, 2.2, 0]), index + np.array([20, 1.6, -0.5]), 8.8, 6.6),
        cone(middle + np.array([1, 2.2, 0]), middle + np.array([20, 1.2, 0]), 9.0, 6.6),
        cone(ring + np.array([1, 2.0, 0]), ring + np.array([20, 1.2, 0.5]), 8.3, 6.4),
        cone(pinky + np.array([1, 2.0, 0]), pinky + np.array([18, 1.2, 1]), 7.6, 5.8),
        # pads under the knuckles
        cone(index + np.array([1, -9.0, -2]), middle + np.array([1, -11.0, 0]), 9.0, 8.8, squash=0.85),
        cone(middle + np.array([1, -11.0, 0]), ring + np.array([1, -9.5, 0]), 8.8, 8.8, squash=0.85),
        cone(ring + np.array([1, -9.5, 0]), pinky + np.array([2, -6.5, 1]), 8.8, 8.8, squash=0.85),
        # hypothenar
        cone(point(5, -5, -15), point(24, -9, -22), 13.5, 13.0),
        cone(point(24, -9, -22), point(52, -9.5, -30), 13.0, 11.0),
        # thenar: belly between the thumb's metacarpal and the palm
        cone(point(17, -8, 13), point(48, -12, 23), 13.5, 11.5, 0, 13),
        cone(
            thumb + np.array([-4, -3.5, -2]),
            0.45 * thumb + 0.55 * joints[14] + np.array([0, -4.5, -2.5]),
            12.5,
            11.8,
            13,
            13,
        ),
        cone(
            0.45 * thumb + 0.55 * joints[14] + np.array([0, -4.5, -2.5]),
            joints[14] + np.array([0, -1.5, -0.5]),
            11.8,
            10.0,
            13,
            13,
        ),
        # web of the thumb
        cone(point(52, -5, 27), joints[14] + np.array([8, 1, -5]), 8.5, 7.0, 0, 13),
        cone(point(38, -4, 27), 0.5 * (joints[13] + joints[14]), 9.5, 9.5, 0, 13),
        cone(point(64, -4, 30), joints[14] + np.array([2, 1, -3]), 6.0, 5.0, 0, 13),
    ]
    for left, right in ((1, 4), (4, 10), (10, 7)):
        a = joints[left] + 0.33 * (skeleton.ends[left] - joints[left])
        b = joints[right] + 0.36 * (skeleton.ends[right] - joints[right])
        cones.append(cone(a - 1.5 * up, b - 1.5 * up, 6.3, 6.3, left, right))
    return cones


def distance(points: np.ndarray, parts: Parts) -> np.ndarray:
    """Approximate signed distance (N,) of points (N, 3), negative inside."""
    palm = _joined(points, parts.palm, 7.0)
    hand = palm
    for cones, (origin, normal, _) in zip(parts.fingers, parts.nails, strict=True):
        finger = _joined(points, cones, 2.6)
        finger = -_smooth_min(-finger, -((points - origin) @ normal), 2.0)
        hand = _smooth_min(hand, finger, 3.0)
    return hand


def gradient(points: np.ndarray, parts: Parts, step: float = 0.05) -> np.ndarray:
    """Outward direction, central differences (N, 3)."""
    columns = []
    for axis in np.eye(3) * step:
        columns.append((distance(points + axis, parts) - distance(points - axis, parts)) / (2 * step))
    return np.stack(columns, 1)


def project(points: np.ndarray, parts: Parts, rounds: int = 4, most: float = 3.0) -> np.ndarray:
    """Points moved onto the surface along its gradient, at most `most` mm a round."""
    for _ in range(rounds):
        slope = gradient(points, parts)
        length = np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 0.3)
        move = -distance(points, parts)[:, None] * slope / length**2
        size = np.maximum(np.linalg.norm(move, axis=1, keepdims=True), 1e-9)
        points = points + move * np.minimum(1.0, most / size)
    return points


def _joined(points: np.ndarray, cones: list[Cone], blend: float) -> np.ndarray:
    total = _cone_distance(points, cones[0])
    for cone in cones[1:]:
        total = _smooth_min(total, _cone_distance(points, cone), blend)
    return total


def _cone_distance(points: np.ndarray, cone: Cone) -> np.ndarray:
    axis = cone.b - cone.a
    along = np.clip((points - cone.a) @ axis / max(axis @ axis, 1e-9), 0.0, 1.0)
    offset = points - cone.a - along[:, None] * axis
    high = offset @ cone.normal
    squared = (offset * offset).sum(1) + high * high * (cone.squash**-2 - 1.0)
    return np.sqrt(np.maximum(squared, 1e-12)) - (cone.radius_a + along * (cone.radius_b - cone.radius_a))


def _smooth_min(a: np.ndarray, b: np.ndarray, blend: float) -> np.ndarray:
    share = np.maximum(blend - np.abs(a - b), 0.0) / blend
    return np.minimum(a, b) - share * share * blend * 0.25
