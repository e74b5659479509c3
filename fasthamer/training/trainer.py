"""What the training loop needs of a model in training and of its data. It knows nothing else of either."""

from __future__ import annotations

from collections.abc import Collection, Generator
from typing import Any, NamedTuple, Protocol

from accelerate import Accelerator
from torch import Tensor, nn

from fasthamer.training.checkpoint import Trainable
from fasthamer.training.guard import Skip


class Report(NamedTuple):
    """What a trainer adds to a log line."""

    values: dict[str, float]  # numbers by column name, such as learning_rate
    warning: str = ""  # one line for the user; empty = nothing is wrong


class Trainer(Protocol):
    """A model in training: what one optimizer step computes. Everything that a step changes is in `state`."""

    @property
    def accelerator(self) -> Accelerator:
        """Device, precision, accumulation, processes."""
        ...

    @property
    def model(self) -> nn.Module:
        """The model to evaluate and keep."""
        ...

    @property
    def state(self) -> Trainable:
        """What a checkpoint holds."""
        ...

    def begin(self, step: int, steps: int) -> None:
        """Before an optimizer step: `step` counts from 0, `steps` is the length of the run, for the schedule."""

    def training_step(self, batch: Any, number: int) -> dict[str, Tensor]:
        """One forward and backward pass, and the optimizer's step with the last batch of an accumulated step.

        Args:
            batch: as the feed yields it.
            number: of the batch within its optimizer step, from 0.

        Returns:
            The weighted loss terms, scalars; `total` is what is minimised.
        """
        ...

    def end(self, done: int) -> Skip | None:
        """After an optimizer step; `done` of them are done.

        Returns:
            Why it was skipped, in every process or in none; None if it was taken.
        """
        ...

    def report(self) -> Report:
        """For a log line."""
        ...


class Feed(Protocol):
    """Training batches without end, a pure function of the batch number and the position."""

    @property
    def position(self) -> Any:
        """Where this process reads on, as plain data for a checkpoint; None where the batch number says it all."""
        ...

    @property
    def skipped(self) -> Collection[str]:
        """Samples that could not be read so far, a line each."""
        ...

    def describe(self, sample: int) -> str:
        """A sample of a batch for messages: its number, and its file where it has one."""
        ...

    def batches(self, first_batch: int = 0, position: Any = None) -> Generator[Any, None, None]:
        """The batches of this process.

        Args:
            first_batch: number of the first batch to yield.
            position: what `position` was after the batch before it; None is the start.
        """
        ...
