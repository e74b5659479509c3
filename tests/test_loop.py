"""The training loop, with the smallest real student and made-up images."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from fasthamer.camera import project, weak_to_translation
from fasthamer.config import load_config
from fasthamer.distill.device import accelerator_for
from fasthamer.distill.loop import Classroom, train
from fasthamer.hand.mano import load_hand
from fasthamer.hand.rotation import axis_angle_to_matrix
from fasthamer.students import build_student
from fasthamer.types import Batch, ManoParams

SIZE = 64
TINY = ("TRAIN.BATCH", "2", "TRAIN.LR", "1e-3", "DATA.WORKERS", "0", "TRAIN.PICTURE_EVERY", "0", "DEVICE", "cpu")


class Noise(Dataset):
    """Eight random images with consistent random hands as their labels."""

    def __init__(self, labelled: float = 1.0) -> None:
        self.hand, self.labelled = load_hand("embedded"), labelled

    def __len__(self) -> int:
        return 8

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        epoch, index = key
        random = torch.Generator().manual_seed(1000 * epoch + index)
        rotations = axis_angle_to_matrix(0.3 * torch.randn(1, 16, 3, generator=random))
        mano = ManoParams(rotations[:, :1], rotations[:, 1:], torch.randn(1, 10, generator=random))
        vertices, joints = self.hand(mano)
        points = project(joints, weak_to_translation(torch.tensor([[9.0, 0.0, 0.0]])))
        sure = torch.full((1, 21, 1), self.labelled)
        flag = torch.tensor(self.labelled)
        return Batch(
            torch.randint(256, (3, SIZE, SIZE), dtype=torch.uint8, generator=random),
            torch.cat([points, sure], -1)[0],
            torch.cat([joints, sure], -1)[0],
            vertices[0],
            flag,
            mano.global_orient[0],
            mano.hand_pose[0],
            mano.betas[0],
            flag,
            flag,
            torch.tensor(0.0),
            torch.eye(2, 3),
            torch.tensor(index),
        )


def tiny(seed: int = 0, layer: str = "last") -> nn.Module:
    torch.manual_seed(seed)
    return build_student("timm:test_resnet", "mano", "tiny", SIZE, feature_layer=layer)


def teach(run: Path, *overrides: str, images: Dataset | None = None, student: nn.Module | None = None, **options):
    cfg = load_config(None, [*TINY, *overrides])
    teacher = None if cfg.KD.MODE == "none" else tiny(seed=1).eval().requires_grad_(False)
    room = Classroom(student or tiny(), teacher, images or Noise())
    accelerator = accelerator_for(cfg.DEVICE, cfg.TRAIN.PRECISION, cfg.TRAIN.ACCUMULATE)
    return train(cfg, room, run, accelerator, **options), teacher


def lines(run: Path, phase: str = "train") -> list[dict]:
    read = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in read if line["phase"] == phase]


def test_the_loss_falls_on_one_batch(tmp_path):
    class One(Noise):
        def __getitem__(self, key):
            return super().__getitem__((0, key[1] % 2))

    teach(tmp_path, "KD.MODE", "none", "TRAIN.STEPS", "40", "TRAIN.LOG_EVERY", "1", images=One())
    totals = [line["total"] for line in lines(tmp_path)]
    assert len(totals) == 40
    assert np.mean(totals[-5:]) < 0.5 * np.mean(totals[:3])
