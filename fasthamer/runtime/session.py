"""What every backend's session is: `session(crops) -> {name: array}`. Needs NumPy alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np

from fasthamer.runtime.contract import Contract


class Setting(NamedTuple):
    """The settings of a session."""

    backend: str
    precision: str  # of backbone and decoder; the hand is skinned in fp32
    device: str
    batch: int  # the number of images that graphs of fixed size are made for
    threads: int  # of the CPU; 0 = the runtime's default


class Session(ABC):
    """`session(images) -> {name: array}` with the names of `fasthamer.runtime.contract.OUTPUTS`.

    Images are uint8 crops (B, 3, S, S), RGB. Arrays give arrays; tensors give tensors, on the session's device where
    the runtime computes in torch.
    """

    setting: Setting
    size_bytes: int  # of the exported file or, in torch, of the weights
    image_size: int | None = None  # S, where the graph has a fixed size
    contract: Contract | None = None  # of an exported file

    def __call__(self, images: Any) -> dict[str, Any]:
        shape = tuple(images.shape)
        if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3] or str(images.dtype).split(".")[-1] != "uint8":
            raise ValueError(f"images must be square crops (B, 3, S, S) uint8, RGB; got {shape} {images.dtype}")
        if self.image_size not in (None, shape[-1]):
            raise ValueError(f"this model was exported for crops of {self.image_size} pixels; got {shape[-1]}")
        return self._run(images)

    @abstractmethod
    def _run(self, images: Any) -> dict[str, Any]: ...


class ArraySession(Session):
    """A session of a runtime on NumPy arrays."""

    def _run(self, images: Any) -> dict[str, Any]:
        if isinstance(images, np.ndarray):
            return self._compute(np.ascontiguousarray(images))
        import torch

        return {name: torch.from_numpy(value) for name, value in self._compute(images.cpu().numpy()).items()}

    @abstractmethod
    def _compute(self, images: np.ndarray) -> dict[str, np.ndarray]: ...
