"""Building blocks of encoder and mesh decoder: a MetaFormer block, and attention to a point's neighbours."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD_WIDTH = 32
GROUP_WIDTH = 8
POSITION_WIDTH = 16
MLP_RATIO = 2


class MetaFormerBlock(nn.Module):
    """A MetaFormer block (Yu et al. 2022): multi-head attention among tokens, then an MLP on each.

    Args:
        width: of the tokens; attention has a head for every `HEAD_WIDTH` channels.

    Raises:
        ValueError: a width that is no multiple of a head's or group's.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = _shares(width, HEAD_WIDTH)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, MLP_RATIO * width), nn.GELU(), nn.Linear(MLP_RATIO * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, width) to the same."""
        query, key, value = self.qkv(self.norm1(tokens)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)  # (B, heads, N, d)
        tokens = tokens + self.out(mixed.transpose(1, 2).flatten(2))
        return tokens + self.mlp(self.norm2(tokens))


class NeighbourAttention(nn.Module):
    """Vector attention of points to their neighbours (Point Transformer, Zhao et al. 2021, eq. 2 and 3).

    Each group of channels of a neighbour j is weighted by softmax_j(gamma(q_i - k_j + d_ij)), d_ij being an embedding
    of the relative position, which is added to the values too. With fewer centres than points it is a pooling.

    gamma is linear and the embedding is a linear map of few numbers h_ij = ReLU(W (p_i - p_j)), so both are applied
    before points are gathered for their neighbours, and the embedding's part of the values after they are summed: what
    is computed once for each pair is narrow.

    The layers of the position embedding are called `place`, `place_key` and `place_value`: tokenizers' files store
    them under these names.

    Args:
        inputs: channels of the points.
        width: channels of the result.
        centres: (n,) indices of the points that attend.
        neighbours: (n, k) indices of the points that they attend to.

    Raises:
        ValueError: a width that is no multiple of a head's or group's.
    """

    centres: Tensor
    neighbours: Tensor  # (n, k)

    def __init__(self, inputs: int, width: int, centres: Tensor, neighbours: Tensor) -> None:
        super().__init__()
        self.groups = _shares(width, GROUP_WIDTH)
        self.norm = nn.LayerNorm(inputs)
        self.query, self.key = nn.Linear(inputs, self.groups), nn.Linear(inputs, self.groups, bias=False)
        self.value = nn.Linear(inputs, width)
        self.place = nn.Linear(3, POSITION_WIDTH)
        self.place_key = nn.Linear(POSITION_WIDTH, self.groups, bias=False)
        self.place_value = nn.Linear(self.groups * POSITION_WIDTH, width, bias=False)
        self.out = nn.Linear(width, width)
        self.keep = nn.Identity() if inputs == width else nn.Linear(inputs, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, MLP_RATIO * width), nn.GELU(), nn.Linear(MLP_RATIO * width, width)
        )
        self.register_buffer("centres", centres, persistent=False)
        self.register_buffer("neighbours", neighbours, persistent=False)

    def forward(self, points: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """The centres' new channels and their positions.

        Args:
            points: (N, B, inputs); points come first, so that a neighbour is one row of memory.
            positions: (N, B, 3) in units of `fasthamer.students.tokenhand.encoder.UNIT`.

        Returns:
            (n, B, width) and positions (n, B, 3).
        """
        normed, near = self.norm(points), self.neighbours
        embedded = self.place(positions)
        relative = F.relu(embedded[self.centres][:, None] - embedded[near])  # (n, k, B, POSITION_WIDTH)
        scores = self.query(normed[self.centres])[:, None] - self.key(normed)[near] + self.place_key(relative)
        weights = scores.softmax(1).permute(0, 2, 3, 1)  # (n, B, groups, k)
        value = self.value(normed)[near].unflatten(3, (self.groups, -1))  # (n, k, B, groups, c)
        attended = (weights[:, :, :, None] @ value.permute(0, 2, 3, 1, 4)).flatten(2)  # (n, B, width)
        attended = attended + self.place_value((weights @ relative.transpose(1, 2)).flatten(2))
        points = self.keep(points[self.centres]) + self.out(attended)
        return points + self.mlp(points), positions[self.centres]


def farthest_points(points: Tensor, number: int) -> Tensor:
    """Farthest point sampling: (number,) indices into points (N, 3), beginning with the one nearest to their mean."""
    chosen = [int((points - points.mean(0)).norm(dim=1).argmin())]
    nearest = (points - points[chosen[0]]).norm(dim=1)
    while len(chosen) < number:
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (points - points[chosen[-1]]).norm(dim=1))
    return torch.tensor(chosen)


def _shares(width: int, each: int) -> int:
    """How many heads or groups of about `each` channels there are."""
    number = max(1, width // each)
    if width % number:
        raise ValueError(f"{width} channels cannot be split among {number} heads: take a multiple of {each}")
    return number
