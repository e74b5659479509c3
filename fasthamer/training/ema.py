"""An exponential moving average of a model, smoother than its last step."""

from __future__ import annotations

import copy

import torch
from torch import nn


class MovingAverage:
    """`average.model` follows the trained model; buffers such as BatchNorm's are copied, not averaged."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """
        Args:
            model: copied; call `update(model)` after each optimizer step.
            decay: of the average, in [0, 1); the first steps use less, so that the start is soon forgotten.
        """
        if not 0 <= decay < 1:
            raise ValueError(f"TRAIN.EMA is a decay in [0, 1), not {decay}")
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Moves towards `model`, which has just done optimizer step number `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)
        for average, current in zip(self.model.buffers(), model.buffers(), strict=True):
            average.copy_(current)
