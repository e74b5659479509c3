"""Reads arrays of known names and shapes from untrusted NumPy archives, without pickle."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


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
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.removesuffix(".npy") for name in archive.namelist()}
            missing = [name for name in shapes if name not in members and name not in optional]
            if missing:
                raise ValueError(f"it has no {', '.join(missing)} (but {', '.join(sorted(members)) or 'nothing'})")
            found: dict[str, NDArray] = {}
            for name in members.intersection(shapes):
                with archive.open(f"{name}.npy") as member:
                    found[name] = np.lib.format.read_array(member, allow_pickle=False)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing") from None
    except ValueError as error:  # numpy raises it for a refused pickle too
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None
    except (OSError, EOFError, KeyError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: damaged archive ({error}); copy or download it again") from None
    for name, array in found.items():
        _check(array, shapes[name], f"{path}: {name}")
    return found


def _check(array: NDArray, shape: tuple[int | None, ...] | None, where: str) -> None:
    if shape is not None and not (
        array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    ):
        expected = "x".join("N" if n is None else str(n) for n in shape)
        raise ValueError(f"{where} is {'x'.join(map(str, array.shape)) or 'a single value'}, expected {expected}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{where} holds numbers that are not finite: correct the file or leave the sample out")
