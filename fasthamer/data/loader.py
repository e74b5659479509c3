"""The order of training.

Which samples step k sees is a pure function of (seed, k) where the set is indexed, on any number of processes; where it
is walked along lanes, of the numbers of processes and workers too, and a checkpoint keeps the lanes' places.
"""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import cv2
import numpy as np
from torch.utils.data import DataLoader, IterableDataset, default_collate, get_worker_info

from fasthamer.data.batching import pack_batch, unpack_batch
from fasthamer.data.dataset import HandStream, Place

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


class Lanes(IterableDataset):
    """Batches of a walked set, for the loader: each worker process has a lane of its own.

    Batch b of a process comes from its lane b modulo the number of workers, also where a resumed run begins with b.
    """

    def __init__(
        self,
        images: HandStream,
        batch: int,
        first_batch: int = 0,
        rank: int = 0,
        processes: int = 1,
        places: list[Place] | None = None,
    ) -> None:
        """
        Args:
            images: the set.
            batch: items a batch and process.
            first_batch: number of the first batch to yield, counted from 0.
            rank: this process.
            processes: how many share the set.
            places: where this process's lanes go on; None is the start.
        """
        self.images, self.batch, self.first_batch = images, batch, first_batch
        self.rank, self.processes, self.places = rank, processes, places

    def __iter__(self) -> Iterator[tuple[Any, int, Place, list[str]]]:
        """Yields batches, each with its lane (of this process), the place behind it and what was skipped on the way."""
        info = get_worker_info()
        number, workers = (info.id, info.num_workers) if info else (0, 1)
        lane = (number + self.first_batch) % workers
        place = self.places[lane] if self.places else None
        skipped: list[str] = []
        walk = self.images.walk(self.rank * workers + lane, self.processes * workers, place, skipped)
        while True:
            items, places = zip(*(next(walk) for _ in range(self.batch)), strict=True)
            yield (pack_batch if info else default_collate)(list(items)), lane, places[-1], skipped.copy()
            skipped.clear()


class BadSample(ValueError):
    """A sample that could not be read; the message is the dataset's own, one line."""


class Feed:
    """Batches of a training set in a fixed order, without end: what `fasthamer.training.trainer.Feed` asks for.

    `position` is None for an indexed set; for a walked set it holds the places of this process's lanes. `skipped`
    holds a line for each sample that could not be read.
    """

    def __init__(
        self,
        images: Any,
        batch: int,
        seed: int,
        rank: int = 0,
        processes: int = 1,
        workers: int = 0,
        pin: bool = False,
    ) -> None:
        """
        Args:
            images: an indexed set, or a `HandStream`.
            batch, seed, rank, processes: see `Stream` and `Lanes`.
            workers: loader processes.
            pin: put batches where a GPU can fetch them.
        """
        self.skipped: dict[str, None] = {}  # in order, each once
        self.position: list[Place] | None = None
        self.walked = isinstance(images, HandStream)
        if not self.walked and len(images) < 1:
            raise ValueError("the training set is empty")
        self.images, self.batch, self.seed = images, batch, seed
        self.rank, self.processes, self.workers = rank, processes, workers
        ahead = 4 if workers else None  # batches a worker prepares before they are asked for
        self.options: dict[str, Any] = {"num_workers": workers, "prefetch_factor": ahead, "pin_memory": pin}
        self.options["worker_init_fn"] = quiet_worker

    def batches(self, first_batch: int = 0, position: list[Place] | None = None) -> Generator[Any, None, None]:
        """The batches of this process.

        Args:
            first_batch: number of the first batch to yield, counted from 0.
            position: of a walked set, `position` after the batch before it; None is the start.

        Raises:
            BadSample: the dataset refused a sample.
        """
        if not self.walked:
            order = Stream(len(self.images), self.batch, self.seed, first_batch, self.rank, self.processes)
            collate = pack_batch if self.workers else default_collate
            loader = DataLoader(self.images, batch_sampler=order, collate_fn=collate, **self.options)
            yield from map(unpack_batch, readable(loader))
            return
        self.position = list(position) if position else [None] * max(1, self.workers)
        lanes = Lanes(self.images, self.batch, first_batch, self.rank, self.processes, list(self.position))
        loader = DataLoader(lanes, batch_size=None, collate_fn=_as_it_is, **self.options)
        for batch, lane, place, skipped in readable(loader):
            self.position[lane] = place
            self.skipped.update(dict.fromkeys(skipped))
            yield unpack_batch(batch)


def check_lanes(facts: Mapping[str, Any], processes: int, workers: int) -> None:
    """Refuses to resume with another number of lanes, whose samples would not be those of the uninterrupted run.

    Args:
        facts: of the checkpoint; `lanes` is there for a walked set only.
        processes: of the resumed run.
        workers: loader processes of each.

    Raises:
        ValueError: the numbers differ.
    """
    lanes = facts.get("lanes")
    if lanes is None:
        return
    before, now = (len(lanes), len(lanes[0])), (processes, max(1, workers))
    if before != now:
        raise ValueError(
            f"the run reads its shards in {before[0]} processes with {before[1]} loader workers each, not {now[0]} "
            f"with {now[1]}: resume it so (DATA.WORKERS {before[1]}), or start a new run from its student with --init"
        )


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


def quiet_worker(_: int) -> None:
    """One thread each; Ctrl-C is the main process's to handle: it still needs batches to finish its step."""
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _as_it_is(batch: Any) -> Any:
    return batch
