"""Batches on their way from a loader process: all small fields in one piece.

Each tensor that goes from one process to another costs a file handle, two system calls and a mapping; a `Batch` has
thirteen, of which twelve are small.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import default_collate

from fasthamer.types import Batch

SMALL = ("index", *(name for name in Batch._fields if name not in ("image", "index")))  # 8-byte numbers lie first


class PackedBatch(NamedTuple):
    """A `Batch` in two pieces."""

    image: Tensor  # (B, 3, S, S)
    rest: Tensor  # (N,) float32: the other fields one after the other, each contiguous; integers bit by bit
    shapes: tuple[tuple[int, ...], ...]  # of each of them, batch axis included


def pack_batch(items: list[Any]) -> Any:
    """Collates items; what are not plain `Batch` items are left to torch's own way."""
    if type(items[0]) is not Batch:
        return default_collate(items)
    columns = [torch.stack([getattr(item, name) for item in items]) for name in SMALL]
    shapes = tuple(tuple(column.shape) for column in columns)
    rest = torch.cat([_as_float(column).reshape(-1) for column in columns])
    return PackedBatch(default_collate([item.image for item in items]), rest, shapes)


def unpack_batch(batch: Any) -> Any:
    """The `Batch` again, its small fields views of one piece."""
    if not isinstance(batch, PackedBatch):
        return batch
    fields, begin = {"image": batch.image}, 0
    for name, shape in zip(SMALL, batch.shapes, strict=True):
        length = torch.Size(shape).numel() * (2 if name == "index" else 1)
        piece = batch.rest[begin : begin + length]
        fields[name] = piece.view(torch.int64) if name == "index" else piece.view(shape)
        begin += length
    return Batch(**fields)


def _as_float(column: Tensor) -> Tensor:
    return column.view(torch.float32) if column.dtype == torch.int64 else column
