"""Random images with hands as their labels, and the smallest real student."""

from __future__ import annotations

import torch
from torch import nn

from fasthamer.camera import project, weak_to_translation
from fasthamer.data.dataset import DatasetInfo, HandDataset
from fasthamer.hand.mano import load_hand
from fasthamer.hand.rotation import axis_angle_to_matrix
from fasthamer.students import build_student
from fasthamer.types import Batch, ManoParams

SIZE = 64
TINY = ("TRAIN.BATCH", "2", "TRAIN.LR", "1e-3", "DATA.WORKERS", "0", "TRAIN.IMAGE_EVERY", "0", "DEVICE", "cpu")


class Noise(HandDataset):
    """Eight random images with consistent random hands as their labels."""

    info = DatasetInfo("Noise")

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
