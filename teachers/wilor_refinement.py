"""WiLoR's refinement: image features gathered at the vertices of a first mesh correct its parameters.

Written from a description of the network, not from its code; the module names are those of the published checkpoint
(`refine_net.*`), so its tensors load strictly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fasthamer.camera import project, weak_to_translation
from fasthamer.types import N_BETAS, N_HAND_JOINTS

N_POSE = 6 * (1 + N_HAND_JOINTS)  # six numbers for the wrist's rotation and for each of the fingers' joints


class Prediction(NamedTuple):
    """What WiLoR predicts, before and after its refinement; corrections have the same form."""

    pose: Tensor  # (B, 96) 6D rotations, wrist first, then MANO's joint order
    betas: Tensor  # (B, 10)
    camera: Tensor  # (B, 3) s, tx, ty


class RefinementNet(nn.Module):
    """Corrections of the parameters of a mesh, from a feature map that it is projected to.

    Args:
        channels: of the backbone's map; the maps made of it have 1/2, 1/4 and 1/8 of them.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.deconv = _Pyramid(channels)
        width = sum(self.deconv.channels)
        self.dec_pose = nn.Linear(width, N_POSE)
        self.dec_shape = nn.Linear(width, N_BETAS)
        self.dec_cam = nn.Linear(width, 3)

    def forward(self, features: Tensor, vertices: Tensor, camera: Tensor) -> Prediction:
        """
        Args:
            features: (B, C, 16, 12) the backbone's map.
            vertices: (B, 778, 3) metres, of the first mesh.
            camera: (B, 3) of the first prediction.

        Returns:
            What to add to the first prediction.
        """
        gathered = gather(self.deconv(features), vertices, camera)
        return Prediction(self.dec_pose(gathered), self.dec_shape(gathered), self.dec_cam(gathered))


class _Pyramid(nn.Module):
    """A map (B, C, h, w) to three: (B, C/8, 4h, 4w), (B, C/4, 2h, 2w) and (B, C/2, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half, quarter, eighth = channels // 2, channels // 4, channels // 8
        self.channels = (eighth, quarter, half)
        self.first_conv = nn.Sequential(nn.Conv2d(channels, half, kernel_size=1))
        # Both start from the half: the finest map has a first layer of its own and does not use the middle one.
        self.deconv = nn.ModuleList(
            [
                nn.Sequential(*_doubling(half, quarter)),
                nn.Sequential(*_doubling(half, quarter), *_doubling(quarter, eighth)),
            ]
        )

    def forward(self, features: Tensor) -> list[Tensor]:
        half = self.first_conv(features)
        quarter, eighth = (layers(half) for layers in self.deconv)
        return [eighth, quarter, half]


def _doubling(channels: int, reduced: int) -> tuple[nn.Module, ...]:
    """Twice as many cells a side."""
    enlarge = nn.ConvTranspose2d(channels, reduced, kernel_size=4, stride=2, padding=1, bias=False)
    return enlarge, nn.BatchNorm2d(reduced), nn.ReLU()


def gather(maps: Sequence[Tensor], vertices: Tensor, camera: Tensor) -> Tensor:
    """The largest value of each channel at the projected vertices, (B, sum of the maps' channels).

    WiLoR takes the projection, whose origin is the middle of the crop and whose unit is the crop's width, for a
    position in cells from the middle of a map's top left cell: all vertices fall around that cell. It looks like an
    oversight, but the published weights were trained with it, so it is repeated here.

    Args:
        maps: (B, C, H, W) each, with W = 3/4 H.
        vertices: (B, V, 3) metres.
        camera: (B, 3) s, tx, ty.
    """
    largest = []
    for values in maps:
        height, width = values.shape[-2:]
        x, y = project(vertices, weak_to_translation(camera, height), height).unbind(-1)  # (B, V) cells
        where = torch.stack((2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1), dim=-1)
        sampled = F.grid_sample(
            values, where[:, None], mode="bilinear", padding_mode="zeros", align_corners=True
        )  # (B, C, 1, V)
        largest.append(sampled.amax((2, 3)))
    return torch.cat(largest, dim=1)
