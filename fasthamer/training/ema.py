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
            model: copied; call `update` after each of its optimizer steps. What does not train by now never will.
            decay: of the average, in [0, 1); the first steps use less, so that the start is soon forgotten.
        """
        if not 0 <= decay < 1:
            raise ValueError(f"TRAIN.EMA is a decay in [0, 1), not {decay}")
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        pairs = zip(self.model.parameters(), model.parameters(), strict=True)
        self._trained = [(average, current) for average, current in pairs if current.requires_grad]
        modules = zip(self.model.modules(), model.modules(), strict=True)
        self._buffered = [(average, current) for average, current in modules if [*current.buffers(recurse=False)]]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves towards the model, which has just done optimizer step number `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages, current = zip(*self._trained, strict=True)
        torch._foreach_lerp_(averages, current, 1 - decay)
        # Looked up anew: a move to another device replaces a module's buffers, though never its parameters.
        for average_module, module in self._buffered:
            for average, buffer in zip(average_module.buffers(False), module.buffers(False), strict=True):
                average.copy_(buffer)
