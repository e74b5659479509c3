"""Reads arrays from untrusted NumPy archives, without pickle and without unpacking more than the file promises."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from fasthamer.one_line import one_line

LARGEST = 1 << 30  # bytes of an array; larger ones are refused: 10 MB of an archive can unpack to 10 GB
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npz(
    path: Path, shapes: Mapping[str, tuple[int | None, ...] | None], optional: Collection[str] = ()
) -> dict[str, NDArray]:
    """Some arrays of an archive; the others are not unpacked.

    Args:
        path: the file.
        shapes: name -> shape of each array to read; None in a shape is any length, None alone any shape.
        optional: names that may be missing.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, with pickled objects, or an array is missing, has another shape or non-finite numbers.
    """
    found = unpack_npz(path, str(path), shapes)
    missing = [name for name in shapes if name not in found and name not in optional]
    if missing:
        raise ValueError(f"{path}: it has no {', '.join(missing)} (but {_members(path)})")
    for name, array in found.items():
        _check(array, shapes[name], f"{path}: {name}")
    return found


def unpack_npz(file: Path | BinaryIO, source: str, names: Collection[str] | None = None) -> dict[str, NDArray]:
    """Arrays of an archive as they are.

    Args:
        file: the archive.
        source: its name, for errors.
        names: of the arrays, those that are not there are left out; None: all.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, with pickled objects, or an array is too large.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return {
                name: _array(archive, member, f"{source}: {name}")
                for member in archive.infolist()
                if (name := member.filename.removesuffix(".npy")) and (names is None or name in names)
            }
    except FileNotFoundError:
        raise FileNotFoundError(f"{source} is missing") from None
    except _RefusedError as error:
        raise ValueError(str(error)) from None
    except Exception as error:  # zipfile, zlib and NumPy's parser of headers raise a dozen types
        raise ValueError(f"{source}: damaged archive ({one_line(error)}); copy or download it again") from None


class _RefusedError(Exception):
    pass


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> NDArray:
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise _RefusedError(f"{where} is in an unknown version of NumPy's format; save it again")
        shape, _, dtype = _HEADERS[version](stream)
    if dtype.hasobject:
        raise _RefusedError(f"{where} holds pickled objects, which are never loaded; save it again with plain arrays")
    size = dtype.itemsize
    for length in shape:
        size *= length
    if size > LARGEST or member.file_size > LARGEST:
        raise _RefusedError(f"{where} is too large: {one_line(shape)} of {dtype}, more than {LARGEST >> 20} MB")
    if not 0 <= size <= member.file_size:
        raise _RefusedError(f"{where} is cut short or damaged: {one_line(shape)} of {dtype}")
    with archive.open(member) as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
    if dtype.kind == "U" and size:
        codes = np.ascontiguousarray(array).reshape(-1).view(np.dtype(np.uint32).newbyteorder(dtype.byteorder))
        if codes.max() > sys.maxunicode:  # Python fails on such text only where it is used
            raise _RefusedError(f"{where} is damaged: it holds text that is none")
    return array


def _members(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        names = sorted({name.removesuffix(".npy") for name in archive.namelist()})
    return one_line(", ".join(names)) or "nothing"


def _check(array: NDArray, shape: tuple[int | None, ...] | None, where: str) -> None:
    if shape is not None and not (
        array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    ):
        expected = "x".join("N" if n is None else str(n) for n in shape)
        raise ValueError(f"{where} is {'x'.join(map(str, array.shape)) or 'a single value'}, expected {expected}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{where} holds numbers that are not finite: correct the file or leave the sample out")
