"""Reading images."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

JPEG_BEGIN, JPEG_END = b"\xff\xd8", b"\xff\xd9"
TAIL = 4096  # bytes among which a whole JPEG file has its end mark; some writers add something behind it


def read_image(path: Path) -> np.ndarray:
    """(H, W, 3) uint8, RGB, as the file stores it: a mark that it is to be turned is not followed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an image, or cut short.
    """
    try:
        return decode_image(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise FileNotFoundError(f"no image {path}") from None
    except OSError as error:
        raise ValueError(f"{path}: damaged image ({error}); copy or download it again") from None


def decode_image(data: bytes, source: str) -> np.ndarray:
    """An image file's content as (H, W, 3) uint8, RGB.

    Args:
        data: the file.
        source: its name, for errors.

    Raises:
        ValueError: not an image, or cut short.
    """
    # OpenCV is the faster reader; whether it refuses a JPEG cut short depends on its version, so look first.
    if data.startswith(JPEG_BEGIN) and JPEG_END in data[-TAIL:]:
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if image is not None:
            return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image))
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{source}: damaged image ({error}); copy or download it again") from None
