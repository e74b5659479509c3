"""Loss terms gathered without waiting for the device, averaged and checked once a log line."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor


class Meter:
    """Collects one dictionary of scalars a batch; reading it is the loop's only synchronisation."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.steps: list[int] = []
        self.rows: list[Tensor] = []
        self.names: list[str] = []

    def add(self, step: int, terms: dict[str, Tensor]) -> None:
        """Notes the terms of one batch; the same names each time."""
        self.names = list(terms)
        self.steps.append(step)
        self.rows.append(torch.stack([term.detach().float() for term in terms.values()]))

    def read(self) -> dict[str, float]:
        """Means over the batches since the last reading, and over all processes; empty if there were none.

        Raises:
            FloatingPointError: a term was not finite, naming the first such step and term.
        """
        if not self.rows:
            return {}
        table = self.accelerator.reduce(torch.stack(self.rows), reduction="mean")  # (batches, terms)
        table, steps = table.cpu(), self.steps
        self.steps, self.rows = [], []
        wrong = (~table.isfinite()).nonzero()
        if len(wrong):
            row, column = wrong[0].tolist()
            raise FloatingPointError(
                f"step {steps[row]}: the loss term {self.names[column]!r} is {table[row, column]}; "
                "try a lower TRAIN.LR, TRAIN.CLIP above 0 or TRAIN.PRECISION fp32"
            )
        return dict(zip(self.names, table.mean(0).tolist(), strict=True))
