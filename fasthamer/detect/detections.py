"""What every hand detector returns."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Detections(NamedTuple):
    """The hands of one image, N of them; N may be 0. A detector of boxes alone leaves the last three out."""

    boxes: NDArray[np.float64]  # (N, 4) x1, y1, x2, y2 pixels, tight around the landmarks; may reach beyond the image
    right: NDArray[np.bool_]  # (N,) whether it is a right hand
    score: NDArray[np.float64]  # (N,) probability that it is a hand
    landmarks: NDArray[np.float64] | None = None  # (N, 21, 2) pixels of the image, OpenPose order
    rotation: NDArray[np.float64] | None = None  # (N,) degrees clockwise as seen, see `regions.hand_rotation`
    world: NDArray[np.float64] | None = None  # (N, 21, 3) metres, centred on the hand, axes as the camera's: x right,
    # y down, z forward; a left hand is a left hand


class HandDetector(Protocol):
    """Finds the hands of an image; any callable of this form will do."""

    def __call__(self, image: NDArray[np.uint8]) -> Detections:
        """(H, W, 3) RGB -> the hands."""
