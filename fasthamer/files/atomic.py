"""Atomic writing of files and folders: a target is replaced completely or not at all.

A draft is written in a new hidden folder beside the target, flushed to the disk, and renamed. Each draft has a folder
of its own, so several processes can write the same file: the last one to finish replaces the others. After a failure
the old file is still there and the draft is removed. A killed process leaves its draft behind (see `remove_drafts`).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DRAFT = ".part"  # suffix of a draft's folder


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a draft path with the same name, for libraries that write files themselves.

    The block creates a file or a folder there. Other files that it creates next to the draft (OpenVINO's .bin, ONNX's
    .data) are moved too, before the named one. An existing file, link or folder at `path` is replaced. Permissions are
    those of any new file (umask).

    Args:
        path: the target; its folder is created if it is missing.

    Raises:
        OSError: the disk is full, or the folder cannot be written to. What was there before stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".", suffix=DRAFT, dir=path.parent))
    try:
        mode = _mode_of_new_files(folder)
        yield folder / path.name
        made = sorted(folder.iterdir(), key=lambda each: each.name == path.name)  # the named one last
        assert made and made[-1].name == path.name, f"nothing was written for {path}"
        for each in made:
            _flush(each, mode)
        for each in made:
            target = path.parent / each.name
            if each.is_dir():  # a folder can only be renamed onto an empty one
                shutil.rmtree(target, ignore_errors=True)
            each.replace(target)
        _flush_folder(path.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Writes the whole file or nothing; errors as `replacing`."""
    with replacing(path) as draft:
        draft.write_bytes(content)


def write_text(path: str | Path, text: str) -> None:
    """Writes the whole file (UTF-8, line ends unchanged) or nothing; errors as `replacing`."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Writes an indented JSON file or nothing.

    Raises:
        ValueError, TypeError: NaN, infinity, or a value that JSON cannot represent.
        OSError: as `replacing`.
    """
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def check_writable(folder: Path) -> None:
    """Makes a folder, and a file in it for a moment, where hours of work come before the first result.

    Raises:
        OSError: it cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


def remove_drafts(folder: Path, older_than: float = 3600.0) -> None:
    """Removes drafts that killed processes left in a folder.

    Args:
        folder: where the targets are.
        older_than: seconds since the draft was created; another process may be writing a younger one.
    """
    for draft in folder.glob(f".*{DRAFT}"):
        with contextlib.suppress(FileNotFoundError):  # just finished, or removed by another process
            if time.time() - draft.stat().st_mtime >= older_than:
                shutil.rmtree(draft) if draft.is_dir() else draft.unlink()


def _mode_of_new_files(folder: Path) -> int:
    """The permissions that the umask gives to files in an empty folder; reading the umask itself would change it."""
    probe = folder / "probe"
    probe.touch()
    mode = probe.stat().st_mode & 0o777
    probe.unlink()
    return mode


def _flush(path: Path, mode: int) -> None:
    """Flushes a file, or everything in a folder, to the disk; each file gets these permissions."""
    if path.is_dir():
        for each in path.iterdir():
            _flush(each, mode)
        _flush_folder(path)
        return
    with contextlib.suppress(OSError):  # some network file systems have no permissions
        path.chmod(mode)  # some libraries (safetensors) write files that only their owner can read
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush_folder(path: Path) -> None:
    with contextlib.suppress(OSError):  # some network file systems do not flush folders
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
