"""Samples that cannot be read: replaced in training, left out of an evaluation, and counted in both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset

from fasthamer.data.dataset import HandDataset
from fasthamer.one_line import one_line
from fasthamer.types import Batch

TRIES = 10  # samples that are tried in place of one
FEWEST = 1000  # samples of a stream, whose number is not known, from which on the share of unreadable ones counts
UNREADABLE = (ValueError, OSError)  # what a dataset raises for a sample; the message names its file


class BadSample(ValueError):
    """Samples that cannot be read, more than are allowed; the message is one line."""


class Read(NamedTuple):
    """What was read of a batch."""

    items: list[Batch]
    indices: list[int]  # of the items
    faults: list[tuple[int, str]]  # index and description of each sample that could not be read


class Tolerant(Dataset):
    """An indexed dataset for a loader with a batch sampler: an unreadable sample does not end the loading.

    In training another sample takes its place, a function of (seed, epoch, index), so that a resumed run gets the same.
    """

    def __init__(self, images: HandDataset, seed: int | None) -> None:
        """
        Args:
            images: the dataset.
            seed: of the replacements; None: unreadable samples are left out.
        """
        self.images, self.seed = images, seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Read:
        """
        Raises:
            ValueError: no sample could be read in place of one.
        """
        read = Read([], [], [])
        for epoch, index in keys:
            others = [] if self.seed is None else self._others(self.seed, epoch, index)
            for tried in (index, *others):
                try:
                    read.items.append(self.images[(epoch, tried)])
                    read.indices.append(tried)
                    break
                except UNREADABLE as error:
                    read.faults.append((tried, one_line(error)))
            else:
                if others:
                    raise ValueError(
                        f"{TRIES + 1} samples of {len(self)} in a row cannot be read: {read.faults[-1][1]}"
                    )
        return read

    def _others(self, seed: int, epoch: int, index: int) -> list[int]:
        return np.random.default_rng([seed, epoch, index]).integers(len(self), size=TRIES).tolist()


def first_readable(images: HandDataset, number: int) -> list[Batch]:
    """The first so many items of a dataset that can be read."""
    items: list[Batch] = []
    reading, index = Tolerant(images, None), 0
    while len(items) < number and index < len(images):
        items += reading.__getitems__([(0, index)]).items
        index += 1
    return items


class Faults:
    """The samples that could not be read, each once, up to an allowed share of all."""

    def __init__(self, allowed: float) -> None:
        """
        Args:
            allowed: DATA.FAULTS.
        """
        self.allowed = allowed
        self.lines: dict[str, None] = {}  # in order

    def add(self, lines: Iterable[str], samples: int) -> None:
        """Notes some.

        Args:
            lines: their descriptions.
            samples: how many there are in all.

        Raises:
            BadSample: more than are allowed.
        """
        self.lines.update(dict.fromkeys(lines))
        if len(self.lines) > min(self.allowed * samples, samples - 1):
            raise BadSample(
                f"{len(self.lines)} of {samples} samples cannot be read, DATA.FAULTS allows {self.allowed:g} of them: "
                f"{'; '.join(list(self.lines)[:3])}"
            )
