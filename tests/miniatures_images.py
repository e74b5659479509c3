"""A training set of generated images with fully labelled hands, and a teacher that outputs those labels."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from fasthamer.camera import fit_weak_camera, project
from fasthamer.data import augment
from fasthamer.data.crop import Box
from fasthamer.data.dataset import DatasetInfo, HandDataset
from fasthamer.data.sample import Labels, make_item
from fasthamer.hand.mano import Hand, load_hand
from fasthamer.hand.rotation import axis_angle_to_matrix
from fasthamer.types import Batch, HandOutput, ManoParams, View

SIZE = 64  # pixels of the crops
STRONG = augment.Strength(scale=0.3, rotation=40.0, rotation_probability=1.0, shift=0.1, colour=0.2)


class ImageDataset(HandDataset):
    """`ds[(epoch, index)]`: noise with the index in its first pixel and a hand's labels; every third is a left hand.

    Args:
        strength: of the augmentation; None: no augmentation.
        seed: of the hands.
    """

    info = DatasetInfo("ImageDataset")

    def __init__(self, length: int = 10, strength: augment.Strength | None = None, seed: int = 0) -> None:
        self.length, self.strength, self.seed = length, strength, seed
        self.hand = _hand()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        epoch, index = key
        rng = np.random.default_rng((self.seed, index))
        pose = rng.normal(0, 0.4, (16, 3)).astype(np.float32)
        betas = rng.normal(0, 1, 10).astype(np.float32)
        rotations = axis_angle_to_matrix(torch.from_numpy(pose))[None]
        vertices, joints = self.hand(ManoParams(rotations[:, :1], rotations[:, 1:], torch.from_numpy(betas)[None]))
        translation = torch.tensor([[0.02, -0.03, 0.6]])
        left = index % 3 == 2
        sign = np.array([-1.0 if left else 1.0, 1, 1])
        keypoints = project(joints, translation)[0].numpy() * 40 * sign[:2] + 100  # pixels of a 200-pixel image
        labels = Labels(
            keypoints=np.column_stack((keypoints, np.ones(21))),
            joints=np.column_stack(((joints + translation[:, None])[0].numpy() * sign, np.ones(21))),
            vertices=(vertices + translation[:, None])[0].numpy() * sign,
            pose=pose * (np.array([1, -1, -1], np.float32) if left else 1),
            betas=betas,
        )
        change = None
        if self.strength is not None:
            change = augment.draw(np.random.default_rng((1, epoch, index)), self.strength)
        image = rng.integers(0, 256, (200, 200, 3), dtype=np.uint8)
        item = make_item(image, labels, Box(keypoints.mean(0), 120.0), SIZE, index, change, left)
        item.image[0, 0, 0] = index
        return item


@cache
def _hand() -> Hand:
    return load_hand("embedded")


class LabelTeacher(nn.Module):
    """Reads the index from the first pixel and outputs that sample's labels, without error on every crop.

    Args:
        images: augmented or not. `epoch` is the epoch of the labels; `requested` lists the indices so far.
    """

    image_size, view, feature_channels, precision, halved = SIZE, View(), 4, "fp32", False

    def __init__(self, images: ImageDataset) -> None:
        super().__init__()
        self.images, self.hand, self.epoch = images, images.hand, 0
        self.weight = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.requested: list[int] = []
        self.before_output = lambda: None  # called before each output

    @property
    def model(self) -> nn.Module:
        return self

    def forward(self, image: Tensor) -> HandOutput:
        self.before_output()
        numbers = image[:, 0, 0, 0].tolist()
        self.requested += numbers
        return exact_output([self.images[(self.epoch, number)] for number in numbers], self.hand)


def exact_output(items: list[Batch], hand: Hand) -> HandOutput:
    """The output of a model without error on these crops, from their labels; `features` (B, 4, 2, 2) hold the index."""
    batch = Batch(*(torch.stack(parts) for parts in zip(*items, strict=True)))
    mano = ManoParams(batch.global_orient, batch.hand_pose, batch.betas)
    vertices, joints = hand(mano)
    keypoints = batch.keypoints_2d[..., :2]
    features = batch.index[:, None, None, None].expand(-1, 4, 2, 2).float()
    return HandOutput(vertices, joints, keypoints, fit_weak_camera(joints, keypoints), features, mano)
