"""Datasets made of others: with labels on some pictures only, or with synthetic hands among the photographs."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from fasthamer.data.item import without_labels
from fasthamer.types import Batch


class HandDataset(Protocol):
    """What every dataset here is: `dataset[(epoch, index)]` gives a `Batch` item, always the same one."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: tuple[int, int]) -> Batch: ...


class PartlyLabelled(Dataset):
    """A dataset of which only some samples keep their labels; the others are pictures about which nothing is known.

    Args:
        dataset: the whole.
        fraction: how many keep their labels, in (0, 1]; at least one sample does.
        seed: chooses which; the choice holds for all epochs.

    Raises:
        ValueError: no fraction.
    """

    def __init__(self, dataset: HandDataset, fraction: float, seed: int) -> None:
        if not 0 < fraction <= 1:
            raise ValueError(f"DATA.LABELLED is {fraction}: it is the fraction of pictures with labels, in (0, 1]")
        self.dataset = dataset
        kept = max(1, round(fraction * len(dataset)))
        self.labelled = np.zeros(len(dataset), dtype=bool)
        self.labelled[np.random.default_rng(seed).permutation(len(dataset))[:kept]] = True

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        item = self.dataset[key]
        return item if self.labelled[key[1]] else without_labels(item)


class WithSynthetic(Dataset):
    """Photographs and, behind them, as many synthetic hands as make up a given part of an epoch.

    Every epoch goes on where the last one stopped in the synthetic set, which starts anew when it is used up.

    Args:
        photographs: all of them are in every epoch.
        synthetic: where the others come from.
        fraction: of an epoch that is synthetic, in (0, 1).

    Raises:
        ValueError: no such fraction.
    """

    def __init__(self, photographs: HandDataset, synthetic: HandDataset, fraction: float) -> None:
        if not 0 < fraction < 1:
            raise ValueError(f"DATA.MIX_SYNTHETIC is {fraction}: it is a part of each epoch, 0 or more and less than 1")
        self.photographs, self.synthetic = photographs, synthetic
        self.added = max(1, round(len(photographs) * fraction / (1 - fraction)))

    def __len__(self) -> int:
        return len(self.photographs) + self.added

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        epoch, index = key
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        if index < len(self.photographs):
            return self.photographs[key]
        drawn = epoch * self.added + index - len(self.photographs)
        rounds, number = divmod(drawn, len(self.synthetic))
        return self.synthetic[(rounds, number)]._replace(index=torch.tensor(index))
