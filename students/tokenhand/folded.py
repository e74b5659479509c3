"""The token decoder as it is deployed: the same hands with fewer products, see `fasthamer.runtime.fold`.

Beside norms and constants, maps that act in different directions change places where that is cheaper: the codes meet
the mesh decoder's first layer beforehand (K x 256 instead of K x 512, then 512 x 256); a layer's tokens grow after the
next layer has narrowed them; and a fine map's last 1x1 convolution is due at the four cells around each joint only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fasthamer.hand.rotation import rot6d_to_matrix
from fasthamer.runtime.fold import absorb, behind_norm, linear, normalise_without_affine
from fasthamer.students.tokenhand.encoder import UNIT
from fasthamer.types import N_JOINTS, HandOutput

if TYPE_CHECKING:
    from fasthamer.students.tokenhand.token_decoder import TokenClassifier, TokenDecoder


class FoldedTokens(nn.Module):
    """`TokenClassifier.classify`: (B, C, h, h) to 2D joints, logits and rotation.

    Args:
        exact: in doubles; it is taken apart.
    """

    names: Tensor  # (21, WIDTH)
    place: Tensor  # (2, WIDTH)
    around: Tensor  # (4, 2) from a place's lower cell to all four

    def __init__(self, exact: TokenClassifier) -> None:
        super().__init__()
        self.view, self.is_sampled = exact.view, exact.generator != "global"
        self.narrow, self.summary = _without_norms(exact.narrow), exact.summary
        read: list[Any] = [exact.keypoints, exact.rotation][: 1 if exact.rotation is None else 2]
        self.readout = linear(torch.cat([each.weight for each in read]), torch.cat([each.bias for each in read]))
        self.finer, self.cell = _split(exact.finer)
        self.register_buffer("names", (exact.names[0] + exact.place.bias).detach())
        self.register_buffer("place", exact.place.weight.T.detach().contiguous())
        self.register_buffer("around", torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]]).to(exact.names))
        across: Any = exact.across
        for each in across:
            each.body = _without_norms(each.body)
        self.across = across
        self.widen, self.spread = exact.widen, _OverTokens(exact.spread.weight, exact.spread.bias[:, None])
        self.mixers = nn.Sequential(*(_FoldedMixer(each) for each in exact.mixers))
        norm, classes = exact.classes
        self.classes = linear(*behind_norm(norm, classes.weight, classes.bias))  # type: ignore[arg-type]
        self.float().requires_grad_(False)

    def round_to(self, dtype: torch.dtype) -> None:
        """All but the read-out of joints and rotation, which need the digits, computes in `dtype`."""
        self.to(dtype)
        self.readout.float()

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        narrow = self.narrow(features)
        summary = self.summary(narrow)
        read = self.readout(summary.float())
        keypoints = read[:, : 2 * N_JOINTS].unflatten(1, (N_JOINTS, 2))
        rotation = rot6d_to_matrix(read[:, 2 * N_JOINTS :]) if read.shape[1] > 2 * N_JOINTS else None
        tokens = summary[:, None] + (self.names + keypoints.to(summary.dtype) @ self.place)
        if self.is_sampled:
            tokens = tokens + self._at(self.finer(narrow), keypoints)
        tokens = self.across(tokens.transpose(1, 2)).transpose(1, 2)
        tokens = self.mixers(self.spread(self.widen(tokens)))
        return keypoints, self.classes(normalise_without_affine(tokens)).float(), rotation

    def _at(self, features: Tensor, keypoints: Tensor) -> Tensor:
        """(B, C, h, h) to (B, 21, C): what `F.grid_sample` reads from `cell(features)`, border and all."""
        size = features.shape[-1]
        where = ((keypoints / self.view + 0.5) * size - 0.5).clamp(0, size - 1)  # 0 is the middle of the first cell
        corners = where.floor()[:, :, None] + self.around  # (B, 21, 4, 2)
        near_x, near_y = (1 - (where[:, :, None] - corners).abs()).to(features.dtype).unbind(-1)
        x, y = corners.long().clamp(0, size - 1).unbind(-1)  # a cell past the border weighs nothing
        index = (y * size + x).flatten(1)[:, None].expand(-1, features.shape[1], -1)
        cells = features.flatten(2).gather(2, index).transpose(1, 2)  # (B, 84, C)
        return (self.cell(cells).unflatten(1, (N_JOINTS, 4)) * (near_x * near_y)[..., None]).sum(2)


class FoldedMesh(nn.Module):
    """From 2D joints, logits and rotation to everything that a model gives.

    Args:
        exact: in doubles; it is taken apart.
    """

    codes: Tensor  # (K, width of the first layer)
    start: Tensor  # (M, width)
    mean: Tensor  # (778, 3) metres
    out: Tensor  # (width of the last layer, 3)

    def __init__(self, exact: TokenDecoder) -> None:
        super().__init__()
        layers: list[Any] = list(exact.mesh.layers)
        norm, out = exact.mesh.out
        weight, bias = behind_norm(norm, UNIT * out.weight, UNIT * out.bias)  # type: ignore[arg-type, operator]
        buffers = {
            "codes": exact.codes @ layers[0].reduce.weight.T,
            "start": layers[0].place[0] + layers[0].reduce.bias,
            "mean": exact.mesh.mean + bias,
            "out": weight.T,
        }
        for name, value in buffers.items():
            self.register_buffer(name, value.detach().contiguous())
        self.hard = exact.hard
        self.layers = nn.Sequential(*map(_FoldedLayer, layers, [*layers[1:], None]))
        self.placing = exact.placing
        self.float().requires_grad_(False)

    def forward(self, keypoints: Tensor, logits: Tensor, rotation: Tensor | None, features: Tensor) -> HandOutput:
        tokens = F.embedding(logits.argmax(-1), self.codes) if self.hard else logits.softmax(-1) @ self.codes
        upright = self.mean + normalise_without_affine(self.layers(tokens + self.start)) @ self.out
        vertices, joints, camera = self.placing(upright, keypoints, rotation)
        return HandOutput(vertices, joints, keypoints, camera, features, logits=logits)


class _FoldedLayer(nn.Module):
    """A layer of the mesh decoder behind its reduction: blocks, the next layer's reduction, growth."""

    def __init__(self, layer: Any, following: Any | None) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*map(_FoldedBlock, layer.blocks))
        grow, shift = layer.grow, layer.grow.bias[:, None]
        self.reduce: nn.Module = nn.Identity()
        if following is not None:
            # G (x R^T) + g (R 1)^T + r is (G x + g) R^T + r: growth acts on tokens, reduction on channels.
            narrow = following.reduce
            reduce = nn.Linear(narrow.in_features, narrow.out_features, bias=False, device="meta")
            reduce.weight = narrow.weight
            self.reduce = reduce
            shift = shift * narrow.weight.sum(1) + narrow.bias + following.place[0]
        self.grow = _OverTokens(grow.weight, shift)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.grow(self.reduce(self.blocks(tokens)))


class _FoldedBlock(nn.Module):
    """`MetaFormerBlock`; the norms' affine parts and attention's scale are in the products."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.heads = block.heads
        weight, bias = behind_norm(block.norm1, block.qkv.weight, block.qkv.bias)
        width = weight.shape[1]
        scale = torch.ones_like(bias)
        scale[:width] = (width // self.heads) ** -0.5
        self.qkv, self.out = linear(scale[:, None] * weight, scale * bias), block.out
        widen, gelu, narrow = block.mlp
        self.mlp = nn.Sequential(linear(*behind_norm(block.norm2, widen.weight, widen.bias)), gelu, narrow)

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = (
            self.qkv(normalise_without_affine(tokens)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, scale=1.0)  # (B, heads, N, d)
        tokens = tokens + self.out(mixed.transpose(1, 2).flatten(2))
        return tokens + self.mlp(normalise_without_affine(tokens))


class _FoldedMixer(nn.Module):
    """`_Mixer` without transposing; the first norm's affine part is across the tokens' products and stays."""

    def __init__(self, mixer: Any) -> None:
        super().__init__()
        self.norm = mixer.norm1
        first, gelu, second = mixer.tokens
        over = (_OverTokens(each.weight, each.bias[:, None]) for each in (first, second))
        self.tokens = nn.Sequential(next(over), gelu, next(over))
        first, gelu, second = mixer.channels
        self.channels = nn.Sequential(linear(*behind_norm(mixer.norm2, first.weight, first.bias)), gelu, second)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.tokens(self.norm(tokens))
        return tokens + self.channels(normalise_without_affine(tokens))


class _OverTokens(nn.Module):
    """A linear map over the tokens: (B, m, C) to (B, n, C).

    Args:
        weight: (n, m).
        shift: (n, C) or (n, 1).
    """

    weight: Tensor
    shift: Tensor

    def __init__(self, weight: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach())
        self.register_buffer("shift", shift.detach())

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.baddbmm(self.shift, self.weight.expand(tokens.shape[0], -1, -1), tokens)


def _split(finer: nn.Module) -> tuple[nn.Sequential, nn.Module]:
    """What is worked out over the whole map, and what is then done to each cell alone, as (..., C) to (..., C)."""
    parts = list(_without_norms(part for stage in finer.children() for part in stage.children()))
    if not parts:
        return nn.Sequential(), nn.Identity()
    *whole, product, relu = parts
    assert isinstance(product, nn.Conv2d) and product.kernel_size == (1, 1) and product.bias is not None
    return nn.Sequential(*whole), nn.Sequential(linear(product.weight[:, :, 0, 0], product.bias), relu)


def _without_norms(parts: Iterable[nn.Module]) -> nn.Sequential:
    """Batch norms folded into the convolutions before them."""
    kept: list[Any] = []
    with torch.no_grad():
        for part in parts:
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                absorb(kept[-1], part)
            else:
                kept.append(part)
    return nn.Sequential(*kept)
