"""Cached indexes of large datasets' files.

An index is a few arrays in one `.npz` in the user's cache folder. It stores a hash of the paths, sizes and modification
times of its source files; when one of them changes, is added or is removed, the index is rebuilt. It can be deleted at
any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fasthamer.files.atomic import replacing
from fasthamer.files.safe_npz import unpack_npz

VERSION = 1  # of the content of indexes; other versions are rebuilt
Arrays = dict[str, NDArray]


def cached(name: str, sources: Iterable[Path], make: Callable[[], Arrays], folder: str = "auto") -> Arrays:
    """The arrays that `make` returns, from the cache if no source has changed.

    Args:
        name: identifies the index; includes the absolute path of the dataset.
        sources: every file that `make` reads, in any fixed order.
        make: builds the arrays, of numbers or strings.
        folder: of the indexes; auto is `fasthamer` in the user's cache folder, none stores no index.
    """
    if folder == "none":
        return make()
    parent = _cache_folder() if folder == "auto" else Path(folder)
    path = parent / f"{hashlib.sha256(os.fsencode(name)).hexdigest()[:20]}.npz"
    state = _state(sources)
    try:
        arrays = unpack_npz(path, str(path))
        if str(arrays.pop("state")) == state:
            return arrays
    except (OSError, KeyError, ValueError):
        pass  # missing or damaged
    arrays = make()
    with contextlib.suppress(OSError), replacing(path) as draft:  # without a writable folder it is rebuilt each time
        np.savez(draft, **arrays, state=np.array(state))  # type: ignore[arg-type]
    return arrays


def _cache_folder() -> Path:
    """The user's cache folder (XDG base directory specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fasthamer"


def _state(sources: Iterable[Path]) -> str:
    """A hash of each file's path, size and modification time, or of its absence."""
    digest = hashlib.sha256(f"{VERSION}".encode())
    for path in sources:
        try:
            about = os.stat(path)
            digest.update(os.fsencode(f"\n{path}\t{about.st_size}\t{about.st_mtime_ns}"))
        except OSError:
            digest.update(os.fsencode(f"\n{path}\tmissing"))
    return digest.hexdigest()
