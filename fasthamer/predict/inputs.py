"""Checks of what users give with their images: boxes, sides, rotations, and one of each for a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fasthamer.data.crop import box_problem
from fasthamer.hand.sides import are_right


def is_batch(image: Any) -> bool:
    """Whether several images are given: a list or tuple of them, or an array or tensor of four axes."""
    return isinstance(image, list | tuple) or getattr(image, "ndim", 0) == 4


def for_each_image(name: str, values: Any, default: Any, count: int) -> Sequence[Any]:
    """An option of a batch, one value for each image.

    Raises:
        ValueError: not the default and not `count` values.
    """
    if values is default or values is None:
        return [values] * count
    if not hasattr(values, "__len__") or isinstance(values, str) or len(values) != count:
        raise ValueError(f"{name} is given for a batch of {count} images: give a list with one entry for each image")
    return values


def given_boxes(
    boxes: ArrayLike, right: ArrayLike, width: int, height: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Boxes (N, 4) in an image of `width` x `height` pixels, and whether each is a right hand's (N,)."""
    boxes = np.asarray(boxes, np.float64)
    if boxes.size == 0:
        boxes = boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes have shape {boxes.shape}; expected (N, 4): x1, y1, x2, y2 in pixels")
    good = np.isfinite(boxes).all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)
    if not good.all():
        index = int(np.argmin(good))
        raise ValueError(f"box {index} is {boxes[index].tolist()}; expected x1 < x2 and y1 < y2")
    for index, box in enumerate(boxes):
        if problem := box_problem(box[:2], box[2:], width, height):
            raise ValueError(f"box {index}, {box.tolist()}, {problem}")
    is_right = are_right(right)
    if is_right.ndim > 1:
        raise ValueError(f"right has shape {is_right.shape}; expected (N,), or one for all")
    if is_right.ndim and len(is_right) != len(boxes):
        raise ValueError(f"{len(boxes)} boxes but {len(is_right)} values of right: give one for each, or one for all")
    return boxes, np.broadcast_to(is_right, len(boxes)).copy()


def given_rotation(rotation: ArrayLike, count: int, shape: str) -> list[float]:
    """One number for each of `count` boxes, degrees."""
    rotation = np.asarray(rotation, np.float64)
    if rotation.ndim > 1 or (rotation.ndim and len(rotation) != count) or not np.isfinite(rotation).all():
        raise ValueError(f"rotation is {rotation.tolist()} for {count} boxes: give degrees for each, or one for all")
    if shape != "upright" and rotation.any():
        raise ValueError(f"this model's boxes are {shape} and do not turn: rotation is for a model of upright boxes")
    return np.broadcast_to(rotation, count).tolist()
