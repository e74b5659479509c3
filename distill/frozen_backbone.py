"""Training on the stored maps of a backbone's frozen stages.

Stages that do not train give the same map for the same crop at every epoch. Where the crops are fixed
(TEACHER.CACHE_VIEWS), the maps are computed once, stored like a teacher's, and training neither reads images nor runs
those stages.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from yacs.config import CfgNode

from fasthamer.data.build import training_set_of, training_spec
from fasthamer.data.dataset import HandDataset, HandStream
from fasthamer.data.subsets import PartlyLabelled, Views, choose_labelled
from fasthamer.detect.boxes import mediapipe_boxes
from fasthamer.hand.mano import Hand
from fasthamer.one_line import one_line
from fasthamer.students import Student
from fasthamer.students.backbone import Backbone
from fasthamer.students.split_backbone import FrozenStages
from fasthamer.teachers import Teacher
from fasthamer.teachers.cache.cached_teacher import CachedTeacher
from fasthamer.teachers.cache.manifest import CacheRequest
from fasthamer.types import N_BETAS, N_HAND_JOINTS, N_JOINTS, N_VERTICES, Batch, HandOutput, ManoParams

LABELS = [name for name in Batch._fields if name != "image"]
ROW = np.dtype(  # of the file of labels
    [
        ("there", "u1"),  # 1 once the row is written
        ("size", "<i4"),  # pixels of the image
        ("keypoints_2d", "<f4", (N_JOINTS, 3)),
        ("joints", "<f4", (N_JOINTS, 4)),
        ("vertices", "<f4", (N_VERTICES, 3)),
        ("global_orient", "<f4", (1, 3, 3)),
        ("hand_pose", "<f4", (N_HAND_JOINTS, 3, 3)),
        ("betas", "<f4", (N_BETAS,)),
        *((name, "<f4") for name in ("has_vertices", "has_pose", "has_betas", "mirrored")),
        ("crop", "<f4", (2, 3)),
        ("index", "<i8"),
    ]
)

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


class StoredLabels(HandDataset):
    """A dataset of fixed crops whose images are black and whose labels are read once: the next time from a file.

    Args:
        dataset: whose items do not depend on the epoch.
        path: of the file, which all processes that train on the set share; made at the first use.
    """

    def __init__(self, dataset: HandDataset, path: Path) -> None:
        self.dataset, self.info, self.path = dataset, dataset.info, path
        self._rows: NDArray | None = None  # opened at first use, in each process
        self._black = torch.zeros((), dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        index = key[1]
        if self._rows is None:
            self._rows = self._open()
        row = self._rows[index]
        if not row["there"]:
            item = self.dataset[key]
            for name in LABELS:
                row[name] = getattr(item, name).numpy()
            row["size"], row["there"] = item.image.shape[-1], 1
        size = int(row["size"])
        fields = {name: torch.from_numpy(np.array(row[name])) for name in LABELS}
        return Batch(image=self._black.expand(3, size, size), **fields)

    def describe(self, index: int) -> str:
        return self.dataset.describe(index)

    def _open(self) -> NDArray:
        if not self.path.is_file():
            draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
            np.lib.format.open_memmap(draft, "w+", ROW, (len(self),)).flush()
            os.replace(draft, self.path)
        try:
            rows: NDArray = np.load(self.path, mmap_mode="r+")
        except Exception as error:  # NumPy's parser of headers raises anything
            raise ValueError(f"{self.path}: damaged ({one_line(error)}); remove it") from None
        if rows.dtype != ROW or len(rows) != len(self):
            raise ValueError(f"{self.path}: labels of another set or form; remove it")
        return rows


class Chosen(HandDataset):
    """Some samples of a dataset, under their own `index`.

    Args:
        dataset: the whole.
        numbers: of the samples.
    """

    def __init__(self, dataset: HandDataset, numbers: NDArray[np.int64]) -> None:
        self.dataset, self.info, self.numbers = dataset, dataset.info, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        return self.dataset[(key[0], int(self.numbers[key[1]]))]

    def describe(self, index: int) -> str:
        return self.dataset.describe(index)


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
    images = StoredLabels(views, folder / "labels.npy")
    if cfg.DATA.LABELLED == 1.0:
        return cached, images
    labelled = choose_labelled(len(whole), cfg.DATA.LABELLED, cfg.SEED)
    numbers = (np.arange(views.views)[:, None] * len(whole) + labelled).ravel()
    return cached, Chosen(images, numbers) if cfg.KD.MODE == "none" else PartlyLabelled(images, numbers)


def _check(cfg: CfgNode, backbone: Backbone) -> None:
    """Raises ValueError for a run that cannot train on stored maps."""
    frozen = backbone.frozen_stages
    if not frozen or not cfg.TEACHER.CACHE_VIEWS:
        raise ValueError(
            "STUDENT.CACHE stores the maps of stages that do not train, for crops that stay the same: set "
            "STUDENT.FREEZE and TEACHER.CACHE_VIEWS, or leave STUDENT.CACHE out"
        )
    if cfg.KD.MODE in ("feature", "hybrid") and min(backbone.tapped) < frozen:
        raise ValueError(
            f"KD.MODE {cfg.KD.MODE} teaches layer {cfg.KD.LAYER}, and STUDENT.FREEZE {frozen} keeps it as it is: "
            "use KD.MODE output, or freeze less"
        )
    if cfg.KD.MODE != "none" and not cfg.TEACHER.CACHE:
        raise ValueError("with STUDENT.CACHE no images are read, which the teacher needs: set TEACHER.CACHE, too")
    if cfg.DATA.LABELLED != 1.0 and cfg.DATA.MIX_SYNTHETIC:
        raise ValueError("STUDENT.CACHE does not go with DATA.MIX_SYNTHETIC and DATA.LABELLED together: leave one out")
