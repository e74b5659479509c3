"""The black around an image that ends within the crop, as where the hand fills the image (HaMeR pads with 0)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

ALL_SIDES, SOME_SIDES = 0.3, 0.15  # shares of the crops that show the whole image, or one or two of its edges
TURNED = 0.3  # share of those that were turned by augmentation


def end_image(rng: np.random.Generator, image: NDArray, keypoints: NDArray) -> NDArray:
    """By chance blackens what lies beyond the image's edges.

    Args:
        image: (S, S, 3) uint8; not changed.
        keypoints: (21, 2) pixels; they stay inside, but for the few that a close edge cuts off.
    """
    kind = rng.random()
    if kind > ALL_SIDES + SOME_SIDES:
        return image
    size = image.shape[0]
    low, high = keypoints.min(0), keypoints.max(0)
    middle, extent = (low + high) / 2, float((high - low).max())
    left, top, right, bottom = rng.uniform(-0.04, 0.5, 4) * extent
    if kind < ALL_SIDES:  # most images of one hand are about as high as wide
        half = np.full(2, extent / 2) if rng.random() < 0.7 else (high - low) / 2
    else:
        half = np.full(2, extent / 2)
        kept = rng.permutation(4)[: rng.integers(2, 4)]  # sides whose edge is far away
        left, top, right, bottom = (
            distance + 4 * size * (side in kept) for side, distance in enumerate((left, top, right, bottom))
        )
    corners = np.array(
        [
            [-half[0] - left, -half[1] - top],
            [half[0] + right, -half[1] - top],
            [half[0] + right, half[1] + bottom],
            [-half[0] - left, half[1] + bottom],
        ]
    )
    if rng.random() < TURNED:
        angle = np.radians(np.clip(rng.normal(0, 20), -40, 40))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        corners = corners @ turn.T
    mask = np.zeros((size, size), np.uint8)
    outline = np.round((corners + middle) * 16).astype(np.int32)
    cv2.fillConvexPoly(mask, outline, 255, cv2.LINE_AA, shift=4)
    return cv2.multiply(image, cv2.merge([mask, mask, mask]), scale=1 / 255)
