"""From a mesh to tokens: a Point Transformer whose neighbourhoods are the template's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fasthamer.students.tokenhand.blocks import MetaFormerBlock, NeighbourAttention, farthest_points

UNIT = 0.1  # metres; the unit of network inputs and outputs, so that coordinates are of the order of 1
FIRST_WIDTH = 32


class MeshEncoder(nn.Module):
    """(B, 778, 3) to M tokens (B, M, D), each normalised to mean 0 and variance 1 over its channels.

    Points are pooled from the 778 vertices to fewer and fewer, last to M, by attention to their nearest neighbours;
    after each pooling they attend to their neighbours once more. Since the topology is fixed, so are the samples and
    neighbourhoods: farthest points and nearest neighbours of the template; relative positions are those of the input
    mesh. Attention among all M tokens comes last.

    Args:
        template: (778, 3) metres.
        points: how many are left after each pooling; the last is M.
        widths: their channels.
        neighbours: how many a point attends to.
        code_width: D.
        blocks: of attention among the M points.
    """

    def __init__(
        self, template: Tensor, points: list[int], widths: list[int], neighbours: int, code_width: int, blocks: int
    ) -> None:
        super().__init__()
        positions = template.detach().cpu().double()
        self.embed = nn.Linear(3, FIRST_WIDTH)
        layers, inputs = [], FIRST_WIDTH
        for number, width in zip(points, widths, strict=True):
            centres = farthest_points(positions, number)
            near = _nearest(positions[centres], positions, neighbours)
            layers.append(NeighbourAttention(inputs, width, centres, near))
            positions = positions[centres]
            everyone = torch.arange(number)
            layers.append(NeighbourAttention(width, width, everyone, _nearest(positions, positions, neighbours)))
            inputs = width
        self.layers = nn.ModuleList(layers)
        # (1, M, width) the token embedding; tokenizers' files store it as `names`
        self.names = nn.Parameter(torch.zeros(1, points[-1], inputs))
        self.blocks = nn.Sequential(*(MetaFormerBlock(inputs) for _ in range(blocks)))
        self.out = nn.Sequential(
            nn.LayerNorm(inputs), nn.Linear(inputs, code_width), nn.LayerNorm(code_width, elementwise_affine=False)
        )

    def forward(self, vertices: Tensor) -> Tensor:
        """(B, 778, 3) metres, wrist at the origin, to (B, M, D)."""
        positions = vertices.transpose(0, 1) / UNIT
        points = self.embed(positions)
        for layer in self.layers:
            points, positions = layer(points, positions)
        return self.out(self.blocks(points.transpose(0, 1) + self.names))


def _nearest(centres: Tensor, points: Tensor, number: int) -> Tensor:
    """(n, 3) and (N, 3) to (n, number) indices, nearest first."""
    return torch.cdist(centres, points).topk(min(number, len(points)), largest=False).indices
