"""Training a decoder on the stored maps of a frozen backbone.

A backbone of which nothing trains gives the same map for the same crop at every epoch. Where the crops are fixed
(TEACHER.CACHE_VIEWS), the maps are computed once, stored like a teacher's, and training neither reads images nor runs
the backbone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from yacs.config import CfgNode

from fasthamer.data.build import training_set_of, training_spec
from fasthamer.data.dataset import HandDataset, HandStream
from fasthamer.data.subsets import Views, choose_labelled
from fasthamer.detect.boxes import mediapipe_boxes
from fasthamer.hand.mano import Hand
from fasthamer.students import Student
from fasthamer.teachers import Teacher
from fasthamer.teachers.cache.cached_teacher import CachedTeacher
from fasthamer.teachers.cache.manifest import CacheRequest
from fasthamer.types import N_BETAS, N_HAND_JOINTS, N_JOINTS, N_VERTICES, Batch, HandOutput, ManoParams


class FrozenBackbone(nn.Module):
    """A student's backbone as a hand model whose features can be cached; all else that it returns is 0."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.normalise, self.backbone = student.normalise, student.backbone
        self.image_size, self.view, self.box_shape, self.hand = (
            student.image_size,
            student.view,
            student.box_shape,
            student.hand,
        )
        self.feature_channels = student.backbone.channels

    def forward(self, image: Tensor) -> HandOutput:
        """(B, 3, S, S) RGB, values 0..255 of any dtype."""
        maps = self.backbone(self.normalise(image))[1]
        empty = {
            "global_orient": (1, 3, 3),
            "hand_pose": (N_HAND_JOINTS, 3, 3),
            "betas": (N_BETAS,),
            "vertices": (N_VERTICES, 3),
            "joints": (N_JOINTS, 3),
            "keypoints_2d": (N_JOINTS, 2),
            "camera": (3,),
        }
        none = {name: maps.new_zeros(len(maps), *shape) for name, shape in empty.items()}
        mano = ManoParams(*(none.pop(name) for name in ManoParams._fields))
        return HandOutput(**none, features=maps, mano=mano)


class Remembered(HandDataset):
    """A dataset of fixed crops that is read once and kept in memory, with black images.

    Args:
        dataset: whose items do not depend on the epoch.
        numbers: the `index` of each item in the set whose maps are stored.
    """

    def __init__(self, dataset: HandDataset, numbers: NDArray[np.int64]) -> None:
        self.dataset, self.info, self.numbers = dataset, dataset.info, numbers
        self.items: dict[int, Batch] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        index = key[1]
        if index not in self.items:
            item = self.dataset[key]
            black = torch.zeros((), dtype=torch.uint8).expand(item.image.shape)
            self.items[index] = item._replace(image=black, index=torch.tensor(self.numbers[index]))
        return self.items[index]

    def describe(self, index: int) -> str:
        return self.dataset.describe(int(np.searchsorted(self.numbers, index)))


def frozen_maps(
    cfg: CfgNode, student: Student, hand: Hand, images: HandDataset | HandStream
) -> tuple[CachedTeacher, Remembered]:
    """The stored maps STUDENT.CACHE of a student's backbone, and the set to train on with them.

    One cache serves runs with few labels and with many, and runs with and without a teacher.

    Args:
        cfg: the resolved config.
        student: with a frozen backbone.
        hand: the hand model.
        images: the training set of the config; with a teacher's cache, that of fixed crops.

    Raises:
        ValueError: this run cannot use stored maps, or the folder holds others; the message says what to do.
    """
    stages, views = len(student.backbone.layers), cfg.TEACHER.CACHE_VIEWS
    if stages != cfg.STUDENT.FREEZE or not views:
        raise ValueError(
            "STUDENT.CACHE stores the maps of a backbone that does not train, for crops that stay the same: set "
            f"STUDENT.FREEZE {stages} and TEACHER.CACHE_VIEWS, or leave STUDENT.CACHE out"
        )
    if cfg.KD.MODE in ("feature", "hybrid"):
        raise ValueError(
            f"KD.MODE {cfg.KD.MODE} teaches the backbone, and STUDENT.CACHE is for one that does not train: use "
            "KD.MODE output, or leave STUDENT.CACHE out"
        )
    if cfg.KD.MODE == "output" and not cfg.TEACHER.CACHE:
        raise ValueError("with STUDENT.CACHE no images are read, which the teacher needs: set TEACHER.CACHE, too")
    if isinstance(images, HandStream):
        raise ValueError(
            "STUDENT.CACHE needs a set whose samples have numbers; this one is read in an order of its own"
        )
    whole = training_set_of(training_spec(cfg, mediapipe_boxes())._replace(labelled=1.0), hand)
    assert not isinstance(whole, HandStream), "labels do not make a dataset a stream"
    own = images if isinstance(images, Views) else Views(images, views)
    chosen = np.arange(len(whole))
    if len(own) != views * len(whole):  # the labelled samples alone
        chosen = choose_labelled(len(whole), cfg.DATA.LABELLED, cfg.SEED)
    numbers = (np.arange(views)[:, None] * len(whole) + chosen).ravel()
    if len(own) != len(numbers):
        raise ValueError("STUDENT.CACHE does not go with DATA.MIX_SYNTHETIC and DATA.LABELLED together: leave one out")
    teacher = Teacher(FrozenBackbone(student), "fp32")
    wanted = CacheRequest(maps=True, channels=0, title="cache of the frozen backbone")
    return CachedTeacher(Path(cfg.STUDENT.CACHE), teacher, Views(whole, views), wanted), Remembered(own, numbers)
