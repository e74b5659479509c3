"""Reads the tensors of a Lightning checkpoint without running any code in it."""

from __future__ import annotations

import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fasthamer.one_line import one_line

# Lightning stores hyper-parameters beside the weights. Their classes are replaced by plain dicts and never run.
_INERT_PACKAGES = ("yacs.", "omegaconf.", "lightning.", "pytorch_lightning.", "lightning_fabric.")
_INERT_NAMES = frozenset(  # other names that OmegaConf's settings and Lightning's callbacks refer to
    [
        "argparse.Namespace",
        "builtins.bool",
        "builtins.dict",
        "builtins.float",
        "builtins.int",
        "builtins.list",
        "builtins.str",
        "builtins.tuple",
        "collections.defaultdict",
        "pathlib.Path",
        "pathlib.PosixPath",
        "typing.Any",
    ]
)

LARGEST = 1 << 30  # bytes of a tensor that repeats its numbers
# NumPy's scalars and arrays, such as a best score or a random state, before and after NumPy 2 renamed its modules.
_NUMPY = re.compile(r"numpy\.(dtype|ndarray|_?core\.multiarray\.(_reconstruct|scalar)|dtypes\.\w+DType)")


def read_state_dict(path: str | Path, prefix: str = "") -> dict[str, Tensor]:
    """The weights of a checkpoint's `state_dict`, or of a bare state dict, on the CPU.

    The file is memory-mapped, so reading a few tensors of a large checkpoint is fast.

    Args:
        path: a file written by `torch.save`.
        prefix: selects tensors by the start of their names, and is removed from them.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, without weights, or with references to code (the message names them).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {str(path)!r}")
    content = _load(path)
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not _are_tensors(state) or not state:
        raise ValueError(f"{path}: no state_dict of tensors in this file")
    check_tensors(state, str(path))
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def _are_tensors(state: dict) -> bool:
    return all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items())


def _load(path: Path) -> object:
    check_stored(path)
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        refused = sorted(name for name in foreign if not _is_inert(name))
        if refused:
            raise _RefusedError(f"it refers to {one_line(', '.join(refused))}; only tensors and settings are read")
        inert: list = [
            (type("Inert", (_InertNumbers if _NUMPY.fullmatch(name) else _Inert,), {}), name) for name in foreign
        ]
        with torch.serialization.safe_globals(inert):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except _RefusedError as error:
        raise ValueError(f"{path}: refused, since {error}") from None
    except Exception as error:  # torch's reader raises a dozen types for damaged files
        raise ValueError(f"{path}: not a readable checkpoint ({type(error).__name__}: {one_line(error)})") from None


class _RefusedError(Exception):
    pass


def check_stored(path: Path) -> None:
    """Refuses an archive with compressed members: torch writes none, and a small one can unpack to any size.

    Raises:
        ValueError: such an archive, or a damaged one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [member.filename for member in archive.infolist() if member.compress_type != zipfile.ZIP_STORED]
    except Exception as error:  # zipfile raises half a dozen types
        what = one_line(error)
        raise ValueError(f"{path}: damaged, or not a checkpoint written by torch.save ({what})") from None
    if packed:
        raise ValueError(f"{path}: refused, since {one_line(packed[0])} is compressed, which torch.save never does")


def check_tensors(state: Mapping[str, Tensor], source: str) -> None:
    """Refuses large tensors that stand for more numbers than the file holds: copying one could fill any memory.

    Raises:
        ValueError: such a tensor, or one that is not plain numbers in the CPU's memory; the message names it.
    """
    for name, value in state.items():
        plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
        size = value.numel() * value.element_size()
        if not plain or size > max(LARGEST, value.untyped_storage().nbytes()):
            raise ValueError(f"{source}: refused, since {one_line(name)} is no plain tensor of the numbers in the file")


def _is_inert(name: str) -> bool:
    return name.startswith(_INERT_PACKAGES) or name in _INERT_NAMES or _NUMPY.fullmatch(name) is not None


class _Inert:
    """Replaces a class that torch does not load: its instances are plain ordered dicts."""

    def __new__(cls, *_: object) -> OrderedDict:  # type: ignore[misc]
        return OrderedDict()


class _InertNumbers:
    """Takes the place of NumPy's types and of the functions that would rebuild their values: all of it is dropped."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass
