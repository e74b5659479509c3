"""Crops for int8 calibration and for parity checks: synthetic hands with labels, or images of hands."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthamer.data.crop import crop_affine, image_box, warp
from fasthamer.data.synthetic.dataset import SyntheticDataset
from fasthamer.files.images import read_image
from fasthamer.hand.mano import Hand

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


class LabelledCrops(NamedTuple):
    """Synthetic crops and their labels. N = crops."""

    images: NDArray[np.uint8]  # (N, 3, S, S)
    joints: NDArray[np.float32]  # (N, 21, 3) metres
    vertices: NDArray[np.float32]  # (N, 778, 3)


def synthetic_crops(hand: Hand, count: int, size: int, seed: int, shape: str = "hamer") -> LabelledCrops:
    """`count` synthetic images of a hand, `size` pixels, in boxes of a shape; calibration and checks differ in seed."""
    drawn = SyntheticDataset(hand, count, seed, size, shape=shape)
    items = [drawn[(0, index)] for index in range(count)]
    images, joints, vertices = (
        np.stack([getattr(item, name).numpy() for item in items]) for name in ("image", "joints", "vertices")
    )
    return LabelledCrops(images, joints[..., :3], vertices)


def image_crops(folder: str | Path, size: int) -> NDArray[np.uint8]:
    """(N, 3, size, size): every image of a folder, whole and upright, as HaMeR evaluates FreiHAND.

    Raises:
        FileNotFoundError: no such folder, or no image in it.
        ValueError: a damaged image, or one without 8-bit RGB values.
    """
    if Path(folder).is_file():
        raise FileNotFoundError(f"{folder} is a file; give its folder")
    paths = sorted(path for path in Path(folder).glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise FileNotFoundError(f"no images ({', '.join(IMAGE_SUFFIXES)}) in {folder}")
    crops = []
    for path in paths:
        image = read_image(path)
        box = image_box(image.shape[1], image.shape[0])
        crops.append(warp(image, crop_affine(box.centre, box.side, size), size).transpose(2, 0, 1))
    return np.stack(crops)
