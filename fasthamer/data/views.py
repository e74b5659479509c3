"""A few fixed crops of every photograph instead of a new one each epoch."""

from __future__ import annotations

import torch
from torch.utils.data import Dataset

from fasthamer.data.mixture import HandDataset
from fasthamer.types import Batch


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
            raise ValueError(f"TEACHER.CACHE_VIEWS is {views}: at least one crop of each photograph, or 0")
        self.dataset, self.views = dataset, views

    def __len__(self) -> int:
        return self.views * len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        index = key[1]
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return self.dataset[divmod(index, len(self.dataset))]._replace(index=torch.tensor(index))
