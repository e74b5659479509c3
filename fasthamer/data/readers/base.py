"""Sets of photographs with whatever labels they have: the steps from a file to an item that all readers share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from fasthamer.data import augment
from fasthamer.data.articulation import Articulation, articulation_of
from fasthamer.data.sample import Labels, make_item
from fasthamer.files.images import read_picture
from fasthamer.types import Batch

MINIMUM_KEYPOINTS = 5  # of 21: hands with fewer teach nothing; HaMeR keeps those with more than 4


class Photograph(NamedTuple):
    """One hand in one photograph, before any crop."""

    path: Path
    labels: Labels
    box: tuple[np.ndarray, float]  # what is cropped: centre (2,) and side, pixels
    left: bool = False


class Photographs(Dataset, ABC):
    """`dataset[(epoch, index)]` is a `Batch` item, a pure function of (seed, epoch, index).

    A reader says how many hands there are and what is known about each (`__len__`, `photograph`).

    Args:
        image_size: pixels of the crops.
        strength: of the augmentation; None for none.
        seed: of the augmentation.
    """

    has_poses = False  # whether the files hold MANO's poses, and all that is needed to read them
    tips = "hamer"  # what the labels mean by a fingertip, see `fasthamer.hand.conventions`

    def __init__(self, image_size: int = 256, strength: augment.Strength | None = None, seed: int = 0) -> None:
        self.image_size, self.strength, self.seed = image_size, strength, seed

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def photograph(self, index: int) -> Photograph:
        """Hand `index` as its files have it.

        Raises:
            FileNotFoundError, ValueError: a damaged picture or label; the message names the file.
        """

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        """Hand `index` as it looks in epoch `epoch`.

        Raises:
            FileNotFoundError, ValueError: a damaged picture or label; the message names the file.
        """
        epoch, index = key
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        hand = self.photograph(index)
        change = None
        if self.strength is not None:
            change = augment.draw(np.random.default_rng((self.seed, epoch, index)), self.strength)
        image = read_picture(hand.path)
        return make_item(image, hand.labels, hand.box, self.image_size, index, change, hand.left)

    def labels(self, index: int) -> Labels:
        """What the files say about hand `index`, before any crop."""
        return self.photograph(index).labels

    def articulation(self, index: int) -> Articulation | None:
        """The pose among the labels of hand `index`, if there is one; a left hand's is mirrored. Needs no picture."""
        labels = self.labels(index)
        return None if labels.pose is None else articulation_of(labels.pose, labels.betas, self.is_left(index))

    def picture(self, index: int) -> Path:
        """The file of hand `index`."""
        return self.photograph(index).path

    def is_left(self, index: int) -> bool:
        """Whether hand `index` is a left hand."""
        return self.photograph(index).left


def check_metres(joints: np.ndarray, where: str) -> None:
    """Refuses a hand that is not of human size.

    Args:
        joints: (21, 3) OpenPose order, meant to be metres.
        where: the file and record, for the message.

    Raises:
        ValueError: the palm is shorter than 3 or longer than 20 cm.
    """
    palm = float(np.linalg.norm(joints[9] - joints[0]))
    if not 0.03 < palm < 0.2:
        millimetres = " (are these millimetres?)" if 0.03 < palm / 1000 < 0.2 else ""
        raise ValueError(f"{where}: wrist to middle knuckle is {palm:.4g} m, a hand's is about 0.09{millimetres}")


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels, from the file's header alone.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a picture.
    """
    try:
        with Image.open(path) as picture:
            return picture.size
    except FileNotFoundError:
        raise FileNotFoundError(f"no picture {path}") from None
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path}: damaged picture ({error}); copy or download it again") from None
