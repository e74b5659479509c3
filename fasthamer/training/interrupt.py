"""Ctrl-C and SIGTERM as a request that the loop honours between two steps."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from accelerate import Accelerator


class Interrupted(Exception):
    """A command stopped because it was asked to; what is done is saved."""

    def __init__(self, message: str, terminated: bool = False) -> None:
        """
        Args:
            message: one line.
            terminated: by SIGTERM, as schedulers send it; else by Ctrl-C.
        """
        super().__init__(message)
        self.exit_code = 0 if terminated else 1  # a scheduler asked for it; a user may want to know


class InterruptHandler:
    """`with InterruptHandler() as interrupt:` a first signal sets `interrupt.requested`.

    A second Ctrl-C acts at once. Further SIGTERMs change nothing: launchers pass on the one that their workers, as
    members of the same process group, have got already.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = self.terminated = self._cutting = False

    def __enter__(self) -> InterruptHandler:
        self.before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def requested_anywhere(self, accelerator: Accelerator) -> bool:
        """Whether any process was asked to stop: all must stop at the same step, so all ask at the same step.

        A signal that arrives while they ask counts the next time.
        """
        if accelerator.num_processes == 1:
            return self.requested
        flags = torch.tensor([float(self.requested), float(self.terminated)], device=accelerator.device)
        requested, terminated = (accelerator.reduce(flags) > 0).tolist()
        self.requested, self.terminated = self.requested or requested, self.terminated or terminated
        return bool(requested)

    def error(self, message: str) -> Interrupted:
        """What to raise; its exit code depends on the signal."""
        return Interrupted(message, self.terminated)

    @contextmanager
    def cutting(self) -> Iterator[None]:
        """Around work that can be repeated: a signal raises `Interrupted` wherever the program is."""
        self._cutting = True
        try:
            if self.requested:
                raise self.error("stopped")
            yield
        finally:
            self._cutting = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self.terminated = self.terminated or number == signal.SIGTERM
        signal.signal(signal.SIGINT, self.before[signal.SIGINT])
        if self._cutting:
            self._cutting = False
            raise self.error("stopped")


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Around a whole command: where no `InterruptHandler` is at work, SIGTERM raises `Interrupted` at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted("stopped", terminated=True)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
