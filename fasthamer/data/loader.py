"""Training batches in a reproducible order, from loader processes.

The samples of step k are a pure function of (seed, k) for an indexed dataset, whatever the number of processes. For a
stream they depend on the numbers of processes and workers too, and a checkpoint keeps the position of each lane.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, default_collate, get_worker_info

from fasthamer.data.dataset import HandDataset, HandStream, Place
from fasthamer.data.faults import FEWEST, Faults, Read, Tolerant
from fasthamer.data.loader_processes import PATIENCE, quiet_worker, readable
from fasthamer.types import Batch

Key = tuple[int, int]  # epoch and index of a dataset's item
SMALL_FIELDS = ("index", *(name for name in Batch._fields if name not in ("image", "index")))  # 8-byte numbers first


class Stream:
    """An endless batch sampler: each epoch is a new shuffle, and a batch may contain samples of two epochs.

    A resumed run starts at `first_batch` and gets the batches of the uninterrupted one.
    """

    def __init__(
        self, length: int, batch: int, seed: int, first_batch: int = 0, rank: int = 0, processes: int = 1
    ) -> None:
        """
        Args:
            length: items of the dataset.
            batch: items per batch and process.
            seed: of the shuffles.
            first_batch: number of the first batch to yield, counted from 0.
            rank: this process.
            processes: how many share the batches; together they get those of one process with as large a batch.
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
    """Batches of a stream, for the loader: each worker process reads a lane of its own.

    Batch b of a process comes from its lane b modulo the number of workers, in a resumed run too.
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
            images: the stream.
            batch: items per batch and process.
            first_batch: number of the first batch to yield, counted from 0.
            rank: this process.
            processes: how many share the stream.
            places: the positions at which this process's lanes resume; None is the start.
        """
        self.images, self.batch, self.first_batch = images, batch, first_batch
        self.rank, self.processes, self.places = rank, processes, places

    def __iter__(self) -> Iterator[tuple[Any, int, Place, list[str]]]:
        """Yields batches, each with its lane in this process, the position after it and the newly skipped samples."""
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


class Feed:
    """Endless batches of a training set in a reproducible order; implements `fasthamer.training.trainer.Feed`.

    `position` is None for an indexed dataset; for a stream it holds the positions of this process's lanes. In place of
    a sample that cannot be read comes another one, of a stream the next.
    """

    def __init__(
        self,
        images: HandDataset | HandStream,
        batch: int,
        seed: int,
        rank: int = 0,
        processes: int = 1,
        workers: int = 0,
        pin: bool = False,
        faults: float = 1.0,
        patience: float = PATIENCE,
    ) -> None:
        """
        Args:
            images: the training set.
            batch, seed, rank, processes: see `Stream` and `Lanes`.
            workers: loader processes.
            pin: put batches into pinned memory, from which a GPU copies.
            faults: DATA.FAULTS: the largest share of samples that may be unreadable.
            patience: seconds without a batch after which the loader processes are taken to hang.
        """
        self.faults = Faults(faults)
        self.position: list[Place] | None = None
        if not isinstance(images, HandStream) and len(images) < 1:
            raise ValueError("the training set is empty")
        self.images, self.batch, self.seed = images, batch, seed
        self.rank, self.processes, self.workers = rank, processes, workers
        ahead = 4 if workers else None  # batches that a worker prepares in advance
        self.options: dict[str, Any] = {"num_workers": workers, "prefetch_factor": ahead, "pin_memory": pin}
        self.options |= {"worker_init_fn": quiet_worker, "timeout": patience if workers else 0.0}

    @property
    def skipped(self) -> Collection[str]:
        """A line for each sample that could not be read, in order, each once."""
        return self.faults.lines

    def describe(self, sample: int) -> str:
        """A sample, by the `index` of its item, for messages."""
        return self.images.describe(sample)

    def batches(self, first_batch: int = 0, position: list[Place] | None = None) -> Generator[Any, None, None]:
        """The batches of this process.

        Args:
            first_batch: number of the first batch to yield, counted from 0.
            position: of a stream, `position` after the batch before it; None is the start.

        Raises:
            BadSample: too many samples cannot be read.
            LoaderError: a loader process died, hangs or ran out of memory.
        """
        if not isinstance(self.images, HandStream):
            images, order = Tolerant(self.images, self.seed), self._order(first_batch)
            collate = partial(_with_faults, collate=pack_batch if self.workers else default_collate)
            loader: DataLoader = DataLoader(images, batch_sampler=order, collate_fn=collate, **self.options)  # type: ignore[arg-type]
            for batch, lines in readable(loader):
                self.faults.add(lines, len(images))
                yield unpack_batch(batch)
            return
        self.position = list(position) if position else [None] * max(1, self.workers)
        lanes = Lanes(self.images, self.batch, first_batch, self.rank, self.processes, list(self.position))
        loader = DataLoader(lanes, batch_size=None, collate_fn=_as_it_is, **self.options)
        for number, (batch, lane, place, lines) in enumerate(readable(loader), 1):
            self.position[lane] = place
            self.faults.add(lines, max(FEWEST, number * self.batch))
            yield unpack_batch(batch)

    def _order(self, first_batch: int) -> Stream:
        return Stream(len(self.images), self.batch, self.seed, first_batch, self.rank, self.processes)  # type: ignore[arg-type]


def check_lanes(facts: Mapping[str, Any], processes: int, workers: int) -> None:
    """Refuses to resume with another number of processes, or of a stream's lanes: its steps would see other samples.

    Args:
        facts: of the checkpoint; `processes` (older ones have none) and, for a stream only, `lanes`.
        processes: of the resumed run.
        workers: loader processes of each.

    Raises:
        ValueError: the numbers differ.
    """
    if facts.get("processes", processes) != processes:
        raise ValueError(
            f"the run trains in {facts['processes']} processes, not {processes}, and another number sees other samples "
            "in each step: start as many, or a new run from its student with --init"
        )
    lanes = facts.get("lanes")
    if lanes is None:
        return
    before, now = (len(lanes), len(lanes[0])), (processes, max(1, workers))
    if before != now:
        raise ValueError(
            f"the run reads its shards in {before[0]} processes with {before[1]} loader workers each, not {now[0]} "
            f"with {now[1]}: resume it so (DATA.WORKERS {before[1]}), or start a new run from its student with --init"
        )


class PackedBatch(NamedTuple):
    """A `Batch` in two tensors.

    Each tensor that is sent between processes costs a file handle, two system calls and a mapping; a `Batch` has
    thirteen, of which twelve are small.
    """

    image: Tensor  # (B, 3, S, S)
    rest: Tensor  # (N,) float32: the other fields one after the other, each contiguous; integers as their bits
    shapes: tuple[tuple[int, ...], ...]  # of each of them, batch axis included


def pack_batch(items: list[Any]) -> Any:
    """Collates `Batch` items into a `PackedBatch`; items of other types as torch does."""
    if type(items[0]) is not Batch:
        return default_collate(items)
    columns = [torch.stack([getattr(item, name) for item in items]) for name in SMALL_FIELDS]
    shapes = tuple(tuple(column.shape) for column in columns)
    rest = torch.cat([_as_float(column).reshape(-1) for column in columns])
    return PackedBatch(default_collate([item.image for item in items]), rest, shapes)


def unpack_batch(batch: Any) -> Any:
    """The `Batch` of a `PackedBatch`, its small fields views of one tensor; anything else as it is."""
    if not isinstance(batch, PackedBatch):
        return batch
    fields, begin = {"image": batch.image}, 0
    for name, shape in zip(SMALL_FIELDS, batch.shapes, strict=True):
        length = torch.Size(shape).numel() * (2 if name == "index" else 1)
        piece = batch.rest[begin : begin + length]
        fields[name] = piece.view(torch.int64) if name == "index" else piece.view(shape)
        begin += length
    return Batch(**fields)


def _as_float(column: Tensor) -> Tensor:
    return column.view(torch.float32) if column.dtype == torch.int64 else column


def _with_faults(read: Read, collate: Callable[[list[Batch]], Any]) -> tuple[Any, list[str]]:
    """The collated batch, and a line for each sample that could not be read."""
    return collate(read.items), [line for _, line in read.faults]


def _as_it_is(batch: Any) -> Any:
    return batch
