"""The boxes to crop around detected hands."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fasthamer.data.crop import Box, hand_box, keypoint_box
from fasthamer.detect.detections import Detections, HandDetector
from fasthamer.detect.detector import MediaPipeDetector


def hand_boxes(found: Detections, shape: str) -> list[Box]:
    """The boxes around hands: of their landmarks, as around labelled keypoints; else of tight boxes and rotations.

    Args:
        found: N hands.
        shape: one of `fasthamer.data.crop.BOX_SHAPES`.
    """
    if found.landmarks is None:
        turns = [0.0] * len(found.boxes)
        if shape == "upright" and found.rotation is not None:
            turns = found.rotation.tolist()
        boxes = (keypoint_box(box.reshape(2, 2), shape) for box in found.boxes)
        return [box._replace(rotation=turn) for box, turn in zip(boxes, turns, strict=True)]
    return [hand_box(np.column_stack((points, np.ones(21))), shape) for points in found.landmarks]


class BoxFinder:
    """The boxes of the hands in an image, for `fasthamer.data.crop.Cropping`; each process has a detector of its own.

    A runtime's session neither survives a fork with its threads nor can be sent to another process.

    Args:
        detector: makes a detector.
    """

    def __init__(self, detector: Callable[[], HandDetector]) -> None:
        self.detector = detector
        self._opened: tuple[int, HandDetector] | None = None  # and by which process

    def __call__(self, image: NDArray[np.uint8], shape: str) -> list[Box]:
        """(H, W, 3) RGB and a box shape -> the boxes, the most certain hand first."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), self.detector()
        return hand_boxes(self._opened[1](image), shape)

    def __reduce__(self) -> tuple:
        return BoxFinder, (self.detector,)


def mediapipe_boxes() -> BoxFinder:
    """The boxes of the default detector, one thread in each process."""
    return BoxFinder(partial(MediaPipeDetector, threads=1))
