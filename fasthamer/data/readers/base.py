"""Sets of images with whatever labels they have: the steps from a file to an item that all readers share."""

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
from fasthamer.files.images import read_image
from fasthamer.types import Batch

MINIMUM_KEYPOINTS = 5  # of 21: hands with fewer teach nothing; HaMeR keeps those with more than 4


class RawSample(NamedTuple):
    """One hand in one image, before any crop."""

    path: Path
    labels: Labels
    box: tuple[np.ndarray, float]  # what is cropped: centre (2,) and side, pixels
    left: bool = False


class ImageDataset(Dataset, ABC):
    """`dataset[(epoch, index)]` is a `Batch` item, a pure function of (seed, epoch, index).

    A reader says how many hands there are and what is known about each (`__len__`, `image`).

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
    def raw_sample(self, index: int) -> RawSample:
        """Hand `index` as its files have it.

        Raises:
            FileNotFoundError, ValueError: a damaged image or label; the message names the file.
        """

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        """Hand `index` as it looks in epoch `epoch`.

        Raises:
            FileNotFoundError, ValueError: a damaged image or label; the message names the file.
        """
        epoch, index = key
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        hand = self.raw_sample(index)
        change = None
        if self.strength is not None:
            change = augment.draw(np.random.default_rng((self.seed, epoch, index)), self.strength)
        image = read_image(hand.path)
        return make_item(image, hand.labels, hand.box, self.image_size, index, change, hand.left)

    def labels(self, index: int) -> Labels:
        """What the files say about hand `index`, before any crop."""
        return self.raw_sample(index).labels

    def articulation(self, index: int) -> Articulation | None:
        """The pose among the labels of hand `index`, if there is one; a left hand's is mirrored. Needs no image."""
        labels = self.labels(index)
        return None if labels.pose is None else articulation_of(labels.pose, labels.betas, self.is_left(index))

    def image_path(self, index: int) -> Path:
        """The file of hand `index`."""
        return self.raw_sample(index).path

    def is_left(self, index: int) -> bool:
        """Whether hand `index` is a left hand."""
        return self.raw_sample(index).left


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


def read_image_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels, from the file's header alone.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an image.
    """
    try:
        with Image.open(path) as image:
            return image.size
    except FileNotFoundError:
        raise FileNotFoundError(f"no image {path}") from None
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path}: damaged image ({error}); copy or download it again") from None
