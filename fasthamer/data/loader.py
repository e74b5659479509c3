"""Training batches in a reproducible order, from loader processes.

The samples of step k are a pure function of (seed, k) for an indexed dataset, whatever the number of processes. For a
stream they depend on the numbers of processes and workers too, and a checkpoint keeps the position of each lane.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from threading import Thread
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, default_collate, get_worker_info

from fasthamer.data.dataset import HandDataset, HandStream, Place
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


class BadSample(ValueError):
    """A sample that could not be read; the message is the dataset's own, one line."""


class Feed:
    """Endless batches of a training set in a reproducible order; implements `fasthamer.training.trainer.Feed`.

    `position` is None for an indexed dataset; for a stream it holds the positions of this process's lanes. `skipped`
    holds a line for each sample that could not be read.
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
    ) -> None:
        """
        Args:
            images: the training set.
            batch, seed, rank, processes: see `Stream` and `Lanes`.
            workers: loader processes.
            pin: put batches into pinned memory, from which a GPU copies.
        """
        self.skipped: dict[str, None] = {}  # in order, each once
        self.position: list[Place] | None = None
        if not isinstance(images, HandStream) and len(images) < 1:
            raise ValueError("the training set is empty")
        self.images, self.batch, self.seed = images, batch, seed
        self.rank, self.processes, self.workers = rank, processes, workers
        ahead = 4 if workers else None  # batches that a worker prepares in advance
        self.options: dict[str, Any] = {"num_workers": workers, "prefetch_factor": ahead, "pin_memory": pin}
        self.options["worker_init_fn"] = quiet_worker

    def describe(self, sample: int) -> str:
        """A sample, by the `index` of its item, for messages."""
        return self.images.describe(sample)

    def batches(self, first_batch: int = 0, position: list[Place] | None = None) -> Generator[Any, None, None]:
        """The batches of this process.

        Args:
            first_batch: number of the first batch to yield, counted from 0.
            position: of a stream, `position` after the batch before it; None is the start.

        Raises:
            BadSample: a sample could not be read.
        """
        if not isinstance(self.images, HandStream):
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
    """Refuses to resume with another number of lanes, which would read other samples than the uninterrupted run.

    Args:
        facts: of the checkpoint; it has `lanes` for a stream only.
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
    """The loader's batches; an error about a sample becomes one line, without a worker's traceback.

    Raises:
        BadSample: a sample could not be read.
    """
    try:
        with _sigterm_held():  # a worker ignores it only once it is initialised
            batches = iter(loader)
        yield from batches
    except (ValueError, OSError) as error:  # from a worker it carries that process's traceback: keep the last line
        line = str(error).strip().splitlines()[-1]
        raise BadSample(line.removeprefix(f"{type(error).__name__}: ")) from error


def quiet_worker(_: int) -> None:
    """Initialises a loader process: one thread; Ctrl-C and SIGTERM are left to the main process.

    Both often go to all processes of a group, and the main one needs its workers to finish its step. It ends them, by
    SIGTERM if need be; if it is killed, they notice that they have another parent.
    """
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        Thread(target=_wait_for_the_parents_sigterm, args=(os.getppid(),), daemon=True).start()
    else:  # macOS, Windows
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _wait_for_the_parents_sigterm(parent: int) -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
        pass
    os._exit(0)


@contextmanager
def _sigterm_held() -> Iterator[None]:
    """SIGTERM waits until the block ends; processes started in it have it blocked."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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


def _as_it_is(batch: Any) -> Any:
    return batch
