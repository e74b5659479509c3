"""Datasets made of others: with labels on some images only, or with synthetic hands among the images."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from fasthamer.data.dataset import HandDataset
from fasthamer.data.sample import without_labels
from fasthamer.types import Batch


class PartlyLabelled(Dataset):
    """A dataset of which only some samples keep their labels; the others are images about which nothing is known.

    Args:
        dataset: the whole.
        labelled: the samples that keep their labels, see `choose_labelled`.
    """

    def __init__(self, dataset: HandDataset, labelled: NDArray[np.int64]) -> None:
        self.dataset = dataset
        self.labelled = np.zeros(len(dataset), dtype=bool)
        self.labelled[labelled] = True

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        item = self.dataset[key]
        return item if self.labelled[key[1]] else without_labels(item)


class LabelledOnly(Dataset):
    """The labelled part of a dataset: all there is to learn from without a teacher.

    Args:
        dataset: the whole.
        labelled: the samples that are kept, see `choose_labelled`.
    """

    def __init__(self, dataset: HandDataset, labelled: NDArray[np.int64]) -> None:
        self.dataset, self.labelled = dataset, labelled

    def __len__(self) -> int:
        return len(self.labelled)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        epoch, index = key
        return self.dataset[(epoch, int(self.labelled[index]))]


def choose_labelled(length: int, fraction: float, seed: int) -> NDArray[np.int64]:
    """Which of `length` samples have labels: the same for every run with this seed, at least one.

    Raises:
        ValueError: no fraction.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"DATA.LABELLED is {fraction}: it is the fraction of images with labels, in (0, 1]")
    kept = max(1, round(fraction * length))
    return np.sort(np.random.default_rng(seed).permutation(length)[:kept])


class WithSynthetic(Dataset):
    """Images and, behind them, as many synthetic hands as make up a given part of an epoch.

    Every epoch goes on where the last one stopped in the synthetic set, which starts anew when it is used up.

    Args:
        images: all of them are in every epoch.
        synthetic: where the others come from.
        fraction: of an epoch that is synthetic, in (0, 1).

    Raises:
        ValueError: no such fraction.
    """

    def __init__(self, images: HandDataset, synthetic: HandDataset, fraction: float) -> None:
        if not 0 < fraction < 1:
            raise ValueError(f"DATA.MIX_SYNTHETIC is {fraction}: it is a part of each epoch, 0 or more and less than 1")
        self.images, self.synthetic = images, synthetic
        self.added = max(1, round(len(images) * fraction / (1 - fraction)))

    def __len__(self) -> int:
        return len(self.images) + self.added

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        epoch, index = key
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        if index < len(self.images):
            return self.images[key]
        drawn = epoch * self.added + index - len(self.images)
        rounds, number = divmod(drawn, len(self.synthetic))
        return self.synthetic[(rounds, number)]._replace(index=torch.tensor(index))


class Views(Dataset):
    """The first `views` epochs of a dataset as one: `ds[(epoch, index)]` does not depend on the epoch any more.

    Args:
        dataset: augmented or not.
        views: crops of each of its samples.

    Raises:
        ValueError: not at least one.
    """

    def __init__(self, dataset: HandDataset, views: int) -> None:
        if views < 1:
            raise ValueError(f"TEACHER.CACHE_VIEWS is {views}: at least one crop of each image, or 0")
        self.dataset, self.views = dataset, views

    def __len__(self) -> int:
        return self.views * len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        index = key[1]
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return self.dataset[divmod(index, len(self.dataset))]._replace(index=torch.tensor(index))
