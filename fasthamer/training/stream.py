"""The order of training: which samples step k sees is a pure function of (seed, k), on any number of processes."""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator
from typing import Any

import cv2
import numpy as np
from torch.utils.data import DataLoader

Key = tuple[int, int]  # epoch and index: what datasets are asked for


class Stream:
    """A batch sampler without end: each epoch is a new shuffle, and batches run on across its edge.

    A resumed run starts at `first_batch` and meets exactly what it would have met.
    """

    def __init__(
        self, length: int, batch: int, seed: int, first_batch: int = 0, rank: int = 0, processes: int = 1
    ) -> None:
        """
        Args:
            length: items of the dataset.
            batch: items a batch and process.
            seed: of the shuffles.
            first_batch: number of the first batch to yield, counted from 0.
            rank: this process.
            processes: how many share the stream; together they see what one would with a batch as large.
        """
        if length < 1:
            raise ValueError("the training set is empty")
        self.length, self.batch, self.seed = length, batch, seed
        self.first_batch, self.rank, self.processes = first_batch, rank, processes

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, order = -1, np.empty(0, dtype=np.int64)
        number = self.first_batch
        while True:
            begin = (number * self.processes + self.rank) * self.batch
            keys = []
            for position in range(begin, begin + self.batch):
                if position // self.length != epoch:
                    epoch = position // self.length
                    order = np.random.default_rng([self.seed, epoch]).permutation(self.length)
                keys.append((epoch, int(order[position % self.length])))
            yield keys
            number += 1


class BadSample(ValueError):
    """A sample that could not be read; the message is the dataset's own, one line."""


def batches(dataset: Any, stream: Stream, workers: int, pin: bool = False) -> Generator[Any, None, None]:
    """Batches of `dataset` in the stream's order, without end; `workers` processes prepare them.

    Raises:
        BadSample: the dataset refused a sample.
    """
    loader = DataLoader(
        dataset,
        batch_sampler=stream,  # type: ignore[arg-type]
        num_workers=workers,
        worker_init_fn=_quiet_worker,
        pin_memory=pin,
        prefetch_factor=4 if workers else None,
    )
    yield from readable(loader)


def readable(loader: DataLoader) -> Iterator[Any]:
    """The loader's batches; what its dataset says of a sample it refuses comes as one line.

    Raises:
        BadSample: the dataset refused a sample.
    """
    try:
        yield from loader
    except (ValueError, OSError) as error:  # from a worker it carries that process's traceback: keep the last line
        words = str(error).strip().splitlines()[-1]
        raise BadSample(words.removeprefix(f"{type(error).__name__}: ")) from error


def _quiet_worker(_: int) -> None:
    """One thread each; Ctrl-C is the main process's to handle: it still needs batches to finish its step."""
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
