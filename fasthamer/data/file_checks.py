"""Checks of image files: whether they are whole, and whether an EXIF orientation leaves their labels in doubt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from fasthamer.data.readers.base import RawSample
from fasthamer.files.image_kinds import foreign_kind, is_common_image
from fasthamer.files.images import (
    JPEG_BEGIN,
    TAIL,
    decode_image,
    is_whole_jpeg,
    read_image_size,
    read_orientation,
    require_file,
)

_PNG_END = b"IEND\xaeB`\x82"
_METADATA = (
    b"Exif\x00\x00",
    b"eXIf",
    b"EXIF",
    b"adobe.com/xap",
    b"com.adobe.xmp",
    b"XMP ",
    b"type exif",
    b"irot",
    b"imir",
)


def incomplete(path: Path) -> str | None:
    """What is wrong with an image file, judged by its first and last bytes; None if nothing is.

    A file whose bytes leave doubt is decoded.
    """
    try:
        begin, end = _ends(path)
        return content_problem(begin, end, path.read_bytes)  # a regular file, or `_ends` raises
    except OSError:
        return "is missing" if not path.exists() else "cannot be read"


def content_problem(begin: bytes, end: bytes, content: Callable[[], bytes]) -> str | None:
    """What is wrong with an image, as `incomplete`.

    Args:
        begin: its first bytes, up to `TAIL` of them.
        end: its last bytes, up to `TAIL` of them.
        content: all of it; called in doubt only.
    """
    if not end:
        return "is empty"
    if begin.startswith(JPEG_BEGIN):
        # Phones append videos to JPEG files, far behind the end mark.
        return None if is_whole_jpeg(begin, end) or _decodes(content()) else "is cut short"
    if begin.startswith(b"\x89PNG"):
        return None if _PNG_END in end else "is cut short"
    foreign = foreign_kind(begin)
    if foreign is None or "image" in foreign[0]:
        if _decodes(content()):
            return None
        if foreign is None:
            return "is damaged" if is_common_image(begin) else "is no image"
        return f"is {foreign[0]}, which cannot be read; {foreign[1]}"
    return f"({foreign[0]}; {foreign[1]}) is no image"


class Orientations:
    """Collects the images of a dataset that carry an EXIF orientation."""

    def __init__(self) -> None:
        self.applied: list[str] = []
        self.decided: list[str] = []  # by the recorded size
        self.doubtful: list[str] = []  # applied, with labels that may have been made without
        self.ignored: list[str] = []

    def add(self, path: Path, raw_sample: Callable[[], RawSample]) -> None:
        """Looks at an image.

        Args:
            path: of the image.
            raw_sample: reads a hand in it; called only if it carries an orientation.
        """
        try:
            mark = read_orientation(path) if may_be_marked(path) else 1
            if mark == 1:
                return
            hand = raw_sample()
        except (ValueError, KeyError, OSError):
            return  # named where the sample is read
        text = f"{path}, orientation {mark}"
        if hand.upright is False:
            self.ignored.append(text)
        elif hand.upright is True:
            (self.applied if hand.labels.keypoints is None else self.doubtful).append(text)
        else:
            stored = read_image_size(hand.path, upright=False)
            one_fits = (hand.upright == stored) != (hand.upright == stored[::-1])
            (self.decided if mark >= 5 and one_fits else self.doubtful).append(text)

    def facts(self) -> Iterator[str]:
        """What is no problem, a line each."""
        if self.applied:
            yield f"{_count(self.applied)}: it is applied, so their boxes must be for the image as viewers show it"
        if self.decided:
            yield f"{_count(self.decided)}: it is applied where the recorded size is that of the turned image"

    def problems(self) -> Iterator[str]:
        """What the user must look at, a line each."""
        remedy = "remove the mark (exiftool -Orientation= FILE) or turn the image (jpegtran), whichever fits the labels"
        if self.ignored:
            yield f"{_count(self.ignored)}: it is not applied, so the labels must be for the image as stored; {remedy}"
        if self.doubtful:
            yield f"{_count(self.doubtful)}: it is applied, so the labels must be for the turned image; {remedy}"


def may_be_marked(path: Path) -> bool:
    """Whether the first and last bytes of an image file speak for metadata; only then its header is worth reading."""
    begin, end = _ends(path)
    return any(tag in begin or tag in end for tag in _METADATA)


def shown_size(path: Path) -> tuple[int, int]:
    """Width and height of an image as viewers show it; faster than `read_image_size` for PNG files without metadata."""
    return read_image_size(path, upright=may_be_marked(path))


def _ends(path: Path) -> tuple[bytes, bytes]:
    require_file(path)
    with open(path, "rb") as file:
        begin = file.read(TAIL)
        size = file.seek(0, 2)
        file.seek(max(0, size - TAIL))
        return begin, file.read()


def _decodes(content: bytes) -> bool:
    try:
        decode_image(content, "", upright=False)
    except ValueError:
        return False
    return True


def _count(marked: list[str]) -> str:
    images = "1 image carries" if len(marked) == 1 else f"{len(marked)} images carry"
    return f"{images} an EXIF orientation (the first: {marked[0]})"
