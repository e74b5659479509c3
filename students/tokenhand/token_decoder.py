"""TokenHand's second stage: feature map to hand, with the frozen codes and mesh decoder of a tokenizer."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from fasthamer.hand.mano import Hand
from fasthamer.hand.posed_joints import joints_of_vertices
from fasthamer.nn.mano_head import START_SPAN
from fasthamer.nn.precision import full_precision
from fasthamer.runtime.contract import MESH
from fasthamer.runtime.fold import Folded
from fasthamer.students.tokenhand.folded import FoldedMesh, FoldedTokens
from fasthamer.students.tokenhand.mesh_decoder import mesh_decoder_params
from fasthamer.students.tokenhand.placing import Placing
from fasthamer.students.tokenhand.token_classifier import TokenClassifier
from fasthamer.students.tokenhand.tokenizer import Tokenizer, TokenizerSpec
from fasthamer.types import HandOutput


class TokenDecoder(TokenClassifier):
    """Feature map to hand: `TokenClassifier`, then the frozen codes and mesh decoder of a tokenizer.

    The mesh is that of softmax(logits) C, or with `hard` of the likeliest codes.

    Args:
        channels: of the map.
        tokenizer: its codes and mesh decoder are copied and frozen.
        hand: the hand model.
        generator: one of `GENERATORS`.
        view: the middle share of the crop's side that the map covers.

    Raises:
        KeyError: no such generator.
    """

    def __init__(
        self, channels: int, tokenizer: Tokenizer, hand: Hand, generator: str = "upsampled", view: float = 1.0
    ) -> None:
        super().__init__(channels, tokenizer.spec, generator, view)
        self.hard = False
        self.mesh = copy.deepcopy(tokenizer.decoder).requires_grad_(False)
        codes = tokenizer.codebook.codes.detach().clone()  # (K, D)
        self.codes = nn.Parameter(codes, requires_grad=False)  # no buffer: its size counts among the parameters
        self.placing = Placing(joints_of_vertices(hand))
        self._start(hand)

    @torch.no_grad()
    def _start(self, hand: Hand) -> None:
        """Initial predictions: the unposed hand's joints over half the crop, and no rotation."""
        joints = self.placing.joints @ hand.layer.v_template.detach()
        middle, extent = joints.mean(0), (joints.amax(0) - joints.amin(0)).max()
        self.keypoints.weight.mul_(0.01)
        self.keypoints.bias.copy_((START_SPAN * (joints - middle) / extent)[:, :2].flatten())
        if self.rotation is not None:
            self.rotation.weight.mul_(0.01)
            self.rotation.bias.copy_(self.rotation.bias.new_tensor([1.0, 0, 0, 0, 1, 0]))

    def forward(self, features: Tensor, hand: Hand) -> HandOutput:
        """(B, C, h, w) to a hand; `mano` is None, `camera` is fitted to the 2D joints in closed form."""
        keypoints, logits, rotation = self.classify(features)
        with full_precision(features):  # half precision would move vertices
            vertices, joints, camera = self.placing(self.mesh_of(logits), keypoints, rotation)
        return HandOutput(vertices, joints, keypoints, camera, features, logits=logits)

    def mesh_of(self, logits: Tensor) -> Tensor:
        """(B, M, K) to (B, 778, 3) metres, as the tokenizer's mesh decoder gives it."""
        if self.hard:
            return self.mesh(self.codes[logits.argmax(-1)])
        return self.mesh(logits.softmax(-1) @ self.codes)

    def fold(self, dtype: torch.dtype = torch.float32) -> Folded:
        """The exact inference graph, see `fasthamer.runtime.fold.Foldable`; `hard` is fixed at its present value."""
        exact = copy.deepcopy(self).double()
        head, mesh = FoldedTokens(exact), FoldedMesh(exact.codes, exact.mesh, exact.placing, exact.hard)
        return Folded(head.to(dtype), mesh.to(dtype), MESH)


def token_decoder_params(channels: int, spec: TokenizerSpec, generator: str = "upsampled") -> int:
    """The number of parameters of a `TokenDecoder`, trained or frozen; no weights are allocated."""
    with torch.device("meta"):
        classifier = TokenClassifier(channels, spec, generator)
    frozen = spec.codes * spec.code_width
    frozen += mesh_decoder_params(spec.code_width, spec.tokens, spec.widths, spec.blocks)
    return frozen + sum(parameter.numel() for parameter in classifier.parameters())
