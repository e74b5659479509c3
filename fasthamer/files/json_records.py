"""Random access to the records of a large JSON file of nested lists, such as FreiHAND's 1.6 GB of vertices.

Parsing such a file at once takes minutes and many gigabytes. Here one pass finds the position of each record, and a
record is parsed on access.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fasthamer.files.index import Arrays, cached
from fasthamer.one_line import one_line

LARGE = 4 << 20  # bytes; searching a smaller file is faster than storing an index
BLOCK = 8 << 20  # bytes read at once
GAP = 4096  # bytes; longer than any white space between brackets
_BETWEEN = re.compile(rb"\]\s*\](\s*,\s*)\[\s*\[")  # the end of one record, the comma, the start of the next


class JsonRecords:
    """A file `[[[..], ..], [[..], ..], ..]` as a sequence of 2D float64 arrays.

    Args:
        path: the file.
        shape: rows and columns that every record must have.
        cache: folder of the index of positions, see `fasthamer.files.index.cached`.
        large: bytes; no index of smaller files is stored.
        block: bytes read at once.
        gap: bytes; longer than any white space between brackets.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a list, or truncated.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int],
        cache: str = "auto",
        large: int = LARGE,
        block: int = BLOCK,
        gap: int = GAP,
    ) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing")
        self.path, self.shape, self.block, self.gap = path, shape, block, gap
        if path.stat().st_size < large:
            cache = "none"
        positions = cached(f"json records {path.resolve()}", [path], self._find_records, cache)
        self.starts, self.stops = positions["starts"], positions["stops"]

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, number: int) -> np.ndarray:
        """Record `number`.

        Raises:
            ValueError: it is damaged, has another shape, or holds numbers that are not finite.
        """
        with open(self.path, "rb") as file:
            file.seek(int(self.starts[number]))
            text = file.read(int(self.stops[number] - self.starts[number]))
        where = f"{self.path}: record {number}"
        try:
            record = np.array(json.loads(text), dtype=np.float64)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:  # damaged, or rows of several lengths
            raise ValueError(f"{where} is damaged ({one_line(error)})") from None
        if record.shape != self.shape:
            raise ValueError(f"{where} is {'x'.join(map(str, record.shape))}, expected {self.shape[0]}x{self.shape[1]}")
        if not np.isfinite(record).all():
            raise ValueError(f"{where} holds numbers that are not finite: correct the file or leave the sample out")
        return record

    def _find_records(self) -> Arrays:
        path, shape = self.path, self.shape
        if not path.stat().st_size:
            raise ValueError(f"{path}: empty file")
        with open(path, "rb") as file:
            opening = re.match(rb"(?:\xef\xbb\xbf)?\s*\[\s*(?=\[\s*\[)", file.read(self.gap))
            if opening is None:
                raise ValueError(f"{path}: not a list of {shape[0]}x{shape[1]} lists")
            tail = file.seek(max(0, path.stat().st_size - self.gap))
            ending = file.read()
            if not b"".join(ending.split()).endswith(b"]]]"):
                raise ValueError(f"{path}: cut short, its last brackets are missing; download or copy it again")
            file.seek(0)
            commas = list(_commas(file, self.block, self.gap))
        starts = [opening.end(), *(stop for _, stop in commas)]
        stops = [*(start for start, _ in commas), tail + ending.rfind(b"]")]
        return {"starts": np.array(starts), "stops": np.array(stops)}


def _commas(file: BinaryIO, block_size: int, gap: int) -> Iterator[tuple[int, int]]:
    """Positions in the file where each comma between records starts and stops, white space included."""
    buffer, offset = b"", 0  # bytes not yet searched, and their position in the file
    while block := file.read(block_size):
        buffer += block
        done = 0
        for match in _BETWEEN.finditer(buffer):
            yield offset + match.start(1), offset + match.end(1)
            done = match.end()
        done = max(done, len(buffer) - gap)  # the end of the block may split a separator
        buffer, offset = buffer[done:], offset + done
