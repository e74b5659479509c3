"""The token decoder as it is deployed: the same hands with fewer products, see `fasthamer.runtime.fold`.

Beside norms and constants, maps along different axes are swapped where that is cheaper: the codes are multiplied with
the mesh decoder's first layer once (K x 256 instead of K x 512, then 512 x 256); a layer's tokens grow after the next
layer has reduced their channels; and a fine map's last 1x1 convolution is computed only at the four cells around each
joint.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fasthamer.hand.rotation import rot6d_to_matrix
from fasthamer.nn.precision import at_least_float32
from fasthamer.runtime.fold import absorb_affine, absorb_batch_norm, linear, normalise_without_affine
from fasthamer.students.tokenhand.encoder import UNIT
from fasthamer.students.tokenhand.mesh_decoder import MeshDecoder
from fasthamer.students.tokenhand.placing import Placing
from fasthamer.students.tokenhand.token_classifier import TokenClassifier
from fasthamer.types import N_JOINTS, HandOutput


class FoldedTokens(nn.Module):
    """`TokenClassifier.classify`: (B, C, h, h) to 2D joints, logits and rotation.

    Args:
        exact: in doubles; its modules are reused.
    """

    joint_embedding: Tensor  # (21, WIDTH)
    position_embedding: Tensor  # (2, WIDTH) of a 2D joint
    corners: Tensor  # (4, 2) offsets from the lower cell around a position to all four

    def __init__(self, exact: TokenClassifier) -> None:
        super().__init__()
        self.view, self.is_sampled = exact.view, exact.generator != "global"
        self.narrow, self.summary = _without_batch_norms(exact.narrow), exact.summary
        read: list[Any] = [exact.keypoints, exact.rotation][: 1 if exact.rotation is None else 2]
        self.readout = linear(torch.cat([each.weight for each in read]), torch.cat([each.bias for each in read]))
        self.finer, self.cell = _split(exact.finer)
        self.register_buffer("joint_embedding", (exact.names[0] + exact.place.bias).detach())
        self.register_buffer("position_embedding", exact.place.weight.T.detach().contiguous())
        self.register_buffer("corners", torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]]).to(exact.names))
        across: Any = exact.across
        for each in across:
            each.body = _without_batch_norms(each.body)
        self.across = across
        self.widen, self.spread = exact.widen, _OverTokens(exact.spread.weight, exact.spread.bias[:, None])
        self.mixers = nn.Sequential(*(_FoldedMixer(each) for each in exact.mixers))
        norm, classes = exact.classes
        self.classes = linear(*absorb_affine(norm, classes.weight, classes.bias))  # type: ignore[arg-type]
        self.requires_grad_(False)

    def round_to(self, dtype: torch.dtype) -> None:
        """Computes in `dtype`, but for the read-out of joints and rotation, which needs float32."""
        self.to(dtype)
        self.readout.float()

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        narrow = self.narrow(features)
        summary = self.summary(narrow)
        read = self.readout(at_least_float32(summary))
        keypoints = read[:, : 2 * N_JOINTS].unflatten(1, (N_JOINTS, 2))
        rotation = rot6d_to_matrix(read[:, 2 * N_JOINTS :]) if read.shape[1] > 2 * N_JOINTS else None
        tokens = summary[:, None] + (self.joint_embedding + keypoints.to(summary.dtype) @ self.position_embedding)
        if self.is_sampled:
            tokens = tokens + self._sample(self.finer(narrow), keypoints)
        tokens = self.across(tokens.transpose(1, 2)).transpose(1, 2)
        tokens = self.mixers(self.spread(self.widen(tokens)))
        return keypoints, at_least_float32(self.classes(normalise_without_affine(tokens))), rotation

    def _sample(self, features: Tensor, keypoints: Tensor) -> Tensor:
        """(B, C, h, h) to (B, 21, C): as `F.grid_sample` of `cell(features)`, border included."""
        size = features.shape[-1]
        where = ((keypoints / self.view + 0.5) * size - 0.5).clamp(0, size - 1)  # 0 is the middle of the first cell
        corners = where.floor()[:, :, None] + self.corners  # (B, 21, 4, 2)
        near_x, near_y = (1 - (where[:, :, None] - corners).abs()).to(features.dtype).unbind(-1)
        x, y = corners.long().clamp(0, size - 1).unbind(-1)  # a cell past the border has weight 0
        index = (y * size + x).flatten(1)[:, None].expand(-1, features.shape[1], -1)
        cells = features.flatten(2).gather(2, index).transpose(1, 2)  # (B, 84, C)
        return (self.cell(cells).unflatten(1, (N_JOINTS, 4)) * (near_x * near_y)[..., None]).sum(2)


class FoldedMesh(nn.Module):
    """From 2D joints, logits and rotation to a complete `HandOutput`.

    Args:
        codes: (K, D) in doubles, as all of these.
        mesh: its modules are reused.
        placing: reused.
        hard: take the likeliest code instead of the mixture.
    """

    codes: Tensor  # (K, width of the first layer)
    start: Tensor  # (M, width)
    mean: Tensor  # (778, 3) metres
    out: Tensor  # (width of the last layer, 3)

    def __init__(self, codes: Tensor, mesh: MeshDecoder, placing: Placing, hard: bool) -> None:
        super().__init__()
        layers: list[Any] = list(mesh.layers)
        norm, out = mesh.out
        weight, bias = absorb_affine(norm, UNIT * out.weight, UNIT * out.bias)  # type: ignore[arg-type, operator]
        buffers = {
            "codes": codes @ layers[0].reduce.weight.T,
            "start": layers[0].place[0] + layers[0].reduce.bias,
            "mean": mesh.mean + bias,
            "out": weight.T,
        }
        for name, value in buffers.items():
            self.register_buffer(name, value.detach().contiguous())
        self.hard = hard
        self.layers = nn.Sequential(*map(_FoldedLayer, layers, [*layers[1:], None]))
        self.placing = placing
        self.requires_grad_(False)

    def forward(self, keypoints: Tensor, logits: Tensor, rotation: Tensor | None, features: Tensor) -> HandOutput:
        tokens = F.embedding(logits.argmax(-1), self.codes) if self.hard else logits.softmax(-1) @ self.codes
        upright = self.mean + normalise_without_affine(self.layers(tokens + self.start)) @ self.out
        vertices, joints, camera = self.placing(upright, keypoints, rotation)
        return HandOutput(vertices, joints, keypoints, camera, features, logits=logits)


class _FoldedLayer(nn.Module):
    """A layer of the mesh decoder after its reduction: blocks, the next layer's reduction, growth."""

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
    """`MetaFormerBlock` with the norms' affine parts and attention's scale folded into its linear layers."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.heads = block.heads
        weight, bias = absorb_affine(block.norm1, block.qkv.weight, block.qkv.bias)
        width = weight.shape[1]
        scale = torch.ones_like(bias)
        scale[:width] = (width // self.heads) ** -0.5
        self.qkv, self.out = linear(scale[:, None] * weight, scale * bias), block.out
        widen, gelu, narrow = block.mlp
        self.mlp = nn.Sequential(linear(*absorb_affine(block.norm2, widen.weight, widen.bias)), gelu, narrow)

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = (
            self.qkv(normalise_without_affine(tokens)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, scale=1.0)  # (B, heads, N, d)
        tokens = tokens + self.out(mixed.transpose(1, 2).flatten(2))
        return tokens + self.mlp(normalise_without_affine(tokens))


class _FoldedMixer(nn.Module):
    """`_Mixer` without transposing; the first norm's affine part acts on another axis than the next layer and stays."""

    def __init__(self, mixer: Any) -> None:
        super().__init__()
        self.norm = mixer.norm1
        first, gelu, second = mixer.tokens
        over = (_OverTokens(each.weight, each.bias[:, None]) for each in (first, second))
        self.tokens = nn.Sequential(next(over), gelu, next(over))
        first, gelu, second = mixer.channels
        self.channels = nn.Sequential(linear(*absorb_affine(mixer.norm2, first.weight, first.bias)), gelu, second)

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
    """The part computed over the whole map, and the part computed on each cell alone, (..., C) to (..., C)."""
    parts = list(_without_batch_norms(part for stage in finer.children() for part in stage.children()))
    if not parts:
        return nn.Sequential(), nn.Identity()
    *whole, product, relu = parts
    assert isinstance(product, nn.Conv2d) and product.kernel_size == (1, 1) and product.bias is not None
    return nn.Sequential(*whole), nn.Sequential(linear(product.weight[:, :, 0, 0], product.bias), relu)


def _without_batch_norms(parts: Iterable[nn.Module]) -> nn.Sequential:
    """The modules with each batch norm folded into the convolution before it."""
    kept: list[Any] = []
    with torch.no_grad():
        for part in parts:
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                absorb_batch_norm(kept[-1], part)
            else:
                kept.append(part)
    return nn.Sequential(*kept)
