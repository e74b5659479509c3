"""Crops to calibrate and check exported models with: synthetic hands with their truth, or photographs of hands."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthamer.data.crop import crop_affine, image_box, warp
from fasthamer.data.synthetic.dataset import SyntheticHands
from fasthamer.files.images import read_picture
from fasthamer.hand.mano import Hand

PICTURES = (".jpg", ".jpeg", ".png")


class Labelled(NamedTuple):
    """Synthetic crops and what they show. N = crops."""

    images: NDArray[np.uint8]  # (N, 3, S, S)
    joints: NDArray[np.float32]  # (N, 21, 3) metres
    vertices: NDArray[np.float32]  # (N, 778, 3)


def synthetic_crops(hand: Hand, count: int, size: int, seed: int) -> Labelled:
    """`count` drawings of a hand, `size` pixels; what is calibrated and what is checked take different seeds."""
    drawn = SyntheticHands(hand, count, seed, size)
    items = [drawn[(0, index)] for index in range(count)]
    images, joints, vertices = (
        np.stack([getattr(item, name).numpy() for item in items]) for name in ("image", "joints", "vertices")
    )
    return Labelled(images, joints[..., :3], vertices)


def photograph_crops(folder: str | Path, size: int) -> NDArray[np.uint8]:
    """(N, 3, size, size): every picture of a folder, whole, as HaMeR evaluates FreiHAND.

    Raises:
        FileNotFoundError: no such folder, or no picture in it.
        ValueError: a damaged picture.
    """
    paths = sorted(path for path in Path(folder).glob("*") if path.suffix.lower() in PICTURES)
    if not paths:
        raise FileNotFoundError(f"no pictures ({', '.join(PICTURES)}) in {folder}")
    crops = []
    for path in paths:
        picture = read_picture(path)
        centre, side = image_box(picture.shape[1], picture.shape[0])
        crops.append(warp(picture, crop_affine(centre, side, size), size).transpose(2, 0, 1))
    return np.stack(crops)
