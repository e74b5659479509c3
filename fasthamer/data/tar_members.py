"""The members of tar archives, read from front to back; what is damaged is named and stepped over.

Python's tarfile, and the webdataset library that relies on it, take a damaged header in the middle of an archive for
its end: all that follows would be missing without a word. Here the next good header is looked for instead.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from tarfile import EOFHeaderError, InvalidHeaderError, TruncatedHeaderError  # type: ignore[attr-defined]
from typing import Any

LARGEST = 1 << 26  # bytes of a member; pictures and labels of one hand are far smaller


def members(path: Path, skipped: list[str]) -> Iterator[dict[str, Any]]:
    """Yields `{"fname": name, "data": bytes, "__url__": path}` for each regular file, as webdataset's readers do.

    Args:
        path: an uncompressed archive.
        skipped: gets a line for each damaged place.
    """
    try:
        with _Archive(path, skipped) as archive:
            assert archive.fileobj is not None
            for member in archive:
                archive.members.clear()  # or they would fill the memory
                if not member.isreg():
                    continue
                if member.size > LARGEST:
                    skipped.append(f"{path}: {member.name}: of {member.size} bytes, more than {LARGEST}")
                    continue
                archive.fileobj.seek(member.offset_data)
                data = archive.fileobj.read(member.size)
                if len(data) < member.size:
                    skipped.append(f"{path}: {member.name}: cut short, {len(data)} of {member.size} bytes")
                    return
                yield {"fname": member.name, "data": data, "__url__": str(path)}
    except (tarfile.TarError, OSError, EOFError) as error:
        skipped.append(f"{path}: {error}; nothing is read behind it")


class _Archive(tarfile.TarFile):
    """Knows which damage has been told, and where to tell it."""

    def __init__(self, path: Path, skipped: list[str]) -> None:
        self.path, self.skipped = path, skipped
        self.last_bad = -2 * tarfile.BLOCKSIZE  # offset of the last damaged block
        self.zeros = 0  # empty blocks just passed: two end an archive
        super().__init__(str(path), "r", tarinfo=_Header, ignore_zeros=True)

    def note(self, error: Exception) -> None:
        """A damaged block at the current offset; a row of them is one damage."""
        if self.offset != self.last_bad + tarfile.BLOCKSIZE:
            self.skipped.append(f"{self.path}: no header at byte {self.offset} ({error})")
        self.last_bad = self.offset


class _Header(tarfile.TarInfo):
    """Tells the archive what tarfile passes over in silence."""

    @classmethod
    def fromtarfile(cls, tarfile: Any) -> Any:  # the argument's name is tarfile's
        try:
            header = super().fromtarfile(tarfile)
        except EOFHeaderError:
            tarfile.zeros += 1
            raise
        except (InvalidHeaderError, TruncatedHeaderError) as error:
            tarfile.note(error)
            raise
        if tarfile.zeros:
            tarfile.skipped.append(f"{tarfile.path}: {tarfile.zeros} empty blocks before {header.name}")
            tarfile.zeros = 0
        return header
