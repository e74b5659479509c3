"""Landmarks of hands whose place in the image is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fasthamer.data.crop import invert, transform
from fasthamer.detect.inference import LANDMARK_SIZE, Network
from fasthamer.detect.regions import Region, box_region, landmark_region, turn_back
from fasthamer.detect.sampling import as_input, sample

PRESENT = 0.5  # a crop with less presence shows no hand
TURNS = (0.0, 90.0, 180.0, 270.0)  # degrees tried for a box, in this order
BATCH = 16  # crops at once


class Landmarks(NamedTuple):
    """Landmarks of N hands of one image."""

    points: NDArray[np.float64]  # (N, 21, 2) pixels of the image, OpenPose order
    presence: NDArray[np.float64]  # (N,) probability that a hand is there
    right: NDArray[np.float64]  # (N,) probability that it is a right hand
    world: NDArray[np.float64]  # (N, 21, 3) metres, see `Detections.world`

    def take(self, index: NDArray) -> Landmarks:
        """Some of them, by index or mask."""
        return Landmarks(*(field[index] for field in self))


class LandmarkReader:
    """Reads landmarks with the landmark network.

    Args:
        network: see `fasthamer.detect.inference`.
        refine: read once more, in the square that the first landmarks give.
    """

    def __init__(self, network: Network, refine: bool = True) -> None:
        self.network, self.refine = network, refine

    def in_regions(self, image: NDArray[np.uint8], regions: Sequence[Region]) -> Landmarks:
        """The hands in turned squares of an image (H, W, 3); a second look is kept where it still shows a hand."""
        first = self._once(image, regions)
        again = np.flatnonzero(first.presence >= PRESENT) if self.refine else np.arange(0)
        if not len(again):
            return first
        second = self._once(image, [landmark_region(first.points[hand]) for hand in again])
        better = second.presence >= PRESENT
        for field, new in zip(first, second, strict=True):
            field[again[better]] = new[better]
        return first

    def in_boxes(self, image: NDArray[np.uint8], boxes: ArrayLike, rotation: ArrayLike | None = None) -> Landmarks:
        """The hands in tight boxes.

        Args:
            image: (H, W, 3) uint8 RGB.
            boxes: (N, 4) x1, y1, x2, y2 pixels.
            rotation: (N,) degrees by which each hand is turned clockwise, or one for all; None tries upright, then a
                quarter, half and three quarters of a turn for the hands that are not found yet.

        Returns:
            `Landmarks`; a hand that was not found has a presence below 0.5, and its points mean nothing.
        """
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        if rotation is not None:
            turned = np.broadcast_to(np.asarray(rotation, np.float64), len(boxes))
            return self.in_regions(image, [box_region(*pair) for pair in zip(boxes, turned.tolist(), strict=True)])
        best = self.in_regions(image, [box_region(box, TURNS[0]) for box in boxes])
        for turn in TURNS[1:]:
            missing = np.flatnonzero(best.presence < PRESENT)
            found = self.in_regions(image, [box_region(box, turn) for box in boxes[missing]])
            better = found.presence > best.presence[missing]
            for field, new in zip(best, found, strict=True):
                field[missing[better]] = new[better]
        return best

    def _once(self, image: NDArray[np.uint8], regions: Sequence[Region]) -> Landmarks:
        batches = [self._batch(image, regions[first : first + BATCH]) for first in range(0, len(regions), BATCH)]
        if not batches:
            return Landmarks(np.zeros((0, 21, 2)), np.zeros(0), np.zeros(0), np.zeros((0, 21, 3)))
        return Landmarks(*(np.concatenate(fields) for fields in zip(*batches, strict=True)))

    def _batch(self, image: NDArray[np.uint8], regions: Sequence[Region]) -> Landmarks:
        affines = [region.affine(LANDMARK_SIZE) for region in regions]
        crops = as_input([sample(image, affine, LANDMARK_SIZE, repeat=True) for affine in affines])
        landmarks, presence, right, world = (values.astype(np.float64) for values in self.network(crops))
        points = [transform(invert(affine), each[:, :2]) for affine, each in zip(affines, landmarks, strict=True)]
        turned = [turn_back(each, region.rotation) for region, each in zip(regions, world, strict=True)]
        return Landmarks(np.stack(points), presence, right, np.stack(turned))
