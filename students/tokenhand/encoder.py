"""From a mesh to tokens: a Point Transformer whose neighbourhoods are the template's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fasthamer.students.tokenhand.blocks import MetaFormerBlock, NeighbourAttention, farthest_points

UNIT = 0.1  # metres; networks see hands in it, so that coordinates are of the order of 1
FIRST_WIDTH = 32


class MeshEncoder(nn.Module):
    """(B, 778, 3) to M tokens (B, M, D), each normalised to mean 0 and variance 1 over its channels.

    Points are pooled from the 778 vertices to fewer and fewer, last to M, by attention to their nearest neighbours;
    after each pooling they look at their neighbours once more. Since the topology is fixed, so are the samples and
    neighbourhoods: farthest points and nearest neighbours of the template; relative positions are those of the hand at
    hand. What a token should say depends on all others: in the end they look at each other.

    Args:
        template: (778, 3) metres.
        points: how many are left after each pooling; the last is M.
        widths: their channels.
        neighbours: how many a point looks at.
        code_width: D.
        blocks: of attention among the M points.
    """

    def __init__(
        self, template: Tensor, points: list[int], widths: list[int], neighbours: int, code_width: int, blocks: int
    ) -> None:
        super().__init__()
        places = template.detach().cpu().double()
        self.embed = nn.Linear(3, FIRST_WIDTH)
        layers, inputs = [], FIRST_WIDTH
        for number, width in zip(points, widths, strict=True):
            centres = farthest_points(places, number)
            layers.append(NeighbourAttention(inputs, width, centres, _nearest(places[centres], places, neighbours)))
            places = places[centres]
            everyone = torch.arange(number)
            layers.append(NeighbourAttention(width, width, everyone, _nearest(places, places, neighbours)))
            inputs = width
        self.layers = nn.ModuleList(layers)
        self.names = nn.Parameter(torch.zeros(1, points[-1], inputs))  # which token it is
        self.blocks = nn.Sequential(*(MetaFormerBlock(inputs) for _ in range(blocks)))
        self.out = nn.Sequential(
            nn.LayerNorm(inputs), nn.Linear(inputs, code_width), nn.LayerNorm(code_width, elementwise_affine=False)
        )

    def forward(self, vertices: Tensor) -> Tensor:
        """(B, 778, 3) metres, wrist at the origin, to (B, M, D)."""
        places = vertices.transpose(0, 1) / UNIT
        points = self.embed(places)
        for layer in self.layers:
            points, places = layer(points, places)
        return self.out(self.blocks(points.transpose(0, 1) + self.names))


def _nearest(centres: Tensor, places: Tensor, number: int) -> Tensor:
    """(n, 3) and (N, 3) to (n, number) indices, nearest first."""
    return torch.cdist(centres, places).topk(min(number, len(places)), largest=False).indices
