"""Which parts of a model keep float32 whatever precision surrounds them: rotations, skinning and read-outs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(like: Tensor) -> AbstractContextManager[object]:
    """A block without autocast on the tensor's device."""
    kind = like.device.type  # checked first: an autocast block that does nothing still hinders torch.export
    active = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)  # "meta" has none
    return torch.autocast(kind, enabled=False) if active else nullcontext()


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, or as it is where it is in float64."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
