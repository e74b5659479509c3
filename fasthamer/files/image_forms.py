"""The forms in which users give an image. Arrays need no Pillow, so that exported models run without it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from PIL import Image

    ImageLike = str | Path | Image.Image | NDArray[np.uint8] | torch.Tensor


def image_array(image: ImageLike) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, RGB.

    Args:
        image: a file's path or an image of Pillow, turned by its EXIF orientation; or an (H, W, 3) uint8 array or
            tensor; or a (3, H, W) uint8 tensor.

    Raises:
        FileNotFoundError: no such file.
        ValueError: anything else.
    """
    array: object = image
    if isinstance(image, str | Path):
        from fasthamer.files.images import read_image

        return read_image(Path(image))
    if hasattr(image, "getexif"):  # Pillow
        from fasthamer.files.images import pillow_pixels

        array = pillow_pixels(image)  # type: ignore[arg-type]
    elif hasattr(image, "detach"):  # torch
        array = image.detach().cpu().numpy()
        if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3:
            array = np.ascontiguousarray(array.transpose(1, 2, 0))
    expected = "expected (H, W, 3) uint8, RGB, an image of Pillow or a file's path"
    if not isinstance(array, np.ndarray):
        raise ValueError(f"the image is of type {type(image).__name__}; {expected}")
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or not array.size:
        raise ValueError(f"the image is {array.shape} {array.dtype}; {expected}")
    return array
