"""From tokens to a mesh: the cascade of TokenHand, whose tokens double while their widths halve."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fasthamer.nn.precision import at_least_float32
from fasthamer.students.tokenhand.blocks import MetaFormerBlock
from fasthamer.students.tokenhand.encoder import UNIT
from fasthamer.types import N_VERTICES


class MeshDecoder(nn.Module):
    """(B, M, D) to (B, 778, 3), in layers of: fewer channels, attention, more tokens.

    Each layer adds a learned position embedding to its tokens: without one, attention is blind to their order.

    Args:
        code_width: D.
        tokens: of each layer, M first, such as [48, 97, 194, 389]; the last layer's grow to 778.
        widths: of each layer.
        blocks: MetaFormer blocks in a layer.
        mean: (778, 3) metres, added to the output.
    """

    mean: Tensor

    def __init__(self, code_width: int, tokens: list[int], widths: list[int], blocks: int, mean: Tensor) -> None:
        super().__init__()
        inputs, layers = code_width, []
        for number, more, width in zip(tokens, [*tokens[1:], N_VERTICES], widths, strict=True):
            layers.append(_Layer(inputs, width, number, more, blocks))
            inputs = width
        self.layers = nn.Sequential(*layers)
        self.out = nn.Sequential(nn.LayerNorm(inputs), nn.Linear(inputs, 3))
        self.register_buffer("mean", mean.detach().clone(), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, M, D) to (B, 778, 3) metres, wrist near the origin."""
        return self.mean + UNIT * at_least_float32(self.out(self.layers(tokens)))


def mesh_decoder_params(code_width: int, tokens: list[int], widths: list[int], blocks: int) -> int:
    """The number of parameters of such a `MeshDecoder`; no weights are allocated."""
    with torch.device("meta"):
        decoder = MeshDecoder(code_width, tokens, widths, blocks, torch.empty(N_VERTICES, 3))
    return sum(parameter.numel() for parameter in decoder.parameters())


class _Layer(nn.Module):
    def __init__(self, inputs: int, width: int, number: int, more: int, blocks: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(inputs, width)
        # (1, number, width) the position embedding; tokenizers' and students' files store it as `place`
        self.place = nn.Parameter(0.02 * torch.randn(1, number, width))
        self.blocks = nn.Sequential(*(MetaFormerBlock(width) for _ in range(blocks)))
        self.grow = nn.Linear(number, more)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.blocks(self.reduce(tokens) + self.place)
        return self.grow(tokens.transpose(1, 2)).transpose(1, 2)
