"""Files of rows that are written through a memory map."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def new_rows(path: Path, kind: np.dtype, count: int) -> NDArray:
    """A new .npy file of zeros, mapped for writing, with all of its space taken at once.

    The system kills a process that writes through a map when the disk is full, without a message; here it is an error
    before the first row is made.

    Raises:
        OSError: the disk is full.
    """
    rows: NDArray = np.lib.format.open_memmap(path, "w+", kind, (count,))
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return rows
