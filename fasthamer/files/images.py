"""Reading and writing images."""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path
from typing import IO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from fasthamer.files.atomic import write_bytes
from fasthamer.files.image_kinds import foreign_kind, is_common_image
from fasthamer.files.pixels import (
    UnsupportedPixelsError,
    Upright,
    applied_mark,
    equivalent_focal,
    opened_size,
    orientation_mark,
    rgb_pixels,
    turned,
)
from fasthamer.one_line import one_line

JPEG_BEGIN, JPEG_END = b"\xff\xd8", b"\xff\xd9"
JPEG_SCAN = b"\xff\xda"  # begins the compressed pixels, in which it does not occur
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # second bytes of the markers that begin a frame
LARGEST = 250_000_000  # pixels of a JPEG, of other kinds Pillow's 179 million; larger ones are refused
TAIL = 4096  # bytes among which a whole JPEG file has its end mark; some writers add something behind it


def read_image(path: Path, upright: Upright = True) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, RGB, of any pixel type in the table of `fasthamer.files.pixels`.

    Args:
        path: of the file.
        upright: whether an EXIF orientation is applied, as viewers and `cv2.imread` do; see `Upright`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an image, cut short, or of pixels that have no 8-bit RGB values; the message says what to do.
    """
    return decode_image(_content(path), str(path), upright)


def decode_image(content: bytes, source: str, upright: Upright = True) -> NDArray[np.uint8]:
    """An image file's content as (H, W, 3) uint8, RGB.

    Args:
        content: of the file.
        source: its name, for errors.
        upright: as of `read_image`.

    Raises:
        ValueError: as `read_image`.
    """
    # OpenCV is the faster reader; whether it refuses a JPEG cut short depends on its version, so look first.
    if is_whole_jpeg(content[:2], content):
        image = _decoded_jpeg(content, source)
        if image is not None:
            pixels = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image), np.uint8)
            return pixels if upright is False else turned(pixels, _jpeg_mark(content), upright)
    try:
        with Image.open(io.BytesIO(content)) as image_file:
            return rgb_pixels(image_file, upright)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise anything for damaged files
        raise ValueError(_complaint(source, content, error)) from None


def read_image_size(path: Path, upright: Upright = True) -> tuple[int, int]:
    """Width and height in pixels of what `read_image` gives, from the file's header.

    Args:
        path: of the file.
        upright: as of `read_image`. With it a PNG is decoded, since its orientation may follow its pixels.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an image.
    """
    width, height, mark = _header(path, marked=upright is not False)
    return (height, width) if applied_mark(mark, width, height, upright) >= 5 else (width, height)


def read_orientation(path: Path) -> int:
    """The EXIF orientation of an image file, 1 to 8; errors as `read_image_size`."""
    return _header(path, marked=True)[2]


def read_equivalent_focal(path: Path) -> float | None:
    """The 35 mm equivalent of the focal length in a file's EXIF data, mm; None without one, or without such a file."""
    try:
        require_file(path)
        with open(path, "rb") as file, _opened(file) as image:
            return equivalent_focal(image)
    except Exception:  # damaged files raise anything; reading their pixels gives the error
        return None


def pillow_pixels(image: Image.Image) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, RGB, of an image that the user has opened or made with Pillow, turned by its EXIF orientation.

    Raises:
        ValueError: as `read_image`.
    """
    try:
        return rgb_pixels(image)
    except Exception as error:  # Pillow decodes a file only now
        raise ValueError(_complaint("the image", b"", error)) from None


def is_whole_jpeg(begin: bytes, end: bytes) -> bool:
    """Whether a file is a JPEG with its end mark, and the mark is not that of a preview in its header.

    Args:
        begin: its first two bytes or more.
        end: its last `TAIL` bytes or more.
    """
    return begin.startswith(JPEG_BEGIN) and JPEG_END in end[-TAIL:] and end.rfind(JPEG_END) > end.rfind(JPEG_SCAN)


def require_file(path: Path) -> None:
    """A dataset's labels may name a device, which never ends, or a pipe, which never answers.

    Raises:
        OSError: no such file, or no ordinary one.
    """
    if "\0" in str(path):
        raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a folder is an error already
        raise OSError(errno.EINVAL, "it is a device or a pipe", str(path))


def _content(path: Path) -> bytes:
    try:
        require_file(path)
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> Exception:
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(f"no image {one_line(path)}")
    if isinstance(error, IsADirectoryError):
        return ValueError(f"{one_line(path)} is a folder: give an image file")
    return ValueError(f"{one_line(path)} cannot be read: {error.strerror or error}")


def _complaint(source: str, content: bytes, error: Exception) -> str:
    """Why an image could not be decoded, and what to do."""
    again = "copy or download it again"
    if isinstance(error, UnsupportedPixelsError):
        return f"{source} has {error}"
    if isinstance(error, Image.DecompressionBombError):
        return f"{source} is too large ({error}); make it smaller or save it as JPEG"
    if found := foreign_kind(content):
        return f"{source} is {found[0]}, which cannot be read as an image; {found[1]}"
    if not isinstance(error, UnidentifiedImageError):
        return f"{source}: damaged image ({error}); {again}"
    if not content:
        return f"{source}: damaged image (the file is empty); {again}"
    if is_common_image(content):
        return (
            f"{source}: damaged image (its header cannot be read), or of a rare kind; {again}, or save it as 8-bit PNG"
        )
    return f"{source} is no image of a known format; use JPEG or PNG"


def _decoded_jpeg(content: bytes, source: str) -> NDArray[np.uint8] | None:
    """(H, W, 3) as OpenCV gives it, BGR; None if it refuses the file.

    Raises:
        ValueError: too large. Neither OpenCV nor our use of Pillow refuses a JPEG that would fill the memory.
    """
    width, height = _jpeg_size(content)
    if width * height > LARGEST:
        raise ValueError(
            f"{source} is too large ({width}x{height}, more than {LARGEST // 10**6} million pixels); make it smaller"
        )
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    return None if image is None else np.asarray(image, np.uint8)


def _jpeg_size(content: bytes) -> tuple[int, int]:
    """Width and height in a JPEG's first frame header, (0, 0) without one; faster than with Pillow."""
    at = content.find(b"\xff", 2)
    while 0 <= at < len(content) - 9:
        marker = content[at + 1]
        if marker in _FRAMES:
            return int.from_bytes(content[at + 7 : at + 9], "big"), int.from_bytes(content[at + 5 : at + 7], "big")
        if marker == 0xFF:  # padding
            at += 1
        else:
            at = content.find(b"\xff", at + 2 + int.from_bytes(content[at + 2 : at + 4], "big"))
    return 0, 0


def _jpeg_mark(content: bytes) -> int:
    try:
        with _open_jpeg(io.BytesIO(content)) as image:
            return orientation_mark(image)
    except Exception:  # OpenCV has decoded it, so a header that Pillow does not take is no reason to stop
        return 1


def _open_jpeg(file: IO[bytes] | Path) -> Image.Image:
    """A JPEG's header; `Image.open` refuses those of more than 178 million pixels, which some phones make."""
    return JpegImagePlugin.JpegImageFile(file)


def _opened(file: IO[bytes]) -> Image.Image:
    """The header of a file of any kind."""
    begin = file.read(len(JPEG_BEGIN))
    file.seek(0)
    return _open_jpeg(file) if begin == JPEG_BEGIN else Image.open(file)


def _header(path: Path, marked: bool) -> tuple[int, int, int]:
    """Stored width, stored height and EXIF orientation (1 unless `marked`)."""
    begin = b""
    try:
        require_file(path)
        with open(path, "rb") as file:
            begin = file.read(512)
            file.seek(0)
            if (found := foreign_kind(begin)) and "image" not in found[0]:
                raise UnidentifiedImageError  # Pillow would take an MPEG video for an image
            with _opened(file) as image:
                return *opened_size(image), orientation_mark(image) if marked else 1
    except UnidentifiedImageError as error:
        raise ValueError(_complaint(str(path), begin, error)) from None
    except OSError as error:
        if error.errno is not None:
            raise _unreadable(path, error) from None
        raise ValueError(_complaint(str(path), begin, error)) from None
    except Exception as error:  # as in `decode_image`
        raise ValueError(_complaint(str(path), begin, error)) from None


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
