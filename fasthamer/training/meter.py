"""Loss terms gathered without waiting for the device, averaged once a log line."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from fasthamer.training.guard import Skip


class Meter:
    """Collects one dictionary of scalars a batch; reading it waits for the device."""

    def __init__(self, accelerator: Accelerator, unlogged: dict[str, Any] | None = None) -> None:
        """
        Args:
            accelerator: of the run.
            unlogged: from `unlogged`, of the checkpoint from which the run goes on.
        """
        before = unlogged or {"names": [], "rows": [], "skipped": 0, "overflows": 0}
        self.accelerator = accelerator
        self.names: list[str] = before["names"]
        self.rows: list[Tensor] = [torch.tensor(row, device=accelerator.device) for row in before["rows"]]
        self.skipped: int = before["skipped"]
        self.overflows: int = before["overflows"]

    def add(self, batches: list[dict[str, Tensor]], skip: Skip | None) -> None:
        """Notes an optimizer step: the terms of its batches, the same names each time, or that it was not taken."""
        if skip is not None:
            self.skipped += not skip.overflow
            self.overflows += skip.overflow
            return
        for terms in batches:
            self.names = list(terms)
            self.rows.append(torch.stack([term.detach().float() for term in terms.values()]))

    def read(self) -> dict[str, float]:
        """Since the last reading: means over the batches and over all processes, and how many steps were skipped.

        Returns:
            The terms, absent if every step was skipped; `skipped_steps`; with fp16 `overflows`, the steps that its
            gradient scaler skipped.
        """
        counts = {"skipped_steps": self.skipped}
        if self.accelerator.scaler is not None:
            counts["overflows"] = self.overflows
        means = dict(zip(self.names, self._table().mean(0).tolist(), strict=True)) if self.rows else {}
        self.rows, self.skipped, self.overflows = [], 0, 0
        return means | counts

    def unlogged(self) -> dict[str, Any]:
        """For a checkpoint between two log lines: what the next line counts too. Every process calls this."""
        if not (self.rows or self.skipped or self.overflows):
            return {}
        rows = self._table().tolist() if self.rows else []
        return {"names": self.names, "rows": rows, "skipped": self.skipped, "overflows": self.overflows}

    def _table(self) -> Tensor:
        """(batches, terms) on the CPU, means over all processes."""
        return self.accelerator.reduce(torch.stack(self.rows), reduction="mean").cpu()
