"""HaMeR's training augmentation: drawn once per sample, then applied to image, points and rotations."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

LEVELS = np.arange(256.0)


class Strength(NamedTuple):
    """How strong the augmentation is; `fasthamer.config`, section AUGMENT, explains each number."""

    scale: float = 0.3
    rotation: float = 30.0  # degrees
    rotation_probability: float = 0.6
    shift: float = 0.02
    colour: float = 0.2


UNCHANGED = Strength(0.0, 0.0, 0.0, 0.0, 0.0)  # crops as they are


class Augmentation(NamedTuple):
    """The augmentation of one sample; the defaults change nothing."""

    scale: float = 1.0  # of the box
    rotation: float = 0.0  # degrees that the box turns beyond its own rotation: clockwise as seen after mirroring
    shift: tuple[float, float] = (0.0, 0.0)  # of the box, in its sides, before it turns
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)  # factors of red, green, blue


def draw(rng: np.random.Generator, strength: Strength) -> Augmentation:
    """A random augmentation with HaMeR's distributions.

    Normal distributions are clipped as HaMeR does: scale and shift at one standard deviation, rotation at two.
    """
    scale, rotation, shift_x, shift_y = rng.standard_normal(4).tolist()
    turn = rng.random() < strength.rotation_probability
    red, green, blue = rng.uniform(1 - strength.colour, 1 + strength.colour, 3).tolist()
    return Augmentation(
        scale=1 + _clipped(scale, 1) * strength.scale,
        rotation=_clipped(rotation, 2) * strength.rotation if turn else 0.0,
        shift=(_clipped(shift_x, 1) * strength.shift, _clipped(shift_y, 1) * strength.shift),
        colour=(red, green, blue),
    )


def _clipped(value: float, most: float) -> float:
    return max(-most, min(most, value))


def move_box(centre: np.ndarray, side: float, augmentation: Augmentation) -> tuple[np.ndarray, float]:
    """Centre and side of the augmented box, without its rotation, see `crop.crop_affine`."""
    return centre + side * np.array(augmentation.shift), side * augmentation.scale


def recoloured_planes(image: np.ndarray, augmentation: Augmentation) -> np.ndarray:
    """The channels of a crop, each multiplied and clipped to 255.

    Args:
        image: (H, W, 3) uint8, or with a fourth channel that is ignored.
        augmentation: its colour is used.

    Returns:
        (3, H, W) uint8.
    """
    planes = np.empty((3, *image.shape[:2]), np.uint8)
    tables = None
    if augmentation.colour != (1.0, 1.0, 1.0):
        tables = np.minimum(np.rint(LEVELS * np.array(augmentation.colour)[:, None]), 255).astype(np.uint8)
    for channel, plane in enumerate(planes):
        cv2.extractChannel(image, channel, dst=plane)
        if tables is not None:
            cv2.LUT(plane, tables[channel], dst=plane)
    return planes
