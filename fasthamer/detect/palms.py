"""Palms from the palm network's output: anchors, boxes in the image, weighted non-maximum suppression, tiles."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthamer.data.crop import crop_affine, invert, transform

SIZE = 192  # pixels of the network's input
CELLS = ((8, 2), (16, 6))  # stride of a map, anchors of each of its cells
OVERLAP = 0.3  # intersection over union above which two palms are one
TILE_OVERLAP = 0.25  # share of a tile's side that the next one repeats


class Palms(NamedTuple):
    """Palms of one image."""

    boxes: NDArray[np.float64]  # (N, 4) x1, y1, x2, y2 pixels
    keypoints: NDArray[np.float64]  # (N, 7, 2) pixels; 0 is the wrist, 2 the knuckle of the middle finger
    score: NDArray[np.float64]  # (N,)

    def take(self, index: NDArray) -> Palms:
        """Some of them, by index or mask."""
        return Palms(*(field[index] for field in self))


def anchors() -> NDArray[np.float64]:
    """(2016, 2) centres of the anchors, pixels of the network's input: by map, row, column, anchor of the cell."""
    centres = []
    for stride, count in CELLS:
        middle = (np.arange(SIZE // stride) + 0.5) * stride
        y, x = np.meshgrid(middle, middle, indexing="ij")
        centres.append(np.repeat(np.stack((x, y), -1).reshape(-1, 2), count, axis=0))
    return np.concatenate(centres)


def window_affine(window: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2, 3) from pixels of the image to the network's input: a window x1, y1, x2, y2 in its middle, the rest black."""
    low, high = window[:2], window[2:]
    return crop_affine((low + high) / 2, float((high - low).max()), SIZE)


def windows(width: int, height: int, tiles: int) -> NDArray[np.float64]:
    """The whole image, then tiles x tiles overlapping parts of it; only the whole image for 1 tile.

    Returns:
        (1 or 1 + tiles^2, 4) x1, y1, x2, y2 pixels.
    """
    whole = np.array([[0.0, 0.0, width, height]])
    if tiles == 1:
        return whole
    share = 1 / (1 + (tiles - 1) * (1 - TILE_OVERLAP))  # of the image's side
    first = np.arange(tiles) * share * (1 - TILE_OVERLAP)
    y, x = np.meshgrid(first, first, indexing="ij")
    low = np.stack((x, y), -1).reshape(-1, 2)
    return np.concatenate((whole, np.concatenate((low, low + share), 1) * [width, height, width, height]))


def decode(values: NDArray, logits: NDArray, affine: NDArray[np.float64], least: float) -> Palms:
    """The palms that the network sees in one window.

    Args:
        values: (2016, 18) and
        logits: (2016,), the network's outputs.
        affine: (2, 3) of the window, from `window_affine`.
        least: a palm has at least this score.
    """
    score = 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -100, 100)))
    chosen = score >= least
    points = values[chosen].astype(np.float64).reshape(-1, 9, 2)
    half = points[:, 1] / 2
    centred = points + anchors()[chosen][:, None]
    back = invert(affine)
    corners = np.stack((centred[:, 0] - half, centred[:, 0] + half), 1)  # (N, 2, 2)
    boxes = transform(back, corners.reshape(-1, 2)).reshape(-1, 4)
    keypoints = transform(back, centred[:, 2:].reshape(-1, 2)).reshape(-1, 7, 2)
    return Palms(boxes, keypoints, score[chosen])


def join(parts: list[Palms]) -> Palms:
    """The palms of all windows."""
    return Palms(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))


def weighted_nms(palms: Palms, most: int, overlap: float = OVERLAP) -> Palms:
    """One palm for each group of overlapping ones: the average of their boxes and keypoints, weighted by score.

    Args:
        palms: candidates; those with an empty box are left out.
        most: the number of palms after which the search ends.
        overlap: palms with a larger intersection over union with the best of a group belong to it.

    Returns:
        at most `most` palms, the best first; each has the score of its group's best.
    """
    palms = palms.take(np.flatnonzero((palms.boxes[:, 2:] > palms.boxes[:, :2]).all(1)))
    rest = palms.take(np.argsort(-palms.score, kind="stable"))
    found = [rest.take(np.arange(0))]
    while len(rest.score) and len(found) <= most:
        group: NDArray[np.bool_] = box_overlap(rest.boxes[0], rest.boxes) > overlap
        weight = rest.score[group] / rest.score[group].sum()
        box = np.einsum("n,nk->k", weight, rest.boxes[group])
        keypoints = np.einsum("n,nkd->kd", weight, rest.keypoints[group])
        found.append(Palms(box[None], keypoints[None], rest.score[:1]))
        rest = rest.take(~group)
    return join(found)


def box_overlap(box: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) intersection over union of a box (4,) with each of the others (N, 4); boxes are not empty."""
    common = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    intersection = common.clip(min=0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return intersection / ((box[2:] - box[:2]).prod() + areas - intersection)
