"""HaMeR's crop: a square box around the hand, warped to the network's input; left hands are mirrored.

A box of the shape `upright` also turns, so that its crop shows the middle knuckle straight above the wrist.

Pixels are counted at their centres (the first is 0), and a crop of side S puts the box's centre at S/2, so crop units
are pixel / S - 0.5. The same computation as HaMeR's `datasets/utils.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from fasthamer.hand.conventions import MIDDLE_KNUCKLE, WRIST
from fasthamer.registry import unknown

LARGEST_SIDE = 1e6  # pixels of a crop
BOX_FACTOR = 2.0  # the box is this much larger than the hand's keypoints; HaMeR's demo uses the same
BOX_SHAPES = {  # width, height that a box grows to before its larger side is taken
    "hamer": (192, 256),  # the input of HaMeR's backbone, the middle of its 256-pixel crop
    "square": (256, 256),  # Fast-HaMeR's convolutional students take the whole crop
    "upright": (256, 256),  # square, and turned with the hand, see `upright_rotation`
}


class Box(NamedTuple):
    """The square of an image that is cropped around a hand."""

    centre: np.ndarray  # (2,) pixels
    side: float  # pixels
    rotation: float = 0.0  # degrees; the box is turned about its centre, clockwise as seen in the image, as the hand is


FindBoxes = Callable[[np.ndarray, str], Sequence[Box]]  # (H, W, 3) RGB, a box shape -> a box for each hand


class Cropping(NamedTuple):
    """How a dataset crops."""

    shape: str = "hamer"  # one of `BOX_SHAPES`
    blur: bool = False  # see `warp`; HaMeR's training and evaluation do not blur
    find: FindBoxes | None = None  # finds the boxes in the image; None: they are those of the labels


CROPPING = Cropping()  # HaMeR's in training and evaluation


def keypoint_box(points: np.ndarray, shape: str = "hamer", rotation: float = 0.0) -> Box:
    """The square box around points: `BOX_FACTOR` times their extents, expanded to an aspect ratio.

    Args:
        points: (N, 2) pixels, such as the corners of a tight box.
        shape: one of `BOX_SHAPES`.
        rotation: degrees, of the box; the extents are those along its sides.

    Returns:
        The side is at least 2.
    """
    turn = turn_matrix(rotation)[:2, :2]
    seen = points @ turn.T
    low, high = seen.min(0), seen.max(0)
    return Box((low + high) / 2 @ turn, box_side((high - low) * BOX_FACTOR, shape), rotation)


def hand_box(keypoints: np.ndarray, shape: str = "hamer") -> Box:
    """The square box around the known keypoints of a hand, turned if its shape is `upright`.

    Args:
        keypoints: (21, 3) pixels and confidence, OpenPose order.
        shape: one of `BOX_SHAPES`.
    """
    return keypoint_box(keypoints[keypoints[:, 2] > 0, :2], shape, shape_rotation(shape, keypoints))


def shape_rotation(shape: str, keypoints: np.ndarray | None) -> float:
    """Degrees by which a box of a shape turns around a hand: 0 except for `upright`, and 0 without keypoints."""
    return 0.0 if shape != "upright" or keypoints is None else upright_rotation(keypoints)


def upright_rotation(keypoints: np.ndarray) -> float:
    """How far a hand is turned clockwise from the pose in which its middle knuckle is straight above its wrist.

    Args:
        keypoints: (21, 3) pixels and confidence, OpenPose order, in an image that is not mirrored.

    Returns:
        Degrees, -180 to 180; 0 if wrist or middle knuckle is unknown, or both coincide.
    """
    wrist, knuckle = keypoints[WRIST], keypoints[MIDDLE_KNUCKLE]
    x, y = (knuckle[:2] - wrist[:2]).tolist()
    known = wrist[2] > 0 and knuckle[2] > 0 and (x, y) != (0, 0)
    return math.degrees(math.atan2(x, -y)) if known else 0.0


def image_box(width: int, height: int, shape: str = "hamer") -> Box:
    """The box with which HaMeR evaluates FreiHAND: the whole image fills the backbone's input."""
    return Box(np.array([width / 2, height / 2]), box_side(np.array([width, height], dtype=float), shape))


def chosen_box(found: Sequence[Box], labelled: Box, width: int, height: int, shape: str = "hamer") -> Box:
    """The found box that overlaps the labelled one most; the whole image if none does.

    The middle halves of the boxes are compared, which the hands fill: larger, those of neighbouring hands overlap.

    Args:
        found: in an image of `width` and `height` pixels.
        labelled: the hand that is looked for.
        shape: of the whole image's box.
    """
    overlaps = [_overlap(box, labelled) for box in found]
    if not overlaps or max(overlaps) <= 0:
        return image_box(width, height, shape)
    return found[overlaps.index(max(overlaps))]


def _overlap(one: Box, other: Box) -> float:
    """Intersection over union of the middle halves of two boxes, turned back."""
    low = np.maximum(one.centre - one.side / 4, other.centre - other.side / 4)
    high = np.minimum(one.centre + one.side / 4, other.centre + other.side / 4)
    common = float((high - low).clip(min=0).prod())
    return common / (one.side**2 / 4 + other.side**2 / 4 - common)


def box_side(extent: np.ndarray, shape: str = "hamer") -> float:
    """The larger side of a box (width, height) after it grew to the aspect ratio of a shape; at least 2 pixels.

    Raises:
        KeyError: no such shape.
    """
    if shape not in BOX_SHAPES:
        raise KeyError(unknown("box shape", shape, BOX_SHAPES))
    width, height = BOX_SHAPES[shape]
    return max(float(extent[1]), float(extent[0]) * height / width, 2.0)


def shape_for(model: object) -> str:
    """The box shape of a model's crops: its attribute `box_shape`; HaMeR's for a model without one."""
    return getattr(model, "box_shape", "hamer")


def box_problem(low: np.ndarray, high: np.ndarray, width: int | None = None, height: int | None = None) -> str | None:
    """Why a hand's tight box cannot be one in its image; None if it can. It may reach beyond the image.

    Args:
        low: (2,) upper left corner, pixels.
        high: (2,) lower right corner.
        width, height: of the image; None: only the box's own numbers are checked.
    """
    extent = float((high - low).max())
    if extent < (2.0 if width is None or height is None else min(2, max(width, height))):
        return f"is {extent:.3g} pixels large: is it normalised to 0..1? Boxes are in pixels of the image"
    if width is not None and height is not None and ((high <= 0).any() or (low >= (width, height)).any()):
        return f"lies outside of the {width}x{height} image"
    return None


def crop_affine(centre: np.ndarray, side: float, size: int, rotation: float = 0.0, mirror: bool = False) -> np.ndarray:
    """The map from pixels of the image to pixels of the crop.

    Args:
        centre: (2,) pixels of the image before mirroring.
        side: pixels of the image.
        size: pixels of the crop.
        rotation: degrees; the box turns by it clockwise as seen in the image after mirroring, its content the other
            way: minus `Box.rotation` for a left hand.
        mirror: whether the image is mirrored first (a left hand), together with its box.

    Returns:
        (2, 3) float64, for column vectors (x, y, 1).
    """
    zoom, x, y = size / side, float(centre[0]), float(centre[1])
    cos, sin = math.cos(math.radians(rotation)) * zoom, math.sin(math.radians(rotation)) * zoom
    sign = -1.0 if mirror else 1.0
    return np.array(
        [
            [sign * cos, sin, size / 2 - (sign * cos * x + sin * y)],
            [-sign * sin, cos, size / 2 - (-sign * sin * x + cos * y)],
        ]
    )


def warp(image: np.ndarray, affine: np.ndarray, size: int, blur: bool = True) -> np.ndarray:
    """The crop: bilinear, black outside of the image.

    Args:
        image: (H, W, C) uint8.
        affine: (2, 3) from `crop_affine`.
        size: pixels.
        blur: blur the image first where it shrinks by more than 2.2 times: HaMeR's demo does, its training and its
            evaluation do not.

    Returns:
        (size, size, C) uint8.
    """
    (a, b, _), (c, d, _) = affine.tolist()
    shrink = 0.5 / math.sqrt(abs(a * d - b * c))
    if blur and shrink > 1.1:
        image = cv2.GaussianBlur(image, (0, 0), (shrink - 1) / 2)
    return cv2.warpAffine(image, affine, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def transform(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(N, 2) points through a (2, 3) affine map."""
    return points @ affine[:, :2].T + affine[:, 2]


def invert(affine: np.ndarray) -> np.ndarray:
    """The map back, (2, 3)."""
    linear = np.linalg.inv(affine[:, :2])
    return np.column_stack((linear, -linear @ affine[:, 2]))


def to_crop_units(pixels: np.ndarray, size: int) -> np.ndarray:
    """Pixels of a crop to [-0.5, 0.5]."""
    return pixels / size - 0.5


def turn_matrix(rotation: float | np.ndarray) -> np.ndarray:
    """How a crop's content turns when its box turns.

    Args:
        rotation: degrees, (...), see `crop_affine`.

    Returns:
        (..., 3, 3) rotation about the viewing axis for 3D points; its upper left part (..., 2, 2) is for pixels.
    """
    cos, sin = np.cos(np.radians(rotation)), np.sin(np.radians(rotation))
    zero, one = np.zeros_like(cos), np.ones_like(cos)
    rows = [np.stack(row, -1) for row in ((cos, sin, zero), (-sin, cos, zero), (zero, zero, one))]
    return np.stack(rows, -2)


def to_image_axes(points: np.ndarray, affines: np.ndarray, left: np.ndarray) -> np.ndarray:
    """3D points of hands in their crops, in the axes of the images: turned back, left hands mirrored back.

    Args:
        points: (N, K, 3) any unit.
        affines: (N, 2, 3) from `crop_affine`.
        left: (N,) whether the crop was mirrored.

    Returns:
        (N, K, 3) of the dtype of `points`; exactly the same numbers where a crop is neither turned nor mirrored.
    """
    upright = points @ turn_matrix(crop_rotation(affines)).astype(points.dtype)
    return np.where(left[:, None, None], mirror_points(upright), upright)


def crop_rotation(affines: np.ndarray) -> np.ndarray:
    """The rotation (N,) in degrees that `crop_affine` made the maps (N, 2, 3) with."""
    return np.degrees(np.arctan2(affines[:, 0, 1], affines[:, 1, 1]))


def mirror_points(points: np.ndarray) -> np.ndarray:
    """A left hand's 3D points (..., 3) to the right hand's in the mirrored image, and back."""
    return points * np.array([-1, 1, 1], dtype=points.dtype)


def mirror_axis_angle(axis_angle: np.ndarray) -> np.ndarray:
    """A left hand's rotations (..., 3) to those of the mirrored hand, and back."""
    return axis_angle * np.array([1, -1, -1], dtype=axis_angle.dtype)
