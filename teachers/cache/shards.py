"""The files of a teacher cache: shards that are complete or absent; damage is detected.

    DIR/about.json              the manifest: `CacheKey` and what is stored, see `fasthamer.teachers.cache.manifest`
    DIR/components.npz          only where feature maps are stored as principal components
    DIR/answers_00000.bin       the teacher's outputs: rows of `row_type`, ROWS a shard
    DIR/maps_00000.bin          the same samples' feature maps, (rows, K, h, w) float16; only where they are stored
    DIR/shard_00000.json        rows, checksum, cache it belongs to; written last: a shard without it is incomplete

All numbers are little-endian. Outputs are read whole and checked when a cache is opened. Maps stay on disk, are
mapped into memory, and each is checked against its row's checksum when it is read.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthamer.files import safe_json
from fasthamer.files.atomic import write_bytes
from fasthamer.types import N_BETAS, N_HAND_JOINTS, N_JOINTS, N_VERTICES

ROWS = 256  # samples of a shard, the most that a killed process can lose
MARK = "map_checksum"
_MANO = {"global_orient": (1, 3, 3), "hand_pose": (N_HAND_JOINTS, 3, 3), "betas": (N_BETAS,)}
_ANY = {"crop": (2, 3), "camera": (3,), "joints": (N_JOINTS, 3), "keypoints_2d": (N_JOINTS, 2)}


def row_type(has_mano: bool) -> np.dtype:
    """The teacher's outputs for one sample, on its crop without augmentation.

    With MANO's parameters the vertices follow from them and are not stored: a row has 1.1 kB instead of 9.8.
    """
    shapes = _ANY | (_MANO if has_mano else {"vertices": (N_VERTICES, 3)})
    return np.dtype([*((name, "<f4", shape) for name, shape in shapes.items()), (MARK, "<u4")])


class Shards(NamedTuple):
    """The shards of one cache."""

    folder: Path
    cache: str  # its identity: shards of another are refused
    length: int  # samples
    kind: np.dtype  # of a row
    map_shape: tuple[int, int, int] | None  # (K, h, w) of a stored feature map
    rows: int = ROWS  # samples of a shard, the last one's may be fewer

    @property
    def total(self) -> int:
        return -(-self.length // self.rows)

    @property
    def row_bytes(self) -> tuple[int, int]:
        """Bytes of a sample's outputs and of its feature map."""
        return self.kind.itemsize, 2 * int(np.prod(self.map_shape)) if self.map_shape else 0

    def samples(self, number: int) -> range:
        """The samples of a shard."""
        return range(number * self.rows, min(self.length, (number + 1) * self.rows))

    def missing(self) -> list[int]:
        """Numbers of the shards that are not complete yet."""
        return [number for number in range(self.total) if not self._file("shard", number).is_file()]

    def gaps(self, number: int) -> list[int]:
        """The samples of a complete shard that have no outputs, see `is_gap`."""
        return [self.samples(number)[row] for row in np.flatnonzero(is_gap(self._outputs(number)))]

    def marker(self, sample: int) -> Path:
        """The file without which the shard of a sample counts as missing."""
        return self._file("shard", sample // self.rows)

    def check(self) -> None:
        """Checks the complete shards of a cache that may be incomplete; of the maps only their sizes.

        Raises:
            ValueError: a shard is cut short, damaged or of another cache; the message names it.
        """
        for number in sorted(set(range(self.total)) - set(self.missing())):
            self._outputs(number)
            if self.map_shape:
                self._check_maps(number)

    def write(self, number: int, rows: NDArray, maps: NDArray[np.float16] | None) -> None:
        """Writes one shard; after a kill at any moment it is complete or counts as missing.

        Args:
            number: of the shard.
            rows: of `kind`; the maps' checksums are filled in here.
            maps: (len(rows), *map_shape), or None.
        """
        if maps is not None:
            rows[MARK] = [_checksum(each) for each in maps]
            write_bytes(self._file("maps", number), np.ascontiguousarray(maps).tobytes())
        content = rows.tobytes()
        write_bytes(self._file("answers", number), content)
        marker = {"cache": self.cache, "rows": len(rows), "answers": hashlib.sha256(content).hexdigest()}
        write_bytes(self._file("shard", number), json.dumps(marker).encode())

    def read_outputs(self) -> NDArray:
        """All rows.

        Raises:
            ValueError: a shard is missing, cut short, damaged or of another cache; the message names it.
        """
        return np.concatenate([self._outputs(number) for number in range(self.total)])

    def open_maps(self) -> list[NDArray[np.float16]]:
        """The feature maps of every shard, (rows, *map_shape) each, still on disk.

        Raises:
            ValueError: a shard is missing or has the wrong size.
        """
        assert self.map_shape is not None
        mapped: list[NDArray[np.float16]] = []
        for number in range(self.total):
            path, rows = self._check_maps(number), len(self.samples(number))
            mapped.append(np.memmap(path, dtype="<f2", mode="r", shape=(rows, *self.map_shape)))
        return mapped

    def read_map(self, maps: list[NDArray[np.float16]], index: int, mark: int) -> NDArray[np.float16]:
        """The feature map (K, h, w) of one sample.

        Raises:
            ValueError: it is not what was written.
        """
        number, row = divmod(index, self.rows)
        found = np.array(maps[number][row])
        if _checksum(found) != mark:
            path = self._file("maps", number)
            raise ValueError(f"{path}: the feature map of sample {index} is damaged; {self._remedy(number)}")
        return found

    def _outputs(self, number: int) -> NDArray:
        marker, path, rows = self._file("shard", number), self._file("answers", number), len(self.samples(number))
        if not marker.is_file():
            raise ValueError(f"{marker} is missing: the teacher cache is not complete; the next run completes it")
        found = read_json(marker)
        if found.get("cache") != self.cache or found.get("rows") != rows:
            raise ValueError(f"{marker}: a shard of another teacher cache; {self._remedy(number)}")
        self._check_size(path, rows * self.kind.itemsize, number)
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != found.get("answers"):
            raise ValueError(f"{path}: not what was written (wrong checksum); {self._remedy(number)}")
        return np.frombuffer(content, dtype=self.kind)

    def _check_maps(self, number: int) -> Path:
        path = self._file("maps", number)
        self._check_size(path, len(self.samples(number)) * self.row_bytes[1], number)
        return path

    def _check_size(self, path: Path, expected: int, number: int) -> None:
        found = path.stat().st_size if path.is_file() else 0
        if found != expected:
            what = "cut short" if found < expected else "too long"
            raise ValueError(f"{path}: {what} ({found} bytes, expected {expected}); {self._remedy(number)}")

    def _remedy(self, number: int) -> str:
        return f"remove {self._file('shard', number).name} and the next run computes this shard anew"

    def _file(self, kind: str, number: int) -> Path:
        return self.folder / f"{kind}_{number:05d}.{'json' if kind == 'shard' else 'bin'}"


def is_gap(rows: NDArray) -> NDArray[np.bool_]:
    """(N,) rows of samples that could not be read."""
    return np.isnan(rows["crop"]).any((1, 2))


def read_json(path: Path) -> dict[str, Any]:
    """A small file of a cache.

    Raises:
        ValueError: damaged.
    """
    try:
        found = safe_json.read_json(path)
    except ValueError as error:
        raise ValueError(f"{error}; it is damaged: remove it, or the whole folder if nothing else helps") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: not a part of a teacher cache; name another folder")
    return found


def _checksum(array: NDArray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).data.cast("B"))
