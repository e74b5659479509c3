"""From an image as Pillow opens it to (H, W, 3) uint8 RGB: bit depths, palettes, transparency, EXIF orientation.

| pixels | result |
|---|---|
| 8-bit RGB, grey, palette, 1 bit, YCbCr, HSV | as Pillow converts them |
| 9 to 16 bits a channel | the upper 8 bits |
| CMYK | (255 - C)(255 - K) / 255 and so on; colour profiles are not applied |
| transparency | over black, as the crop is outside of the image |
| floats, 32-bit integers, CIE Lab | refused: they have no fixed black and white |

Of several frames or pages the first is taken.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BAND = 1 << 24  # pixels that are converted at once
ORIENTATION = 0x0112  # the EXIF and TIFF tag
EXIF_TAGS, EQUIVALENT_FOCAL = 0x8769, 0xA405  # the block of camera settings, in it the focal length for 35 mm film
Upright = bool | tuple[int, int]
"""Whether an EXIF orientation is applied. (width, height): the size that an image was annotated with; an orientation
that swaps width and height is then applied unless only the stored size is this one."""

_PLAIN = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV")
_ALPHA = ("LA", "PA", "RGBA", "La", "RGBa")
_WIDTH, _HEIGHT, _BIT_DEPTHS, _PHOTOMETRIC, _SUBFILE, _RAW_VERSION = 256, 257, 258, 262, 254, 50706  # TIFF tags


class UnsupportedPixelsError(ValueError):
    """An intact image whose pixels have no defined 8-bit RGB values; the message begins with what it has."""


def rgb_pixels(image: Image.Image, upright: Upright = True) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, RGB.

    Args:
        image: opened by Pillow, decoded or not.
        upright: see `Upright`.

    Raises:
        UnsupportedPixelsError: see the table above.
        Exception: whatever Pillow raises for a damaged file.
    """
    pixels = _pixels(image)
    return turned(pixels, orientation_mark(image), upright)


def orientation_mark(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 without one, or with one that is no such number.

    Pillow applies the orientation of TIFF files itself, so theirs is 1.
    """
    if image.format == "TIFF":
        return 1
    try:
        mark = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged metadata raise anything; viewers ignore them
        return 1
    return mark if isinstance(mark, int) and 1 <= mark <= 8 else 1


def equivalent_focal(image: Image.Image) -> float | None:
    """The 35 mm equivalent of the focal length in an image's EXIF data, mm; None without one."""
    try:
        value = float(image.getexif().get_ifd(EXIF_TAGS).get(EQUIVALENT_FOCAL, 0))
    except Exception:  # damaged metadata raise anything; viewers ignore them
        return None
    return value if 0 < value < np.inf else None  # 0 is EXIF's "unknown"


def opened_size(image: Image.Image) -> tuple[int, int]:
    """Width and height after decoding: before it, some versions of Pillow give those of a TIFF file as stored."""
    tags = getattr(image, "tag_v2", {})
    if image.format != "TIFF" or _WIDTH not in tags or _HEIGHT not in tags:
        return image.size
    width, height = int(tags[_WIDTH]), int(tags[_HEIGHT])
    return (height, width) if tags.get(ORIENTATION, 1) in (5, 6, 7, 8) else (width, height)


def turned(pixels: NDArray[np.uint8], mark: int, upright: Upright = True) -> NDArray[np.uint8]:
    """An image as it is to be seen.

    Args:
        pixels: (H, W, 3), as stored.
        mark: its EXIF orientation.
        upright: see `Upright`.
    """
    mark = applied_mark(mark, pixels.shape[1], pixels.shape[0], upright)
    if mark == 1:
        return pixels
    if mark >= 5:
        pixels = pixels.swapaxes(0, 1)
    if mark in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if mark in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def applied_mark(mark: int, width: int, height: int, upright: Upright) -> int:
    """The orientation that is applied to an image of this stored size: `mark`, or 1 for none."""
    if isinstance(upright, tuple):
        stored_fits, turned_fits = upright == (width, height), upright == (height, width)
        return 1 if mark >= 5 and stored_fits and not turned_fits else mark
    return mark if upright else 1


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    if image.format == "TIFF":
        _refuse_thumbnail(image)
    if image.mode.startswith("I"):
        return _of_grey(image)
    if image.mode in _ALPHA or "transparency" in image.info:
        return _over_black(image)
    if image.mode in _PLAIN:
        return _in_bands(image, lambda band: np.asarray(band if band.mode == "RGB" else band.convert("RGB")))
    kind = {"F": "32-bit float pixels", "LAB": "CIE Lab colours"}.get(image.mode, f"pixels of mode {image.mode}")
    raise UnsupportedPixelsError(f"{kind}, without a fixed black and white; save it as 8-bit JPEG or PNG")


def _of_grey(image: Image.Image) -> NDArray[np.uint8]:
    """Grey of more than 8 bits; the upper 8 of them."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BIT_DEPTHS, (16,))[0]
    if image.mode == "I" and image.format not in ("PNG", "PPM"):  # of these Pillow has 16 bits in mode I
        raise UnsupportedPixelsError(
            "32-bit or signed integer pixels, without a fixed white; save it as 8-bit JPEG or PNG"
        )
    if "transparency" in image.info:
        raise UnsupportedPixelsError("16-bit pixels with a transparent grey; save it as 8-bit PNG")
    inverted = tags.get(_PHOTOMETRIC) == 0  # white is 0; Pillow inverts it for 8 bits only

    def grey(band: Image.Image) -> NDArray[np.uint8]:
        values = (np.asarray(band).astype(np.int64).clip(0, (1 << bits) - 1) >> (bits - 8)).astype(np.uint8)
        return np.repeat((255 - values if inverted else values)[..., None], 3, -1)

    return _in_bands(image, grey)


def _over_black(image: Image.Image) -> NDArray[np.uint8]:
    tiles = getattr(image, "tile", None)  # where Pillow finds the pixels of a file, until it has decoded them
    raw = tiles[0][3] if tiles else None
    if "transparency" in image.info and raw in ("L;2", "L;4", "RGB;16B"):
        raise UnsupportedPixelsError("a transparent colour in other than 8 bits; save it as 8-bit PNG")
    if image.mode == "La":
        image = image.convert("LA")

    def blended(band: Image.Image) -> NDArray[np.uint8]:
        pixels = np.asarray(band.convert("RGBA")).astype(np.uint16)
        return ((pixels[..., :3] * pixels[..., 3:] + 127) // 255).astype(np.uint8)

    return _in_bands(image, blended)


def _in_bands(image: Image.Image, convert: Callable[[Image.Image], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """(H, W, 3): a large image is converted a few rows at a time, which takes a fraction of the memory."""
    width, height = image.size
    if width * height <= BAND:
        return convert(image)
    image.load()
    width, height = image.size  # decoding may turn it
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, BAND // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        pixels[top:bottom] = convert(image.crop((0, top, width, bottom)))
    return pixels


def _refuse_thumbnail(image: Image.Image) -> None:
    """Raises for raw files of cameras: Pillow takes the small preview that they begin with for the image."""
    tags = getattr(image, "tag_v2", {})
    if _RAW_VERSION in tags or tags.get(_SUBFILE, 0) & 1:
        raise UnsupportedPixelsError("a camera's raw pixels behind a preview; convert it to JPEG or PNG")
