"""What all readers share: the base class, and meshes from MANO parameters."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from fasthamer.data import augment
from fasthamer.data.articulation import Articulation, articulation_of
from fasthamer.data.crop import CROPPING, Box, Cropping, chosen_box, mirror_axis_angle, mirror_points
from fasthamer.data.dataset import HandDataset
from fasthamer.data.sample import Labels, make_item
from fasthamer.files.images import read_image
from fasthamer.files.pixels import Upright
from fasthamer.hand.mano import Hand
from fasthamer.hand.rotation import axis_angle_to_matrix
from fasthamer.types import Batch, ManoParams

MINIMUM_KEYPOINTS = 5  # of 21; hands with fewer known keypoints are left out, as in HaMeR (more than 4)


class RawSample(NamedTuple):
    """One hand in one image, before cropping."""

    path: Path
    labels: Labels
    box: Box  # the crop
    left: bool = False
    upright: Upright = False  # whether an EXIF orientation is applied before the labels and the box fit


class ImageDataset(HandDataset):
    """`dataset[(epoch, index)]` is an item of a `Batch`, a pure function of (seed, epoch, index).

    A reader implements `__len__` (number of hands) and `raw_sample` (image path, labels and box of one hand).

    Args:
        image_size: side of the crops, pixels.
        strength: of the augmentation; None: no augmentation.
        seed: of the augmentation.
        cropping: the shape of the boxes, what finds them, and whether the image is blurred before it shrinks.
    """

    def __init__(
        self,
        image_size: int = 256,
        strength: augment.Strength | None = None,
        seed: int = 0,
        cropping: Cropping = CROPPING,
    ) -> None:
        self.image_size, self.strength, self.seed, self.cropping = image_size, strength, seed, cropping

    @abstractmethod
    def raw_sample(self, index: int) -> RawSample:
        """Hand `index` as stored in the files.

        Raises:
            FileNotFoundError, ValueError: a damaged image or label; the message names the file.
        """

    def image_problem(self, index: int, width: int, height: int) -> str | None:
        """Why hand `index` cannot be in its image of this size, for readers that can tell; None if it can."""
        return None

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        """Hand `index`, cropped and augmented for epoch `epoch`.

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
        image = read_image(hand.path, hand.upright)
        if problem := self.image_problem(index, image.shape[1], image.shape[0]):
            raise ValueError(problem)
        box, (shape, blur, find) = hand.box, self.cropping
        if find is not None:
            box = chosen_box(find(image, shape), hand.box, image.shape[1], image.shape[0], shape)
        try:
            return make_item(image, hand.labels, box, self.image_size, index, change, hand.left, blur)
        except ValueError as error:
            raise ValueError(f"{self.describe(index)}: {error}") from None

    def describe(self, index: int) -> str:
        return f"sample {index} ({self.image_path(index)})"

    def labels(self, index: int) -> Labels:
        """The labels of hand `index` in the image before cropping."""
        return self.raw_sample(index).labels

    def articulation(self, index: int) -> Articulation | None:
        """The labelled pose of hand `index`, mirrored for a left hand; None without one. Reads no image."""
        labels = self.labels(index)
        return None if labels.pose is None else articulation_of(labels.pose, labels.betas, self.is_left(index))

    def image_path(self, index: int) -> Path:
        """The image file of hand `index`."""
        return self.raw_sample(index).path

    def is_left(self, index: int) -> bool:
        """Whether hand `index` is a left hand."""
        return self.raw_sample(index).left


def mano_vertices(
    hand: Hand, pose: np.ndarray, betas: np.ndarray, translation: np.ndarray, left: bool = False
) -> np.ndarray:
    """(778, 3) metres, in the frame of the parameters.

    Args:
        hand: a right hand; for left hands their mirrored model, see `fasthamer.hand.left`.
        pose: (16, 3) absolute axis-angles, wrist first, not mirrored.
        betas: (10,)
        translation: (3,) metres, added as in MANO: the wrist joint is at its rest position plus this.
        left: whether the parameters are those of a left hand.
    """
    rotations = axis_angle_to_matrix(torch.from_numpy(mirror_axis_angle(pose) if left else pose).double())[None]
    shape = torch.from_numpy(np.asarray(betas, np.float64))[None]
    with torch.no_grad():
        vertices = hand(ManoParams(rotations[:, :1], rotations[:, 1:], shape))[0][0].numpy().astype(np.float64)
    return (mirror_points(vertices) if left else vertices) + translation
