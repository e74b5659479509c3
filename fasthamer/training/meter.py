"""Loss terms gathered without waiting for the device, averaged and checked once a log line."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor


class Meter:
    """Collects one dictionary of scalars a batch; reading it is the loop's only synchronisation."""

    def __init__(self, accelerator: Accelerator, unlogged: dict[str, Any] | None = None) -> None:
        """
        Args:
            accelerator: of the run.
            unlogged: from `unlogged`, of the checkpoint from which the run goes on.
        """
        before = unlogged or {"names": [], "steps": [], "rows": []}
        self.accelerator = accelerator
        self.names: list[str] = before["names"]
        self.steps: list[int] = before["steps"]
        self.rows: list[Tensor] = [torch.tensor(row, device=accelerator.device) for row in before["rows"]]

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
        table = self._table()
        self.steps, self.rows = [], []
        return dict(zip(self.names, table.mean(0).tolist(), strict=True))

    def unlogged(self) -> dict[str, Any]:
        """For a checkpoint between two log lines: what the next line averages too. Every process calls this.

        Raises:
            FloatingPointError: as `read`.
        """
        return {"names": self.names, "steps": self.steps, "rows": self._table().tolist()} if self.rows else {}

    def _table(self) -> Tensor:
        """(batches, terms) on the CPU, means over all processes."""
        table = self.accelerator.reduce(torch.stack(self.rows), reduction="mean").cpu()
        wrong = (~table.isfinite()).nonzero()
        if len(wrong):
            row, column = wrong[0].tolist()
            raise FloatingPointError(
                f"step {self.steps[row]}: the loss term {self.names[column]!r} is {table[row, column]}; "
                "try a lower TRAIN.LR, TRAIN.CLIP above 0 or TRAIN.PRECISION fp32"
            )
        return table
