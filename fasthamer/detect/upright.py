"""Turned squares for models that were trained on upright hands, from a detector's landmarks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fasthamer.data.crop import BOX_FACTOR, Box, keypoint_box
from fasthamer.detect.detections import Detections
from fasthamer.detect.landmark_reader import PRESENT, Landmarks
from fasthamer.detect.regions import hand_rotation

Read = Callable[[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64] | None], Landmarks]


def upright_boxes(image: NDArray[np.uint8], found: Detections, read: Read, factor: float = BOX_FACTOR) -> list[Box]:
    """The square around each hand, turned with it and as large as in training.

    Args:
        image: (H, W, 3).
        found: where its landmarks are missing, they are read.
        read: `LandmarkReader.in_boxes`.
        factor: how much larger than the hand the squares are.

    Returns:
        N squares; around the box, and turned as the detector says or not at all, where there are no landmarks.
    """
    turns = np.zeros(len(found.boxes)) if found.rotation is None else found.rotation.copy()
    if found.landmarks is None:
        landmarks, presence, _, _ = read(image, found.boxes, found.rotation)
    else:
        landmarks, presence = found.landmarks, np.ones(len(turns))
    squares = []
    for hand, (box, turn) in enumerate(zip(found.boxes, turns.tolist(), strict=True)):
        if presence[hand] >= PRESENT:
            square = keypoint_box(landmarks[hand], "upright", float(hand_rotation(landmarks[hand])))
        else:
            square = keypoint_box(box.reshape(2, 2), "upright")._replace(rotation=turn)
        squares.append(square._replace(side=square.side * factor / BOX_FACTOR))
    return squares
