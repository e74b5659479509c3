"""HaMeR: "Reconstructing Hands in 3D with Transformers" (Pavlakos et al., CVPR 2024)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fasthamer.hand.mano import Hand
from fasthamer.nn.mano_head import SIZES, ManoHead
from fasthamer.nn.normalise import Normalise
from fasthamer.runtime.deploy import Deployed
from fasthamer.teachers.vit import HEIGHT, MARGIN, VIEW, PoseViT, fill_at_random
from fasthamer.types import HandOutput


class HaMeR(nn.Module):
    """Takes a 256-pixel crop; the ViT takes its middle 192 columns; see `fasthamer.types.HandModel`.

    Args:
        backbone: 1280 wide and 32 deep in the published model.
        mano_head: `full` in the published model.
        hand: MANO, held but not part of the state dict.
    """

    image_size = HEIGHT
    view = VIEW

    def __init__(self, backbone: PoseViT, mano_head: ManoHead, hand: Hand) -> None:
        super().__init__()
        self.normalise = Normalise(HEIGHT)
        self.backbone = backbone
        self.mano_head = mano_head
        self.hand = hand
        self.feature_channels = backbone.channels

    def forward(self, image: Tensor) -> HandOutput:
        """(B, 3, S, S) RGB, values 0..255 of any dtype."""
        features = self.backbone(self.normalise(image)[..., MARGIN:-MARGIN])
        return self.mano_head(features, self.hand)

    def deploy(self) -> Deployed:
        """The exact inference graph; its backbone, in which nothing can be folded, is this model's own."""
        return Deployed(
            self.normalise, _Middle(self.backbone), self.mano_head, self.hand, self.view, self.feature_channels
        )


class _Middle(nn.Module):
    """The ViT on the middle columns of a normalised crop, as a deployed model's backbone."""

    def __init__(self, network: PoseViT) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.network(image[..., MARGIN:-MARGIN])
        return features, features


def hollow_hamer(hand: Hand) -> HaMeR:
    """The published architecture on the meta device: names and shapes of 670 M parameters, without memory."""
    with torch.device("meta"):
        backbone = PoseViT()
        head = ManoHead(backbone.channels, SIZES["full"])
    return HaMeR(backbone, head, hand)


def random_hamer(hand: Hand, seed: int = 0) -> HaMeR:
    """The published architecture with random weights, in eval mode: for timing and tests, its meshes mean nothing."""
    model = hollow_hamer(hand)
    model.backbone.to_empty(device="cpu")
    model.mano_head = ManoHead(model.feature_channels, SIZES["full"])
    model.mano_head.start_from(hand)
    fill_at_random(model.backbone, seed)
    return model.eval()
