"""The two kinds of datasets, indexed and streamed, and what identifies and describes one."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from fasthamer.data.articulation import Articulation
from fasthamer.types import Batch

Place = Any  # a position in a stream: lists of numbers, as JSON has them; None is the start


class DatasetInfo(NamedTuple):
    """What an indexed dataset offers besides its items."""

    name: str  # part of `fingerprint`: never change it, or existing teacher caches and runs no longer match
    protocol: str = "freihand"  # how it is evaluated: one of `fasthamer.metrics.protocols.PROTOCOLS`
    tips: str = "hamer"  # where its labels put fingertips: one of `fasthamer.hand.conventions.TIPS`
    meshes: bool = False  # vertices are among the labels
    poses: bool = False  # `articulation` gives hand poses
    boxes: bool = False  # annotated boxes whose longer side PCK is relative to: half of `raw_sample`'s box
    cameras: bool = False  # `camera` gives intrinsics; 3D labels are then in that camera's frame
    source: Path | None = None  # the annotation file that lists its samples, where there is one
    left_out: tuple[str, ...] = ()  # what the reader left out, a line each


class HandDataset(Dataset, ABC):
    """An indexed dataset: `dataset[(epoch, index)]` is a `Batch` item, always the same one."""

    info: DatasetInfo

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, key: tuple[int, int]) -> Batch: ...

    def camera(self, index: int) -> NDArray[np.float64]:
        """(3, 3) intrinsics in pixels of the image of sample `index`, where `info.cameras`.

        Raises:
            NotImplementedError: the dataset has none.
        """
        raise NotImplementedError(f"{self.info.name} has no cameras")

    def sample_name(self, index: int) -> str:
        """The name of sample `index` in the official lists and submissions; its number unless the dataset has names."""
        return f"{index}"

    def describe(self, index: int) -> str:
        """Sample `index` for messages: its number, and its file where it has one."""
        return f"sample {index}"

    def articulation(self, index: int) -> Articulation | None:
        """The hand pose among the labels of sample `index`, read without its image; None where it has none."""
        return None


class Wrapped(HandDataset):
    """A dataset made of another; whatever is asked of sample `index` is asked of the other's sample `inner(index)`.

    Args:
        dataset: the other.
    """

    def __init__(self, dataset: HandDataset) -> None:
        self.dataset, self.info = dataset, dataset.info

    def __len__(self) -> int:
        return len(self.dataset)

    def inner(self, index: int) -> int:
        """The number that sample `index` has in the other dataset."""
        return index

    def camera(self, index: int) -> NDArray[np.float64]:
        return self.dataset.camera(self.inner(index))

    def sample_name(self, index: int) -> str:
        return self.dataset.sample_name(self.inner(index))

    def describe(self, index: int) -> str:
        return self.dataset.describe(self.inner(index))

    def articulation(self, index: int) -> Articulation | None:
        return self.dataset.articulation(self.inner(index))


class HandStream(Dataset, ABC):
    """A dataset that is read sequentially, for example from tar shards, and cannot be indexed.

    Several loader processes read it at once, each along a lane of its own; together the lanes read every sample once
    an epoch. A walk is endless, a pure function of (seed, lane, number of lanes), and resumes exactly at any position
    that it has yielded.
    """

    summary: str  # its size for messages, such as `131 shards`
    fingerprint: str  # 16 hexadecimal digits: other data, other digits

    @abstractmethod
    def walk(self, lane: int, lanes: int, place: Place, skipped: list[str]) -> Iterator[tuple[Batch, Place]]:
        """Items without end, each with the position at which the walk resumes after it.

        Args:
            lane: which one, from 0.
            lanes: how many there are.
            place: where to begin: a position that this lane has yielded, or None.
            skipped: gets a line for each sample that could not be read, naming it.

        Raises:
            ValueError: there is nothing that can be read.
        """

    def describe(self, index: int) -> str:
        """The sample whose item has this `index`, for messages."""
        return f"sample {index}"

    @abstractmethod
    def partly_labelled(self, fraction: float, only: bool) -> HandStream:
        """The same dataset in which a fraction of the samples keeps its labels; `only` leaves out the others."""


def fingerprint(dataset: HandDataset | HandStream) -> str:
    """16 hexadecimal digits that identify a dataset.

    Of an indexed one: a hash of its name, its length and its first, middle and last item. A stream has its own.
    """
    if isinstance(dataset, HandStream):
        return dataset.fingerprint
    digest = hashlib.sha256(f"{dataset.info.name} {len(dataset)}".encode())
    for index in sorted({0, len(dataset) // 2, len(dataset) - 1}):
        try:
            item: Sequence[Any] = dataset[(0, index)]
        except (ValueError, OSError):  # whoever reads the whole set reports it
            item = [f"sample {index} cannot be read"]
        for field in item:
            digest.update(np.ascontiguousarray(np.asarray(field)).tobytes())
    return digest.hexdigest()[:16]
