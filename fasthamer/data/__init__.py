"""Crops, augmentation and dataset readers; `build_dataset` makes the sets that a config names."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fasthamer.data.build import build_dataset, build_training_set, dataset_name

__all__ = ["build_dataset", "build_training_set", "dataset_name"]


def __getattr__(name: str) -> Any:
    """Datasets need torch; crops, cut for exported models too, do not: so the former are imported when asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("fasthamer.data.build"), name)
