"""TokenHand's second stage, the trained part: classifies each token from a backbone's map sampled at the joints."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fasthamer.hand.rotation import rot6d_to_matrix
from fasthamer.nn.precision import at_least_float32
from fasthamer.registry import unknown
from fasthamer.students.tokenhand.tokenizer import TokenizerSpec
from fasthamer.types import N_JOINTS

GENERATORS = {"global": None, "map": 1, "upsampled": 4}  # TokenHand's A, its 7x7, its D (28x28): times finer
WIDTH = 128  # channels of the map that tokens are classified from
POOLED = 4  # cells a side of the summary; a mean alone would hold no positions
MIXED = 224  # channels of the class head's tokens
MIXERS = 4


class TokenClassifier(nn.Module):
    """Feature map to 2D joints and a class for each token: the trained part of a token decoder.

    The map is narrowed to `WIDTH` channels and pooled into a summary that predicts the 2D joints (and, with tokens of
    the frame `palm`, the hand's rotation). Features are sampled at those joints from a map four times finer, mixed
    over joints by two residual convolutions, mapped from 21 joints to M tokens, and classified by MLP-Mixers (PCT,
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
        # Embeddings of each joint and of its 2D position; students' files store them as `names` and `place`.
        self.names = nn.Parameter(torch.zeros(1, N_JOINTS, WIDTH))
        self.place = nn.Linear(2, WIDTH)
        self.across = nn.Sequential(_Residual(), _Residual())
        self.widen, self.spread = nn.Linear(WIDTH, MIXED), nn.Linear(N_JOINTS, count)
        self.mixers = nn.Sequential(*(_Mixer(count) for _ in range(MIXERS)))
        self.classes = nn.Sequential(nn.LayerNorm(MIXED), nn.Linear(MIXED, size))

    def classify(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """2D joints (B, 21, 2) in crop units, logits (B, M, K), rotation (B, 3, 3) or None."""
        narrow = self.narrow(features)
        summary = self.summary(narrow)
        keypoints = at_least_float32(self.keypoints(summary).unflatten(1, (N_JOINTS, 2)))
        rotation = None if self.rotation is None else rot6d_to_matrix(at_least_float32(self.rotation(summary)))
        tokens = summary[:, None] + self.names + self.place(keypoints)
        if self.generator != "global":
            tokens = tokens + self._sample(self.finer(narrow), keypoints)
        tokens = self.across(tokens.transpose(1, 2)).transpose(1, 2)
        tokens = self.spread(self.widen(tokens).transpose(1, 2)).transpose(1, 2)  # (B, M, MIXED)
        return keypoints, at_least_float32(self.classes(self.mixers(tokens))), rotation

    def _sample(self, features: Tensor, keypoints: Tensor) -> Tensor:
        """(B, C, h, w) to (B, 21, C): the map sampled at the joints; positions outside take the border's value."""
        where = 2 / self.view * keypoints.detach()[:, :, None]  # grid_sample's -1 and 1 are the map's outer edges
        sampled = F.grid_sample(
            features, where.to(features.dtype), mode="bilinear", padding_mode="border", align_corners=False
        )
        return sampled[..., 0].transpose(1, 2)


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
