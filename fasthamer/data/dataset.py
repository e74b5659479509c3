"""What every dataset is, and what identifies one."""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

import numpy as np

from fasthamer.types import Batch


class HandDataset(Protocol):
    """What every indexed dataset is: `dataset[(epoch, index)]` gives a `Batch` item, always the same one."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: tuple[int, int]) -> Batch: ...


def fingerprint(dataset: Any) -> str:
    """A hash of a dataset: its class, its length and three of its items, which are pure functions of their number.

    A stream has one of its own.
    """
    if hasattr(dataset, "fingerprint") and hasattr(dataset, "walk"):
        return dataset.fingerprint
    digest = hashlib.sha256(f"{type(dataset).__name__} {len(dataset)}".encode())
    for index in sorted({0, len(dataset) // 2, len(dataset) - 1}):
        for field in dataset[(0, index)]:
            digest.update(np.ascontiguousarray(np.asarray(field)).tobytes())
    return digest.hexdigest()[:16]
