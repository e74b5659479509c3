"""Things in front of the hand: blurred edges of objects that hide part of it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fasthamer.data.synthetic.background import background, colour

PROBABILITY = 0.2


def occlude(rng: np.random.Generator, image: NDArray, keypoints: NDArray) -> NDArray:
    """By chance covers a few keypoints (21, 2) of the image (S, S, 3) with a bar, a disk or a polygon."""
    if rng.random() > PROBABILITY:
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
    cover = background(rng, size) if rng.random() < 0.5 else np.full_like(image, colour(rng))
    alpha = cv2.merge([mask, mask, mask]).astype(np.float32) / 255
    return (image + (cover.astype(np.float32) - image) * alpha).astype(np.uint8)
