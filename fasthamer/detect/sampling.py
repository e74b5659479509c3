"""Crops for the detector's networks, from images of any size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray


def sample(image: NDArray[np.uint8], affine: NDArray[np.float64], size: int, repeat: bool) -> NDArray[np.uint8]:
    """A crop, bilinear; an image that shrinks to less than half is averaged first, so that small hands stay visible.

    Args:
        image: (H, W, 3).
        affine: (2, 3) from pixels of the image to those of the crop.
        size: pixels of the crop.
        repeat: outside of the image the pixels of its edge, as the landmark network was trained; False: black.

    Returns:
        (size, size, 3) uint8.
    """
    height, width = image.shape[:2]
    (a, b, _), (c, d, _) = affine.tolist()
    factor = min(int(1 / math.sqrt(abs(a * d - b * c))), width, height)
    if factor > 1:
        image = np.asarray(
            cv2.resize(image, (width // factor, height // factor), interpolation=cv2.INTER_AREA), np.uint8
        )
        scale = np.array([width / (width // factor), height / (height // factor)])
        shift = affine[:, :2] @ ((scale - 1) / 2) + affine[:, 2]  # pixels are counted at their centres
        affine = np.column_stack((affine[:, :2] * scale, shift))
    border = cv2.BORDER_REPLICATE if repeat else cv2.BORDER_CONSTANT
    crop = cv2.warpAffine(image, affine, (size, size), flags=cv2.INTER_LINEAR, borderMode=border)
    return np.asarray(crop, np.uint8)


def as_input(crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Crops (S, S, 3) to a network's input (B, 3, S, S), 0 to 1."""
    return np.ascontiguousarray(np.stack(crops).transpose(0, 3, 1, 2), np.float32) / np.float32(255)
