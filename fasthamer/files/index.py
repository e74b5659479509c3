"""What was found out about a large set's files, kept so that it need not be found out again.

An index is a few arrays in one `.npz` in the user's cache folder. It names the files that it was made from with their
sizes and times; when one of them changes, is added or is gone, the index is made anew. It can be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fasthamer.files.atomic import replacing

VERSION = 1  # of what the makers of indexes put into them; another one is not read
Arrays = dict[str, NDArray]


def cached(name: str, sources: Iterable[Path], make: Callable[[], Arrays], folder: str = "auto") -> Arrays:
    """The arrays that `make` gives, from the last time if nothing has changed since.

    Args:
        name: of the index: what it is about, with the absolute path of the set.
        sources: every file that `make` reads, in any fixed order.
        make: without objects in the arrays.
        folder: where indexes lie; auto is `fasthamer` in the user's cache folder, none keeps nothing.
    """
    if folder == "none":
        return make()
    place = _cache_folder() if folder == "auto" else Path(folder)
    path = place / f"{hashlib.sha256(name.encode()).hexdigest()[:20]}.npz"
    state = _state(sources)
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files}
        if str(arrays.pop("state")) == state:
            return arrays
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error):
        pass  # there is none, or not a whole one
    arrays = make()
    with contextlib.suppress(OSError), replacing(path) as draft:  # a folder that cannot be written to costs only time
        np.savez(draft, **arrays, state=np.array(state))  # type: ignore[arg-type]
    return arrays


def _cache_folder() -> Path:
    """The user's, as the XDG base directory specification has it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fasthamer"


def _state(sources: Iterable[Path]) -> str:
    """Changes when a file does, by its path, size and time; one that is missing is a state too."""
    digest = hashlib.sha256(f"{VERSION}".encode())
    for path in sources:
        try:
            about = os.stat(path)
            digest.update(f"\n{path}\t{about.st_size}\t{about.st_mtime_ns}".encode())
        except OSError:
            digest.update(f"\n{path}\tmissing".encode())
    return digest.hexdigest()
