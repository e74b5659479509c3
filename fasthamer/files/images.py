"""Reading and writing images."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from fasthamer.files.atomic import write_bytes

JPEG_BEGIN, JPEG_END = b"\xff\xd8", b"\xff\xd9"
TAIL = 4096  # bytes among which a whole JPEG file has its end mark; some writers add something behind it


def read_image(path: Path) -> np.ndarray:
    """(H, W, 3) uint8, RGB, as the file stores it: an EXIF orientation is ignored.

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
        with Image.open(io.BytesIO(data)) as image_file:
            return np.asarray(image_file.convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{source}: damaged image ({error}); copy or download it again") from None


def write_image(path: str | Path, image: np.ndarray, quality: int = 95) -> None:
    """Writes an image file completely or not at all; its folder is created if it is missing.

    Args:
        path: ends in .png, .jpg or another format of OpenCV.
        image: (H, W, 3) uint8, RGB.
        quality: of a JPEG file.

    Raises:
        ValueError: an unknown format.
        OSError: the file cannot be written.
    """
    path = Path(path)
    try:
        content = encode_image(image, path.suffix, quality)
    except ValueError as error:
        raise ValueError(f"cannot write {path}: {error}") from None
    write_bytes(path, content)


def encode_image(image: np.ndarray, suffix: str, quality: int = 95) -> bytes:
    """The content of an image file; arguments and errors as `write_image`."""
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix.lower() in (".jpg", ".jpeg") else []
    try:
        done, content = cv2.imencode(suffix, np.ascontiguousarray(image[..., ::-1]), flags)
    except cv2.error:
        done, content = False, None
    if not done or content is None:
        raise ValueError(f"OpenCV has no image format {suffix!r}; use .png or .jpg")
    return content.tobytes()
