"""Datasets made of others: with labels on some samples only, with synthetic images added, or with fixed crops."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from fasthamer.data.articulation import Articulation
from fasthamer.data.dataset import DatasetInfo, HandDataset, Wrapped
from fasthamer.data.sample import without_labels
from fasthamer.types import Batch


class PartlyLabelled(Wrapped):
    """A dataset of which only some samples keep their labels; the others keep their image alone.

    Args:
        dataset: the whole.
        labelled: the samples that keep their labels, see `choose_labelled`.
    """

    def __init__(self, dataset: HandDataset, labelled: NDArray[np.int64]) -> None:
        super().__init__(dataset)
        self.info = dataset.info._replace(name="PartlyLabelled")
        self.labelled = np.zeros(len(dataset), dtype=bool)
        self.labelled[labelled] = True

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        item = self.dataset[key]
        return item if self.labelled[key[1]] else without_labels(item)

    def articulation(self, index: int) -> Articulation | None:
        return super().articulation(index) if self.labelled[index] else None


class LabelledOnly(Wrapped):
    """The labelled samples of a dataset: all that is of use without a teacher.

    Args:
        dataset: the whole.
        labelled: the samples that are kept, see `choose_labelled`.
    """

    def __init__(self, dataset: HandDataset, labelled: NDArray[np.int64]) -> None:
        super().__init__(dataset)
        self.info = dataset.info._replace(name="LabelledOnly")
        self.labelled = labelled

    def __len__(self) -> int:
        return len(self.labelled)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        epoch, index = key
        return self.dataset[(epoch, self.inner(index))]._replace(index=torch.tensor(index))

    def inner(self, index: int) -> int:
        return int(self.labelled[index])


def choose_labelled(length: int, fraction: float, seed: int) -> NDArray[np.int64]:
    """Which of `length` samples have labels: the same for every run with this seed, at least one.

    Raises:
        ValueError: the fraction is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"DATA.LABELLED is {fraction}: it is the fraction of images with labels, in (0, 1]")
    kept = max(1, round(fraction * length))
    return np.sort(np.random.default_rng(seed).permutation(length)[:kept])


class WithSynthetic(HandDataset):
    """A dataset followed by as many synthetic samples as make up a given fraction of an epoch.

    Each epoch continues in the synthetic dataset where the previous one stopped, and wraps around at its end.

    Args:
        images: all of its samples are in every epoch.
        synthetic: the dataset of the added samples.
        fraction: of an epoch that is synthetic, in (0, 1).

    Raises:
        ValueError: the fraction is not in (0, 1).
    """

    info = DatasetInfo("WithSynthetic")

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

    def describe(self, index: int) -> str:
        synthetic = f"sample {index} (synthetic)"  # another one in each epoch
        return self.images.describe(index) if index < len(self.images) else synthetic


class Views(Wrapped):
    """The first `views` epochs of a dataset as one: `dataset[(epoch, index)]` no longer depends on the epoch.

    Args:
        dataset: augmented or not.
        views: crops of each of its samples.

    Raises:
        ValueError: `views` is less than one.
    """

    info = DatasetInfo("Views")

    def __init__(self, dataset: HandDataset, views: int) -> None:
        if views < 1:
            raise ValueError(f"TEACHER.CACHE_VIEWS is {views}: at least one crop of each image, or 0")
        super().__init__(dataset)
        self.info, self.views = Views.info, views

    def __len__(self) -> int:
        return self.views * len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        index = key[1]
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return self.dataset[divmod(index, len(self.dataset))]._replace(index=torch.tensor(index))

    def inner(self, index: int) -> int:
        return index % len(self.dataset)
