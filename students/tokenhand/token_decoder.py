"""TokenHand's second stage: which word each token is, read out of a backbone's map at the joints."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fasthamer.hand.mano import Hand
from fasthamer.hand.posed_joints import joints_of_vertices
from fasthamer.hand.rotation import rot6d_to_matrix
from fasthamer.nn.mano_head import START_SPAN, full_precision
from fasthamer.registry import unknown
from fasthamer.runtime.contract import MESH
from fasthamer.runtime.fold import Folded
from fasthamer.students.tokenhand.folded import FoldedMesh, FoldedTokens
from fasthamer.students.tokenhand.mesh_decoder import mesh_decoder_params
from fasthamer.students.tokenhand.placing import Placing
from fasthamer.students.tokenhand.tokenizer import Tokenizer, TokenizerSpec
from fasthamer.types import N_JOINTS, HandOutput

GENERATORS = {"global": None, "map": 1, "upsampled": 4}  # TokenHand's A, its 7x7, its D (28x28): times finer
WIDTH = 128  # channels of the map that tokens are read from
POOLED = 4  # cells a side of the summary; a mean alone would not say where anything is
MIXED = 224  # channels of the class head's tokens
MIXERS = 4


class TokenClassifier(nn.Module):
    """Feature map to 2D joints and a class for each token: what of a token decoder is trained.

    The map is narrowed to `WIDTH` channels and pooled into a summary that predicts the 2D joints (and, with tokens of
    the frame `palm`, the hand's rotation). Features are sampled at those joints from a map four times finer, mixed
    over joints by two residual convolutions, turned from 21 joints into M tokens, and classified by MLP-Mixers (PCT,
    Geng et al. 2023).

    Args:
        channels: of the map.
        spec: of the tokenizer.
        generator: one of `GENERATORS`.
        view: the middle share of the crop's side that the map covers.

    Raises:
        KeyError: no such generator.
    """

    def __init__(self, channels: int, spec: TokenizerSpec, generator: str = "upsampled", view: float = 1.0) -> None:
        super().__init__()
        if generator not in GENERATORS:
            raise KeyError(unknown("token generator", generator, GENERATORS))
        self.spec, self.generator, self.view = spec, generator, view
        count, size = spec.tokens[0], spec.codes
        self.narrow = nn.Sequential(nn.Conv2d(channels, WIDTH, 1), nn.BatchNorm2d(WIDTH), nn.ReLU())
        self.summary = nn.Sequential(
            nn.AdaptiveAvgPool2d(POOLED), nn.Flatten(), nn.Linear(POOLED**2 * WIDTH, WIDTH), nn.GELU()
        )
        self.keypoints = nn.Linear(WIDTH, 2 * N_JOINTS)
        self.rotation = nn.Linear(WIDTH, 6) if spec.frame == "palm" else None
        self.finer = nn.Sequential(_Finer(), _Finer()) if generator == "upsampled" else nn.Identity()
        self.names = nn.Parameter(torch.zeros(1, N_JOINTS, WIDTH))  # which joint a feature belongs to
        self.place = nn.Linear(2, WIDTH)
        self.across = nn.Sequential(_Residual(), _Residual())
        self.widen, self.spread = nn.Linear(WIDTH, MIXED), nn.Linear(N_JOINTS, count)
        self.mixers = nn.Sequential(*(_Mixer(count) for _ in range(MIXERS)))
        self.classes = nn.Sequential(nn.LayerNorm(MIXED), nn.Linear(MIXED, size))

    def classify(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """2D joints (B, 21, 2) in crop units, logits (B, M, K), rotation (B, 3, 3) or None."""
        narrow = self.narrow(features)
        summary = self.summary(narrow)
        keypoints = self.keypoints(summary).unflatten(1, (N_JOINTS, 2)).float()
        rotation = None if self.rotation is None else rot6d_to_matrix(self.rotation(summary).float())
        tokens = summary[:, None] + self.names + self.place(keypoints)
        if self.generator != "global":
            tokens = tokens + self._at(self.finer(narrow), keypoints)
        tokens = self.across(tokens.transpose(1, 2)).transpose(1, 2)
        tokens = self.spread(self.widen(tokens).transpose(1, 2)).transpose(1, 2)  # (B, M, MIXED)
        return keypoints, self.classes(self.mixers(tokens)).float(), rotation

    def _at(self, features: Tensor, keypoints: Tensor) -> Tensor:
        """(B, C, h, w) to (B, 21, C): the map where the joints are; positions outside take the border's."""
        where = 2 / self.view * keypoints.detach()[:, :, None]  # grid_sample's -1 and 1 are the map's outer edges
        seen = F.grid_sample(
            features, where.to(features.dtype), mode="bilinear", padding_mode="border", align_corners=False
        )
        return seen[..., 0].transpose(1, 2)


class TokenDecoder(TokenClassifier):
    """Feature map to hand: `TokenClassifier`, then the frozen codes and mesh decoder of a tokenizer.

    The mesh is that of softmax(logits) C, or with `hard` of the likeliest codes.

    Args:
        channels: of the map.
        tokenizer: whose codes and mesh decoder are copied; they stay as they are.
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
        self.codes = nn.Parameter(codes, requires_grad=False)  # no buffer: it counts among what the decoder weighs
        self.placing = Placing(joints_of_vertices(hand))
        self._start(hand)

    @torch.no_grad()
    def _start(self, hand: Hand) -> None:
        """Before training: the unposed hand's joints over half the crop, its rotation none."""
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

    def fold(self) -> Folded:
        """The exact inference graph, see `fasthamer.runtime.fold.Foldable`; `hard` is settled with it."""
        exact = copy.deepcopy(self).double()
        return Folded(FoldedTokens(exact), FoldedMesh(exact), MESH)


def token_decoder_params(channels: int, spec: TokenizerSpec, generator: str = "upsampled") -> int:
    """How many numbers a `TokenDecoder` holds, trained or frozen; no weights are made."""
    with torch.device("meta"):
        classifier = TokenClassifier(channels, spec, generator)
    frozen = spec.codes * spec.code_width
    frozen += mesh_decoder_params(spec.code_width, spec.tokens, spec.widths, spec.blocks)
    return frozen + sum(parameter.numel() for parameter in classifier.parameters())


class _Finer(nn.Sequential):
    """Twice as many cells a side."""

    def __init__(self) -> None:
        super().__init__(
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH, bias=False),
            nn.Conv2d(WIDTH, WIDTH, 1, bias=False),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(),
        )


class _Residual(nn.Module):
    """Two convolutions over neighbouring joints, beside the input."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(WIDTH, WIDTH, 3, padding=1, bias=False),
            nn.BatchNorm1d(WIDTH),
            nn.ReLU(),
            nn.Conv1d(WIDTH, WIDTH, 1, bias=False),
            nn.BatchNorm1d(WIDTH),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        return F.relu(tokens + self.body(tokens))


class _Mixer(nn.Module):
    """One MLP over the tokens, then one over the channels (Tolstikhin et al. 2021)."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(MIXED), nn.LayerNorm(MIXED)
        self.tokens = nn.Sequential(nn.Linear(count, 2 * count), nn.GELU(), nn.Linear(2 * count, count))
        self.channels = nn.Sequential(nn.Linear(MIXED, MIXED), nn.GELU(), nn.Linear(MIXED, MIXED))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.tokens(self.norm1(tokens).transpose(1, 2)).transpose(1, 2)
        return tokens + self.channels(self.norm2(tokens))
