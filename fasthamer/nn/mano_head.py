"""HaMeR's decoder: a transformer with a single query that regresses MANO parameters from a feature map.

Follows "Reconstructing Hands in 3D with Transformers" (CVPR 2024). The module names are those of the published
checkpoint (`mano_head.*`), so its tensors load strictly; teacher and students share this one implementation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fasthamer.camera import project, weak_to_translation
from fasthamer.hand.mano import Hand
from fasthamer.hand.rotation import axis_angle_to_matrix, matrix_to_rot6d, rot6d_to_matrix
from fasthamer.nn.precision import full_precision
from fasthamer.types import N_BETAS, N_HAND_JOINTS, HandOutput, ManoParams

N_ROTATIONS = 1 + N_HAND_JOINTS  # the wrist's, then the fingers', six numbers each
START_SPAN = 0.5  # of the crop's side: what the keypoints of an untrained student's hand cover


class HeadSize(NamedTuple):
    """Widths of the transformer; `heads * head_width` is the attention's inner width."""

    width: int
    depth: int
    heads: int
    head_width: int
    mlp_width: int


SIZES = {
    "full": HeadSize(width=1024, depth=6, heads=8, head_width=64, mlp_width=1024),  # HaMeR's own
    "medium": HeadSize(width=512, depth=4, heads=8, head_width=32, mlp_width=1024),
    "small": HeadSize(width=256, depth=4, heads=4, head_width=32, mlp_width=512),
    "tiny": HeadSize(width=128, depth=3, heads=2, head_width=32, mlp_width=256),
    "full_mlp768": HeadSize(width=1024, depth=6, heads=8, head_width=64, mlp_width=768),  # some of Fast-HaMeR's
    "full_mlp512": HeadSize(width=1024, depth=6, heads=8, head_width=64, mlp_width=512),
}


class ManoReadout(nn.Module, ABC):
    """The last layers of a decoder that regresses MANO parameters; `head(features, hand) -> HandOutput`.

    A subclass defines `summarise`: a feature map to the vector that the read-out layers take.
    """

    init_hand_pose: Tensor  # (1, 96) 6D rotations that the regressed ones are added to
    init_betas: Tensor  # (1, 10)
    init_cam: Tensor  # (1, 3)

    def __init__(self, width: int) -> None:
        super().__init__()
        self.decpose = nn.Linear(width, 6 * N_ROTATIONS)
        self.decshape = nn.Linear(width, N_BETAS)
        self.deccam = nn.Linear(width, 3)
        for readout in (self.decpose, self.decshape, self.deccam):  # training starts near the mean hand
            nn.init.xavier_uniform_(readout.weight, gain=0.01)
            nn.init.zeros_(readout.bias)
        identity = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]).repeat(1, N_ROTATIONS)
        self.register_buffer("init_hand_pose", identity)
        self.register_buffer("init_betas", torch.zeros(1, N_BETAS))
        self.register_buffer("init_cam", torch.tensor([[1.0, 0.0, 0.0]]))

    @torch.no_grad()
    def start_from(self, hand: Hand) -> None:
        """Makes an untrained head predict `hand`'s mean pose, sized to fill half the crop.

        A point at height y (metres) lands at y * s / 2 of the crop (see `fasthamer.camera`), so keypoints that span
        `e` metres cover `START_SPAN` of it at s = 2 * START_SPAN / e. HaMeR's own mean parameters are part of its
        checkpoint and stay as they are.
        """
        axis_angle = torch.zeros(1, N_ROTATIONS, 3)
        axis_angle[:, 1:] = torch.from_numpy(hand.hands_mean).reshape(1, N_HAND_JOINTS, 3)
        rotations = axis_angle_to_matrix(axis_angle.to(hand.J_regressor.device))  # (1, 16, 3, 3)
        betas = rotations.new_zeros(1, N_BETAS)
        _, joints = hand(ManoParams(rotations[:, :1], rotations[:, 1:], betas))
        extent = (joints.amax(1) - joints.amin(1)).max()
        self.init_hand_pose.copy_(matrix_to_rot6d(rotations).reshape(1, -1))
        self.init_betas.zero_()
        self.init_cam.copy_(torch.stack([2 * START_SPAN / extent, extent * 0, extent * 0])[None])

    @abstractmethod
    def summarise(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to (B, width)."""

    def forward(self, features: Tensor, hand: Hand) -> HandOutput:
        """The hand in a feature map.

        Args:
            features: (B, C, h, w).
            hand: the hand model that turns parameters into a mesh.
        """
        mano, camera = self.regress(features)
        return mano_output(mano, camera, features, hand)

    def regress(self, features: Tensor) -> tuple[ManoParams, Tensor]:
        """(B, C, h, w) to MANO parameters and the weak-perspective camera (B, 3), both fp32."""
        query = self.summarise(features)
        with full_precision(features):  # 6D -> rotation -> skinning loses millimetres in fp16
            pose = self.decpose(query.float()) + self.init_hand_pose
            betas = self.decshape(query.float()) + self.init_betas
            camera = self.deccam(query.float()) + self.init_cam
            rotations = rot6d_to_matrix(pose.reshape(-1, N_ROTATIONS, 6))  # (B, 16, 3, 3)
        return ManoParams(rotations[:, :1], rotations[:, 1:], betas), camera


class ManoHead(ManoReadout):
    """HaMeR's: one query attends to the map in `depth` blocks.

    Args:
        channels: C of the feature map.
        size: one of `SIZES`, or other widths.
        grid: height and width of the map, to add a learned position embedding to each of its cells. Attention has no
            notion of position: a ViT's tokens carry its position embedding, a convolutional network's do not. None
            (HaMeR's own head) adds nothing.
    """

    def __init__(self, channels: int, size: HeadSize, grid: tuple[int, int] | None = None) -> None:
        super().__init__(size.width)
        # (1, C, h, w) the position embedding; students' files store it as `place`
        self.place = nn.Parameter(torch.zeros(1, channels, *grid)) if grid else None
        self.transformer = _QueryTransformer(channels, size)

    @property
    def position_embedding(self) -> Tensor | None:
        """(1, C, h, w), or None without a grid."""
        return self.place

    def summarise(self, features: Tensor) -> Tensor:
        context = features if self.position_embedding is None else features + self.position_embedding
        return self.transformer(context.flatten(2).transpose(1, 2))


class FlatHead(ManoReadout):
    """The flattened map through two layers: no attention, and little arithmetic on small maps.

    Args:
        channels: C of the feature map.
        size: only its `width` is used.
        grid: height and width of the map.
    """

    def __init__(self, channels: int, size: HeadSize, grid: tuple[int, int]) -> None:
        super().__init__(size.width)
        narrow = size.width // 2
        flat = narrow * grid[0] * grid[1]
        self.reduce = nn.Conv2d(channels, narrow, kernel_size=1)
        self.layers = nn.Sequential(
            nn.LayerNorm(flat),
            nn.Linear(flat, 2 * size.width),
            nn.GELU(),
            nn.Linear(2 * size.width, size.width),
            nn.GELU(),
        )

    def summarise(self, features: Tensor) -> Tensor:
        return self.layers(self.reduce(features).flatten(1))


def mano_output(mano: ManoParams, camera: Tensor, features: Tensor, hand: Hand) -> HandOutput:
    """Skins the hand and projects its joints, in fp32 whatever the autocast."""
    with full_precision(features):
        vertices, joints = hand(mano)
        keypoints_2d = project(joints, weak_to_translation(camera))
    return HandOutput(vertices, joints, keypoints_2d, camera, features, mano)


class _QueryTransformer(nn.Module):
    """One learned query through `depth` blocks of self-attention, cross-attention and MLP, all pre-norm."""

    def __init__(self, channels: int, size: HeadSize) -> None:
        super().__init__()
        # HaMeR embeds a scalar zero: only the bias and the position reach the output, the weight has no effect.
        self.to_token_embedding = nn.Linear(1, size.width)
        self.pos_embedding = nn.Parameter(torch.randn(1, 1, size.width))
        blocks = nn.ModuleList(_block(channels, size) for _ in range(size.depth))
        self.transformer = nn.ModuleDict({"layers": blocks})

    def forward(self, context: Tensor) -> Tensor:
        """(B, N, C) context tokens to (B, width)."""
        query = self.to_token_embedding(context.new_zeros(context.shape[0], 1, 1)) + self.pos_embedding
        blocks: Any = self.transformer["layers"]
        for self_attention, cross_attention, mlp in blocks:
            query = query + self_attention(query)
            query = query + cross_attention(query, context)
            query = query + mlp(query)
        return query.squeeze(1)


def _block(channels: int, size: HeadSize) -> nn.ModuleList:
    parts = (_SelfAttention(size), _CrossAttention(channels, size), _Mlp(size))
    return nn.ModuleList(_PreNorm(size.width, part) for part in parts)


class _PreNorm(nn.Module):
    def __init__(self, width: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fn = fn

    def forward(self, query: Tensor, *context: Tensor) -> Tensor:
        return self.fn(self.norm(query), *context)


class _Attention(nn.Module):
    def __init__(self, size: HeadSize) -> None:
        super().__init__()
        self.heads = size.heads
        self.to_out = nn.Sequential(nn.Linear(size.heads * size.head_width, size.width))

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query, key, value = (x.unflatten(2, (self.heads, -1)).transpose(1, 2) for x in (query, key, value))
        attended = F.scaled_dot_product_attention(query, key, value)  # (B, heads, 1, head_width)
        return self.to_out(attended.transpose(1, 2).flatten(2))


class _SelfAttention(_Attention):
    def __init__(self, size: HeadSize) -> None:
        super().__init__(size)
        self.to_qkv = nn.Linear(size.width, 3 * size.heads * size.head_width, bias=False)

    def forward(self, query: Tensor) -> Tensor:
        return self.attend(*self.to_qkv(query).chunk(3, dim=-1))


class _CrossAttention(_Attention):
    def __init__(self, channels: int, size: HeadSize) -> None:
        super().__init__(size)
        self.to_kv = nn.Linear(channels, 2 * size.heads * size.head_width, bias=False)
        self.to_q = nn.Linear(size.width, size.heads * size.head_width, bias=False)

    def forward(self, query: Tensor, context: Tensor) -> Tensor:
        if self.training:
            return self._query_first(query, context)
        return self.attend(self.to_q(query), *self.to_kv(context).chunk(2, dim=-1))

    def _query_first(self, query: Tensor, context: Tensor) -> Tensor:
        """The same product in another order: q (K x) = (q K) x, and sum(w V x) = V sum(w x).

        One query and N tokens take one projection, not N, so training on stored maps takes a quarter less time. Models
        in use are folded, see `fasthamer.runtime.fold`.
        """
        key, value = (each.unflatten(0, (self.heads, -1)) for each in self.to_kv.weight.chunk(2))  # (h, d, C)
        wanted = self.to_q(query).unflatten(2, (self.heads, -1)).squeeze(1) / key.shape[1] ** 0.5  # (B, h, d)
        asked = wanted.transpose(0, 1) @ key  # (h, B, C)
        weights = (asked.transpose(0, 1) @ context.mT).softmax(-1)  # (B, h, N)
        attended = (weights @ context).transpose(0, 1) @ value.mT  # (h, B, d)
        return self.to_out(attended.transpose(0, 1).flatten(1)[:, None])


class _Mlp(nn.Module):
    def __init__(self, size: HeadSize) -> None:
        super().__init__()
        first, last = nn.Linear(size.width, size.mlp_width), nn.Linear(size.mlp_width, size.width)
        self.net = nn.Sequential(OrderedDict([("0", first), ("1", nn.GELU()), ("3", last)]))  # as in the checkpoint

    def forward(self, query: Tensor) -> Tensor:
        return self.net(query)
