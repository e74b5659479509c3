"""A student of MediaPipe's landmark network in two parts: one that stays as it is, and one that is trained."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fasthamer.students.landmark_maps import LandmarkMaps
from fasthamer.students.student import Student
from fasthamer.types import HandOutput

FROZEN = 11  # blocks: all up to stride 32, which cost nine tenths of the time and know edges, skin and fingers


class FrozenPart(nn.Module):
    """(B, 3, S, S) RGB 0..255 to the map after `FROZEN` blocks, (B, C, S / 32, S / 32)."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        network = network_of(student)
        self.normalise, self.stem, self.blocks = student.normalise, network.stem, network.blocks[:FROZEN]
        self.eval()

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        first, filtered, projected = self.stem
        x = projected(F.relu6(filtered(F.relu6(first(self.normalise(image))))))
        for block in self.blocks:
            x = block(x)
        return x


class TrainedPart(nn.Module):
    """The rest, as a hand model whose image is the frozen part's map. It shares its weights with the student."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        network = network_of(student)
        self.blocks, self.last, self.decoder = network.blocks[FROZEN:], network.last, student.decoder
        self.hand = student.hand
        self.view, self.feature_channels = student.view, student.feature_channels

    def forward(self, image: Tensor) -> HandOutput:
        x = image.float()
        for block in self.blocks:
            x = block(x)
        for conv in self.last:
            x = F.relu6(conv(x))
        return self.decoder(x, self.hand)


def with_part(student: Student, part: nn.Module) -> Student:
    """A copy of the student, in eval mode, with the weights of a trained part (or of its average)."""
    whole = copy.deepcopy(student)
    TrainedPart(whole).load_state_dict(part.state_dict())
    return whole.eval()


def network_of(student: Student) -> LandmarkMaps:
    """
    Raises:
        ValueError: the student's backbone is another one.
    """
    network = student.backbone.network
    if not isinstance(network, LandmarkMaps):
        raise ValueError(
            f"{student.spec['name']} is no landmark network: STUDENT.NAME mediapipe:full or mediapipe:lite"
        )
    return network
