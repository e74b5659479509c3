"""A student: timm backbone and decoder, `student(image) -> HandOutput`."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fasthamer.hand.mano import Hand
from fasthamer.nn.normalise import Normalise
from fasthamer.runtime.deploy import Deployed
from fasthamer.runtime.fold import fold_backbone
from fasthamer.students.backbone import Backbone
from fasthamer.types import HandOutput, View


class Decoder(Protocol):
    """Decodes a feature map (B, C, h, w) to a hand."""

    def __call__(self, features: Tensor, hand: Hand) -> HandOutput: ...


class Student(nn.Module):
    """Normalises and resizes, extracts features, decodes; see `fasthamer.types.HandModel`.

    The output's `features` are those of the backbone's chosen layer, for feature distillation; the decoder always
    takes the last. The hand model is held but not part of the state dict.

    Args:
        spec: the arguments of `build_student` that rebuild this student (plain values).
    """

    def __init__(
        self,
        normalise: Normalise,
        backbone: Backbone,
        decoder: nn.Module,
        hand: Hand,
        spec: dict[str, Any],
    ) -> None:
        super().__init__()
        self.normalise = normalise
        self.backbone = backbone
        self.decoder = decoder
        self.hand = hand
        self.spec = spec
        self.image_size = normalise.size
        self.box_shape: str = spec.get("box_shape", "hamer")  # older files have none
        half = normalise.share / 2
        self.view = View(-half, -half, half, half)
        self.feature_channels = backbone.layer_channels

    def forward(self, image: Tensor) -> HandOutput:
        """(B, 3, S, S) RGB, values 0..255 of any dtype."""
        tapped, last = self.backbone(self.normalise(image))
        return self.decode(last)._replace(features=tapped)

    def decode(self, features: Tensor) -> HandOutput:
        """The hand of the backbone's last map (B, C, h, w)."""
        return self.decoder(features, self.hand)

    def deploy(self) -> Deployed:
        """The exact inference graph of this student; a copy, which shares no weight with it.

        Raises:
            ValueError: its decoder cannot be folded.
        """
        device = self.normalise.scale.device
        example = torch.zeros(1, 3, self.image_size, self.image_size, device=device)
        folded = fold_backbone(self.backbone, example)
        graph = Deployed(self.normalise, folded, self.decoder, self.hand, self.view, self.feature_channels)
        graph.box_shape = self.box_shape
        return graph
