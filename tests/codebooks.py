"""Codebooks to test with."""

from __future__ import annotations

import torch
from torch import Tensor

from fasthamer.students.tokenhand.codebook import Codebook


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def begun(size: int = 16, width: int = 6, decay: float = 0.8, dead_below: float = 0.0) -> Codebook:
    """A codebook in the middle of its training, with random codes."""
    codebook = Codebook(size, width, decay, dead_below)
    codebook.codes.copy_(drawn(0, size, width))
    codebook.sums.copy_(codebook.codes)
    codebook.steps.fill_(1)
    return codebook
