"""WiLoR: "End-to-end 3D Hand Localization and Reconstruction in-the-wild" (Potamias et al., CVPR 2025).

The reconstruction network, without the detector; written from a description of it, not from its code. The official
code and weights are under CC BY-NC-ND 4.0.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fasthamer.hand.mano import Hand
from fasthamer.hand.rotation import rot6d_to_matrix
from fasthamer.hand.skinning import SkinnedHand, Skinning
from fasthamer.nn.mano_head import N_ROTATIONS, mano_output
from fasthamer.nn.normalise import Normalise
from fasthamer.nn.precision import full_precision
from fasthamer.runtime.contract import OUTPUTS
from fasthamer.runtime.deploy import Deployed
from fasthamer.runtime.fold import Folded
from fasthamer.teachers.vit import HEIGHT, MARGIN, VIEW, TokenViT, fill_at_random, patch_map
from fasthamer.teachers.wilor_refinement import Prediction, RefinementNet
from fasthamer.types import N_BETAS, HandOutput, ManoParams

SHAPE, CAMERA, PATCHES = N_ROTATIONS, N_ROTATIONS + 1, N_ROTATIONS + 2  # among the tokens, behind the rotations
MEAN_CAMERA = (4.0, 0.0, 0.0)  # s, tx, ty
LICENCE = (
    "WiLoR's weights are under CC BY-NC-ND 4.0: non-commercial use, and no sharing of adapted material, which what is "
    "made from them (a student, an export) may be"
)


class WiLoR(nn.Module):
    """A 256-pixel crop, of which the ViT sees the middle 192 columns; see `fasthamer.types.HandModel`.

    Args:
        backbone: 1280 wide and 32 deep in the published model.
        decoder: as wide as the backbone.
        hand: MANO, held but not part of the state dict.
    """

    image_size = HEIGHT
    view = VIEW

    def __init__(self, backbone: TokenViT, decoder: RefiningDecoder, hand: Hand) -> None:
        super().__init__()
        self.normalise = Normalise(HEIGHT)
        self.backbone = backbone
        self.decoder = decoder
        self.hand = hand
        self.feature_channels = backbone.channels

    def forward(self, image: Tensor) -> HandOutput:
        """(B, 3, S, S) RGB, values 0..255 of any dtype."""
        return self.decoder(self.backbone(self.normalise(image)[..., MARGIN:-MARGIN]), self.hand)

    def deploy(self) -> Deployed:
        """The inference graph; its backbone, in which nothing can be folded, is this model's own."""
        decoder = _WithHand(self.decoder, self.hand)
        graph = Deployed(self.normalise, _Middle(self.backbone), decoder, self.hand, self.view, self.feature_channels)
        graph.licence = LICENCE
        return graph


class RefiningDecoder(nn.Module):
    """Tokens to MANO parameters: read from the parameter tokens, then corrected once (`RefinementNet`).

    Everything is computed in float32, whatever the autocast: it is 1 % of the backbone's work.

    Args:
        width: of the tokens.
    """

    init_hand_pose: Tensor  # (1, 96) 6D rotations that the predicted ones are added to
    init_betas: Tensor  # (1, 10)
    init_cam: Tensor  # (1, 3)

    def __init__(self, width: int) -> None:
        super().__init__()
        self.decpose = nn.Linear(width, 6)  # of each rotation's token
        self.decshape = nn.Linear(width, N_BETAS)
        self.deccam = nn.Linear(width, 3)
        self.refine_net = RefinementNet(width)
        identity = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]).repeat(1, N_ROTATIONS)
        self.register_buffer("init_hand_pose", identity)
        self.register_buffer("init_betas", torch.zeros(1, N_BETAS))
        self.register_buffer("init_cam", torch.tensor([MEAN_CAMERA]))

    def forward(self, tokens: Tensor, hand: Hand) -> HandOutput:
        """
        Args:
            tokens: (B, 18 + 192, width): rotations, shape, camera, patches row by row.
            hand: the hand model that turns parameters into a mesh.
        """
        mano, camera = self.regress(tokens, hand)
        return mano_output(mano, camera, patch_map(tokens[:, PATCHES:]), hand)

    def regress(self, tokens: Tensor, skin: Callable[[ManoParams], tuple[Tensor, Tensor]]) -> tuple[ManoParams, Tensor]:
        """MANO parameters and the weak-perspective camera (B, 3).

        Args:
            tokens: as for `forward`.
            skin: a `Hand` or `Skinning`.
        """
        with full_precision(tokens):
            tokens = tokens.float()
            first = self.first(tokens)
            vertices, _ = skin(mano_params(first))
            correction = self.refine_net(patch_map(tokens[:, PATCHES:]), vertices, first.camera)
            refined = Prediction(*(before + by for before, by in zip(first, correction, strict=True)))
            return mano_params(refined), refined.camera

    def first(self, tokens: Tensor) -> Prediction:
        """What the parameter tokens alone give."""
        pose = self.decpose(tokens[:, :N_ROTATIONS]).flatten(1) + self.init_hand_pose
        betas = self.decshape(tokens[:, SHAPE]) + self.init_betas
        return Prediction(pose, betas, self.deccam(tokens[:, CAMERA]) + self.init_cam)


def mano_params(prediction: Prediction) -> ManoParams:
    """6D rotations to matrices."""
    rotations = rot6d_to_matrix(prediction.pose.unflatten(1, (N_ROTATIONS, 6)))  # (B, 16, 3, 3)
    return ManoParams(rotations[:, :1], rotations[:, 1:], prediction.betas)


class _Middle(nn.Module):
    """The ViT on the middle columns of a normalised crop, as a deployed model's backbone."""

    def __init__(self, network: TokenViT) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.network(image[..., MARGIN:-MARGIN])
        return patch_map(tokens[:, PATCHES:]), tokens


class _WithHand(nn.Module):
    """A decoder that is folded together with its hand: see `fasthamer.runtime.fold.Foldable`."""

    def __init__(self, decoder: RefiningDecoder, hand: Hand) -> None:
        super().__init__()
        self.decoder, self.hand = decoder, hand

    def fold(self) -> Folded:
        return Folded(FoldedRefinement(self.decoder, self.hand), SkinnedHand(self.hand), OUTPUTS)


class FoldedRefinement(nn.Module):
    """`RefiningDecoder.regress` with batch norms inside the transposed convolutions and the faster skinning.

    Args:
        decoder: in eval mode; it is left as it is.
        hand: whose first mesh the refinement looks at: it is part of this module.
    """

    def __init__(self, decoder: RefiningDecoder, hand: Hand) -> None:
        super().__init__()
        exact = copy.deepcopy(decoder).double().eval()
        layers: Any
        for layers in exact.refine_net.deconv.deconv:
            for index in range(0, len(layers), 3):
                layers[index] = fuse_conv_bn_eval(layers[index], layers[index + 1], transpose=True)
                layers[index + 1] = nn.Identity()
        self.decoder = exact.float().requires_grad_(False)
        self.skinning = Skinning(hand)

    def round_to(self, dtype: torch.dtype) -> None:
        """Takes tokens in another precision; its own arithmetic stays in float32."""

    def forward(self, tokens: Tensor) -> tuple[ManoParams, Tensor]:
        return self.decoder.regress(tokens, self.skinning)


def hollow_wilor(hand: Hand) -> WiLoR:
    """The published architecture on the meta device: names and shapes of 639 M parameters, no memory, no time."""
    with torch.device("meta"):
        backbone = TokenViT()
        decoder = RefiningDecoder(backbone.channels)
    return WiLoR(backbone, decoder, hand)


def random_wilor(hand: Hand, seed: int = 0) -> WiLoR:
    """The published architecture with random weights, in eval mode: for timing and tests, its meshes mean nothing."""
    model = hollow_wilor(hand)
    model.backbone.to_empty(device="cpu")
    fill_at_random(model.backbone, seed)
    model.decoder = RefiningDecoder(model.feature_channels)
    return model.eval()
