"""What hides parts of a synthetic image: objects before the hand, and black where the source image ends."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fasthamer.data.synthetic.background import random_background, random_colour
from fasthamer.data.synthetic.distribution import HARD, Distribution

ROTATED = 0.3  # share of those with rotated edges, as after augmentation


def add_occluder(rng: np.random.Generator, image: NDArray, keypoints: NDArray, shares: Distribution = HARD) -> NDArray:
    """With probability `shares.occluded`, draws a bar, a disk or a polygon over some keypoints.

    Args:
        image: (S, S, 3) uint8; not changed.
        keypoints: (21, 2) pixels.
    """
    if rng.random() > shares.occluded:
        return image
    size = image.shape[0]
    extent = float((keypoints.max(0) - keypoints.min(0)).max())
    x, y = keypoints[rng.integers(21)] + rng.normal(0, 0.1, 2) * extent
    mask: NDArray = np.zeros((size, size), np.uint8)
    kind = rng.integers(3)
    if kind == 0:
        angle, half = rng.uniform(0, np.pi), extent * rng.uniform(0.01, 0.07)
        along = np.array([np.cos(angle), np.sin(angle)]) * 2 * size
        across = np.array([-np.sin(angle), np.cos(angle)]) * half
        bar = np.array([along + across, along - across, -along - across, across - along])
        bar += (x, y)
        cv2.fillConvexPoly(mask, bar.astype(np.int32), 255, cv2.LINE_AA)
    elif kind == 1:
        axes = (extent * rng.uniform(0.06, 0.2, 2)).astype(int) + 1
        cv2.ellipse(mask, (int(x), int(y)), axes.tolist(), float(rng.uniform(0, 180)), 0, 360, 255, -1, cv2.LINE_AA)
    else:
        angles = np.sort(rng.uniform(0, 2 * np.pi, 5))
        outline = np.stack([np.cos(angles), np.sin(angles)], 1) * extent * rng.uniform(0.1, 0.28) + (x, y)
        cv2.fillPoly(mask, [outline.astype(np.int32)], 255, cv2.LINE_AA)
    if rng.random() < 0.4:
        mask = cv2.GaussianBlur(mask, (0, 0), size / 256 * rng.uniform(0.5, 3))
    cover = random_background(rng, size) if rng.random() < 0.5 else np.full_like(image, random_colour(rng))
    alpha = cv2.merge([mask, mask, mask]).astype(np.float32) / 255
    return (image + (cover.astype(np.float32) - image) * alpha).astype(np.uint8)


def add_black_border(
    rng: np.random.Generator, image: NDArray, keypoints: NDArray, shares: Distribution = HARD
) -> NDArray:
    """With probability `shares.all_edges + shares.some_edges`, blackens the crop outside a random source image.

    Args:
        image: (S, S, 3) uint8; not changed.
        keypoints: (21, 2) pixels; nearly all stay inside the source image.
    """
    kind = rng.random()
    if kind > shares.all_edges + shares.some_edges:
        return image
    size = image.shape[0]
    low, high = keypoints.min(0), keypoints.max(0)
    middle, extent = (low + high) / 2, float((high - low).max())
    left, top, right, bottom = rng.uniform(-0.04, 0.5, 4) * extent
    if kind < shares.all_edges:  # most source images are about square
        half = np.full(2, extent / 2) if rng.random() < 0.7 else (high - low) / 2
    else:
        half = np.full(2, extent / 2)
        far = rng.permutation(4)[: rng.integers(2, 4)]  # edges outside the crop
        left, top, right, bottom = (
            distance + 4 * size * (side in far) for side, distance in enumerate((left, top, right, bottom))
        )
    corners = np.array(
        [
            [-half[0] - left, -half[1] - top],
            [half[0] + right, -half[1] - top],
            [half[0] + right, half[1] + bottom],
            [-half[0] - left, half[1] + bottom],
        ]
    )
    if rng.random() < ROTATED:
        angle = np.radians(np.clip(rng.normal(0, 20), -40, 40))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        corners = corners @ turn.T
    mask = np.zeros((size, size), np.uint8)
    outline = np.round((corners + middle) * 16).astype(np.int32)
    cv2.fillConvexPoly(mask, outline, 255, cv2.LINE_AA, shift=4)
    return cv2.multiply(image, cv2.merge([mask, mask, mask]), scale=1 / 255)
