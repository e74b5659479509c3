"""Fast reading of large JSON lists of points: FreiHAND's evaluation meshes are 200 MB of text.

The sequence of brackets and commas follows from the number of samples, so it is compared as a whole, and NumPy parses
the numbers. Any other file is left to the JSON module, whose errors name the problem.
"""

from __future__ import annotations

import codecs
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, int]  # points and coordinates of one sample
_STRUCTURE = b"[],"
_NUMBERS = b"0123456789+-.eE, \t\r\n"  # white space included: "1 2" must stay an error
_ANY = bytes(range(256))


def read_number_lists(path: Path, *shapes: Shape) -> list[NDArray[np.float64]] | None:
    """Arrays (N, *shape); None if the file has another structure.

    Args:
        path: a list of N samples; with several shapes, a list of such lists.
        shapes: of one sample in each of the lists.
    """
    text = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    records = [_list(_list(b"", columns), rows) for rows, columns in shapes]
    structure = text.translate(None, _without(_STRUCTURE))
    outermost = len(shapes) + 1 if len(shapes) > 1 else 0  # brackets and commas of the outermost list
    count, rest = divmod(len(structure) - outermost - len(shapes), sum(len(record) + 1 for record in records))
    if rest or count < 1:
        return None
    lists = [_list(record, count) for record in records]
    if structure != (lists[0] if len(lists) == 1 else b"[" + b",".join(lists) + b"]"):
        return None
    del structure
    if text.translate(None, _NUMBERS + b"[]"):  # letters or quotes
        return None
    sizes = [count * rows * columns for rows, columns in shapes]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # older versions of NumPy warn when they stop early
        try:
            numbers = np.fromstring(text.translate(None, b"[]").decode("ascii"), sep=",")
        except ValueError:  # not a number
            return None
    if len(numbers) != sum(sizes):
        return None
    parts = np.split(numbers, np.cumsum(sizes)[:-1])
    return [part.reshape(count, *shape) for part, shape in zip(parts, shapes, strict=True)]


def _list(element: bytes, count: int) -> bytes:
    return b"[" + b",".join([element] * count) + b"]"


def _without(kept: bytes) -> bytes:
    return bytes(set(_ANY) - set(kept))
