"""Ctrl-C (and a cluster's SIGTERM) as a wish, granted between two steps."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

import torch
from accelerate import Accelerator


class Interrupted(Exception):
    """Training stopped because the user asked; the checkpoint is saved."""


class StopWish:
    """`with StopWish() as wish:` the first signal sets `wish.made`, a second one acts at once as usual."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.made = False

    def __enter__(self) -> StopWish:
        self.before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._restore()

    def of_any(self, accelerator: Accelerator) -> bool:
        """Whether any process was asked to stop: all must stop at the same step, so all ask at the same step."""
        if accelerator.num_processes == 1:
            return self.made
        return bool(accelerator.reduce(torch.tensor(float(self.made), device=accelerator.device)) > 0)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.made = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
