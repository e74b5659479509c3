"""Streams made of other datasets: an indexed dataset as a stream, and weighted mixes of streams."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fasthamer.data.dataset import HandDataset, HandStream, Place
from fasthamer.data.faults import UNREADABLE
from fasthamer.data.subsets import LabelledOnly, PartlyLabelled, choose_labelled
from fasthamer.one_line import one_line
from fasthamer.types import Batch

CHOICES = 4096  # draws of a mix that are made at once
PART_STRIDE = 10**12  # a sample's index in a mix is part number * PART_STRIDE + its index in the part


class Indexed(HandStream):
    """An indexed dataset as a stream: each epoch is a new shuffle, distributed to the lanes one by one.

    Args:
        dataset: `dataset[(epoch, index)]` gives an item.
        seed: of the shuffles.
        fingerprint: of the dataset.
    """

    def __init__(self, dataset: HandDataset, seed: int, fingerprint: str) -> None:
        if not len(dataset):
            raise ValueError("an empty set cannot be part of a mix")
        self.dataset, self.seed, self.fingerprint = dataset, seed, fingerprint
        self.summary = f"{len(dataset)} images"

    def walk(self, lane: int, lanes: int, place: Place, skipped: list[str]) -> Iterator[tuple[Batch, Place]]:
        epoch, order = -1, np.empty(0, dtype=np.int64)
        length = len(self.dataset)
        position, failed = lane if place is None else int(place), 0
        while True:
            if position // length != epoch:
                epoch = position // length
                order = np.random.default_rng([self.seed, epoch]).permutation(length)
            key = (epoch, int(order[position % length]))
            position += lanes
            try:
                item = self.dataset[key]
            except UNREADABLE as error:
                skipped.append(one_line(error))
                failed += 1
                if failed > length:
                    raise ValueError(f"not one of {length} samples can be read: {skipped[-1]}") from None
                continue
            failed = 0
            yield item, position

    def describe(self, index: int) -> str:
        return self.dataset.describe(index)

    def partly_labelled(self, fraction: float, only: bool) -> Indexed:
        labelled = choose_labelled(len(self.dataset), fraction, self.seed)
        part = (LabelledOnly if only else PartlyLabelled)(self.dataset, labelled)
        return Indexed(part, self.seed, self.fingerprint)


class Mix(HandStream):
    """Several streams, each sample drawn from one of them with given probabilities, as HaMeR's training does.

    Args:
        parts: the streams.
        weights: of each; in proportion.
        seed: of the draws.
        choices: parts that are drawn at once; part of what the seed determines.

    Raises:
        ValueError: a weight is not a positive number.
    """

    def __init__(
        self, parts: Sequence[HandStream], weights: Sequence[float], seed: int, choices: int = CHOICES
    ) -> None:
        if not parts or len(parts) != len(weights) or not all(0 < weight < np.inf for weight in weights):
            raise ValueError(f"a mix takes a positive weight for each of its {len(parts)} sets, got {list(weights)}")
        self.parts, self.seed, self.choices = list(parts), seed, choices
        self.shares: NDArray[np.float64] = np.asarray(weights, np.float64) / sum(weights)
        self.summary = ", ".join(
            f"{part.summary} ({share:.3g})" for part, share in zip(self.parts, self.shares, strict=True)
        )
        about = [[part.fingerprint, f"{share:.9f}"] for part, share in zip(self.parts, self.shares, strict=True)]
        self.fingerprint = hashlib.sha256(str(about).encode()).hexdigest()[:16]

    def walk(self, lane: int, lanes: int, place: Place, skipped: list[str]) -> Iterator[tuple[Batch, Place]]:
        drawn, places = (0, [None] * len(self.parts)) if place is None else (int(place[0]), list(place[1]))
        if len(places) != len(self.parts):
            raise ValueError(f"the run was started with a mix of {len(places)} sets, not {len(self.parts)}")
        walks = [part.walk(lane, lanes, begin, skipped) for part, begin in zip(self.parts, places, strict=True)]
        block, choices = -1, np.empty(0, dtype=np.int64)
        while True:
            if drawn // self.choices != block:
                block = drawn // self.choices
                rng = np.random.default_rng([self.seed, lane, block])
                choices = rng.choice(len(self.parts), self.choices, p=self.shares)
            chosen = int(choices[drawn % self.choices])
            item, places[chosen] = next(walks[chosen])
            drawn += 1
            item = item._replace(index=item.index + chosen * PART_STRIDE)
            yield item, [drawn, list(places)]

    def describe(self, index: int) -> str:
        part, number = divmod(index, PART_STRIDE)
        return self.parts[part].describe(number)

    def partly_labelled(self, fraction: float, only: bool) -> Mix:
        parts = [part.partly_labelled(fraction, only) for part in self.parts]
        return Mix(parts, self.shares.tolist(), self.seed, self.choices)
