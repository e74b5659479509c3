"""Weights in a safetensors file with a header that describes how to build the module they belong to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fasthamer.files.atomic import replacing
from fasthamer.files.safe_json import parse_json
from fasthamer.one_line import one_line

DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


class Kind(NamedTuple):
    """A type of file, such as students' or tokenizers' files."""

    name: str  # student or tokenizer: key of the description in the header, and its name in messages
    format: str  # name and version of the format
    keys: Set[str]  # that a description must have
    optional: Set[str] = frozenset()  # keys that it may have


def write_headed(
    path: Path, kind: Kind, description: Mapping[str, Any], metadata: Any, tensors: Mapping[str, Tensor], dtype: str
) -> None:
    """Writes the file completely or not at all.

    Args:
        path: an existing file is replaced.
        kind: the type of file.
        description: how to build the module; has `kind.keys` and at most `kind.optional` beside them.
        metadata: JSON values.
        tensors: the weights.
        dtype: fp32 or fp16, of the stored weights; tensors with values beyond the range of fp16 keep their type.

    Raises:
        ValueError: an unknown dtype.
        OSError: the disk is full, or the folder cannot be written to; the old file stays.
    """
    if dtype not in DTYPES:
        raise ValueError(f"{kind.name} files are {' or '.join(DTYPES)}, not {dtype!r}")
    header = {"format": kind.format, kind.name: dict(description), "metadata": metadata}
    stored = {key: _stored(value, DTYPES[dtype]) for key, value in tensors.items()}
    with replacing(path) as draft:
        try:
            save_file(stored, draft, {"fasthamer": json.dumps(header)})
        except SafetensorError as error:  # for example a full disk
            raise OSError(f"cannot write {path}: {error}") from error


def read_header(path: Path, kind: Kind) -> dict[str, Any]:
    """The header, without reading weights: the description under `kind.name`, and `metadata`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another type of file, damaged, or of another version.
    """
    with _opened(path, kind) as file:
        return _header(file, path, kind)


def read_headed(path: Path, kind: Kind) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and weights; errors as `read_header`."""
    with _opened(path, kind) as file:
        return _header(file, path, kind), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


@contextmanager
def _opened(path: Path, kind: Kind) -> Iterator[Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{kind.name} file {path}: no such file")
    try:
        file = safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a {kind.name}'s file, or a damaged one ({one_line(error)})") from error
    with file:
        yield file


def _header(file: Any, path: Path, kind: Kind) -> dict[str, Any]:
    text = (file.metadata() or {}).get("fasthamer")
    if text is None:
        raise ValueError(f"{path}: a safetensors file, but not a {kind.name}'s (no fasthamer header)")
    try:
        header = parse_json(text, "the header")
        found = header["format"]
        named = set(dict(header[kind.name])) if found == kind.format else set()
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: a damaged fasthamer header ({type(error).__name__}: {one_line(error)})") from None
    if found != kind.format:
        raise ValueError(
            f"{path}: no {kind.name} that this version of fasthamer reads: {one_line(repr(found))}, not {kind.format!r}"
        )
    if not kind.keys <= named <= kind.keys | kind.optional:
        described = one_line(", ".join(sorted(named)))
        raise ValueError(
            f"{path}: a {kind.name} of another version of fasthamer: it is described by {described}; "
            f"this one reads {', '.join(sorted(kind.keys))}"
        )
    return header


def _stored(value: Tensor, dtype: torch.dtype) -> Tensor:
    value = value.detach().cpu()
    if value.is_floating_point() and value.abs().max() <= torch.finfo(dtype).max:  # some batch variances exceed fp16
        value = value.to(dtype)
    return value.contiguous().clone()
