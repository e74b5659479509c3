"""Training on the stored maps of a backbone's frozen stages.

Stages that do not train give the same map for the same crop at every epoch. Where the crops are fixed
(TEACHER.CACHE_VIEWS), the maps are computed once, stored like a teacher's, and training neither reads images nor runs
those stages.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from yacs.config import CfgNode

from fasthamer.data.build import training_set_of, training_spec
from fasthamer.data.dataset import HandDataset, HandStream, Wrapped
from fasthamer.data.stored import StoredSamples
from fasthamer.data.subsets import PartlyLabelled, Views, choose_labelled
from fasthamer.detect.boxes import mediapipe_boxes
from fasthamer.hand.mano import Hand
from fasthamer.students import Student
from fasthamer.students.backbone import Backbone
from fasthamer.students.split_backbone import FrozenStages
from fasthamer.teachers import Teacher
from fasthamer.teachers.cache.cached_teacher import CachedTeacher
from fasthamer.teachers.cache.manifest import CacheRequest
from fasthamer.types import N_BETAS, N_HAND_JOINTS, N_JOINTS, N_VERTICES, Batch, HandOutput, ManoParams

SHAPES = {
    "vertices": (N_VERTICES, 3),
    "joints": (N_JOINTS, 3),
    "keypoints_2d": (N_JOINTS, 2),
    "camera": (3,),
    "global_orient": (1, 3, 3),
    "hand_pose": (N_HAND_JOINTS, 3, 3),
    "betas": (N_BETAS,),
}


class FrozenBackbone(nn.Module):
    """The frozen stages of a backbone as a hand model whose features can be cached; all else that it returns is 0."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.normalise, self.stages, self.hand = student.normalise, FrozenStages(student.backbone), student.hand
        self.image_size, self.view, self.box_shape = student.image_size, student.view, student.box_shape
        size = student.image_size
        self.feature_channels = self.stages(torch.zeros(1, 3, size, size)).shape[1]

    def forward(self, image: Tensor) -> HandOutput:
        """(B, 3, S, S) RGB, values 0..255 of any dtype."""
        maps = self.stages(self.normalise(image))
        nothing = {name: maps.new_zeros(len(maps), *shape) for name, shape in SHAPES.items()}
        mano = ManoParams(*(nothing.pop(name) for name in ManoParams._fields))
        return HandOutput(**nothing, features=maps, mano=mano)


class Chosen(Wrapped):
    """Some samples of a dataset, which keep their own `index`.

    Args:
        dataset: the whole.
        numbers: of the samples.
    """

    def __init__(self, dataset: HandDataset, numbers: NDArray[np.int64]) -> None:
        super().__init__(dataset)
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        return self.dataset[(key[0], int(self.numbers[key[1]]))]


def frozen_maps(cfg: CfgNode, student: Student, hand: Hand) -> tuple[CachedTeacher, HandDataset]:
    """The stored maps STUDENT.CACHE of a student's frozen stages, and the set to train on with them.

    One cache serves runs with few labels and with many, and runs with and without a teacher.

    Args:
        cfg: the resolved config.
        student: with frozen stages.
        hand: the hand model.

    Raises:
        ValueError: this run cannot use stored maps, or the folder holds others; the message says what to do.
    """
    _check(cfg, student.backbone)
    whole = training_set_of(training_spec(cfg, mediapipe_boxes())._replace(labelled=1.0), hand)
    if isinstance(whole, HandStream):
        raise ValueError(
            "STUDENT.CACHE needs a set whose samples have numbers; this one is read in an order of its own"
        )
    views, folder = Views(whole, cfg.TEACHER.CACHE_VIEWS), Path(cfg.STUDENT.CACHE)
    wanted = CacheRequest(maps=True, channels=0, title="cache of the frozen stages")
    cached = CachedTeacher(folder, Teacher(FrozenBackbone(student), "fp32"), views, wanted)
    images = StoredSamples(views, folder / "labels.npy")
    if cfg.DATA.LABELLED == 1.0:
        return cached, images
    labelled = choose_labelled(len(whole), cfg.DATA.LABELLED, cfg.SEED)
    numbers = (np.arange(views.views)[:, None] * len(whole) + labelled).ravel()
    return cached, Chosen(images, numbers) if cfg.KD.MODE == "none" else PartlyLabelled(images, numbers)


def _check(cfg: CfgNode, backbone: Backbone) -> None:
    """Raises ValueError for a run that cannot train on stored maps."""
    if not backbone.frozen_stages or not cfg.TEACHER.CACHE_VIEWS:
        raise ValueError(
            "STUDENT.CACHE stores the maps of stages that do not train, for crops that stay the same: set "
            "STUDENT.FREEZE and TEACHER.CACHE_VIEWS, or leave STUDENT.CACHE out"
        )
    if cfg.KD.MODE != "none" and not cfg.TEACHER.CACHE:
        raise ValueError("with STUDENT.CACHE no images are read, which the teacher needs: set TEACHER.CACHE, too")
    if cfg.DATA.LABELLED != 1.0 and cfg.DATA.MIX_SYNTHETIC:
        raise ValueError("STUDENT.CACHE does not go with DATA.MIX_SYNTHETIC and DATA.LABELLED together: leave one out")
