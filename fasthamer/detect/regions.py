"""Turned squares around hands: what the landmark network sees, with the fingers up."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthamer.data.crop import crop_affine
from fasthamer.hand.conventions import MIDDLE_KNUCKLE, WRIST

PALM_WRIST, PALM_KNUCKLE = 0, 2  # of the palm's seven keypoints: wrist, knuckle of the middle finger
INDEX_KNUCKLE, RING_KNUCKLE = 5, 13  # of the 21 landmarks
WITHOUT_ENDS = [0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18]  # landmarks that move little when fingers bend
# Sizes and shifts that the landmark network was trained with, as MediaPipe's graphs state them.
PALM_SCALE, PALM_SHIFT = 2.6, 0.5
LANDMARK_SCALE, LANDMARK_SHIFT = 2.0, 0.1
BOX_SCALE = 1.5  # of a tight box around all 21 landmarks


class Region(NamedTuple):
    """A square, turned clockwise as seen."""

    centre: NDArray[np.float64]  # (2,) pixels of the image
    side: float  # pixels
    rotation: float  # degrees; 0: its upper edge is up

    def affine(self, size: int) -> NDArray[np.float64]:
        """(2, 3) from pixels of the image to those of a crop with `size` pixels."""
        return crop_affine(self.centre, self.side, size, self.rotation)


def clockwise(direction: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far directions (..., 2) of the image are turned clockwise from up, degrees from -180 to 180."""
    return np.degrees(np.arctan2(direction[..., 0], -direction[..., 1]))


def hand_rotation(landmarks: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far hands (..., 21, 2) are turned clockwise as seen: 0 with the middle finger's knuckle above the wrist."""
    return clockwise(landmarks[..., MIDDLE_KNUCKLE, :] - landmarks[..., WRIST, :])


def palm_region(box: NDArray[np.float64], keypoints: NDArray[np.float64]) -> Region:
    """The whole hand of a palm: box (4,), keypoints (7, 2)."""
    rotation = float(clockwise(keypoints[PALM_KNUCKLE] - keypoints[PALM_WRIST]))
    width, height = (box[2:] - box[:2]).tolist()
    centre = (box[:2] + box[2:]) / 2 + PALM_SHIFT * height * _up(rotation)
    return Region(centre, PALM_SCALE * max(width, height), rotation)


def landmark_region(landmarks: NDArray[np.float64]) -> Region:
    """The square with which landmarks (21, 2) are found once more, more exactly than with the palm's."""
    knuckles = (landmarks[INDEX_KNUCKLE] + landmarks[RING_KNUCKLE]) / 4 + landmarks[MIDDLE_KNUCKLE] / 2
    rotation = float(clockwise(knuckles - landmarks[WRIST]))
    up = _up(rotation)
    axes = np.stack((np.array([-up[1], up[0]]), -up))  # right and down of the turned square
    turned = landmarks[WITHOUT_ENDS] @ axes.T
    low, high = turned.min(0), turned.max(0)
    width, height = (high - low).tolist()
    centre = (low + high) / 2 @ axes + LANDMARK_SHIFT * height * up
    return Region(centre, LANDMARK_SCALE * max(width, height), rotation)


def box_region(box: NDArray[np.float64], rotation: float) -> Region:
    """The square around a tight box (4,) of a hand that is turned by so many degrees."""
    return Region((box[:2] + box[2:]) / 2, BOX_SCALE * float((box[2:] - box[:2]).max()), rotation)


def turn_back(points: NDArray[np.float64], rotation: float) -> NDArray[np.float64]:
    """3D points (..., 3) in the axes of a region to the camera's axes."""
    cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    x, y = points[..., 0], points[..., 1]
    return np.stack((cos * x - sin * y, sin * x + cos * y, points[..., 2]), -1)


def _up(rotation: float) -> NDArray[np.float64]:
    return np.array([math.sin(math.radians(rotation)), -math.cos(math.radians(rotation))])
