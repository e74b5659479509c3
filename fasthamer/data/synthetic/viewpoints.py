"""Random viewpoints: orientations and positions of hands before a camera, and crops of its image."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthamer.data.crop import turn_matrix
from fasthamer.data.synthetic.distribution import HARD, Distribution

# In MANO's rest pose fingers point to -x, the palm faces -y, so the thumb's side is fingers x palm = +z.
_REST_FRAME = np.array([[-1.0, 0, 0], [0, -1, 0], [0, 0, 1]]).T  # columns: fingers, palm, thumb side


def random_orientation(rng: np.random.Generator, shares: Distribution = HARD) -> NDArray[np.float64]:
    """(3, 3) rotation of the rest pose into the camera's frame (x right, y down, z forward)."""
    kind = rng.random()
    if kind < shares.raised:
        fingers, palm = _raised(rng)
    elif kind < shares.raised + shares.egocentric:
        fingers = np.array([rng.normal(0, 0.5), rng.normal(-0.3, 0.5), rng.uniform(0.3, 1.0)])
        palm = np.array([rng.normal(0, 0.6), rng.normal(0.6, 0.5), rng.normal(0.5, 0.5)])
    else:
        fingers, palm = rng.standard_normal(3), rng.standard_normal(3)
    return _frame(fingers, palm) @ _REST_FRAME.T


def _raised(rng: np.random.Generator) -> tuple[NDArray, NDArray]:
    turn, tilt = np.radians([rng.normal(0, 38), rng.normal(-10, 23)])
    fingers = np.array([np.sin(turn) * np.cos(tilt), -np.cos(turn) * np.cos(tilt), np.sin(tilt)])
    side = rng.random()
    roll = rng.normal(0, 32) if side < 0.6 else rng.normal(180, 40) if side < 0.82 else rng.uniform(0, 360)
    roll = np.radians(roll)
    palm = np.array([np.sin(roll), 0.0, -np.cos(roll)])  # roll 0: the palm faces the camera
    return fingers, palm


def _frame(fingers: NDArray, palm: NDArray) -> NDArray:
    """Orthonormal columns fingers, palm, thumb side; `palm` is made perpendicular to `fingers`."""
    fingers = fingers / np.linalg.norm(fingers)
    palm = palm - fingers * (palm @ fingers)
    palm = palm / np.linalg.norm(palm)
    return np.column_stack([fingers, palm, np.cross(fingers, palm)])


class Crop(NamedTuple):
    """A square crop of a perspective camera's image as a camera of its own, with the same axes."""

    focal: float  # crop pixels
    centre: NDArray[np.float64]  # (2,) principal point of the full camera, crop pixels

    def project(self, points: NDArray) -> NDArray:
        """(..., 3) metres to (..., 2) crop pixels."""
        return points[..., :2] / points[..., 2:] * self.focal + self.centre

    def turned(self, rotation: float, size: int) -> Crop:
        """The crop of `size` pixels that shows points turned by `turn_matrix(rotation)` as this one turned."""
        turn = turn_matrix(rotation)[:2, :2]
        return Crop(self.focal, size / 2 + turn @ (self.centre - size / 2))


def random_translation(rng: np.random.Generator, joints: NDArray) -> NDArray[np.float64]:
    """(3,) metres; moves a hand to a random position in a camera's image.

    Fields of view are 30 to 70 degrees; the hand is 0.3 to 1 m away, and every joint at least 12 cm.

    Args:
        joints: (21, 3) metres, rotated into the camera's frame.
    """
    distance = float(np.exp(rng.uniform(np.log(0.3), np.log(1.0))))
    half_view = np.tan(np.radians(rng.uniform(30, 70) / 2))
    ray = np.array([*(rng.uniform(-0.75, 0.75, 2) * half_view), 1.0])
    centre = (joints.min(0) + joints.max(0)) / 2
    translation = ray * distance - centre
    nearest = (joints + translation)[:, 2].min()
    return translation + ray * max(0.0, 0.12 - nearest)
