"""Folding for inference: single-query attention, batch norms and the affine parts of layer norms become constants.

Everything is folded in doubles and rounded once, so outputs differ by float32's own rounding only.
"""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d
from timm.utils import reparameterize_model
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from fasthamer.hand.mano import Hand
from fasthamer.hand.rotation import rot6d_to_matrix
from fasthamer.hand.skinning import SkinnedHand
from fasthamer.nn.mano_head import N_ROTATIONS, FlatHead, ManoHead, ManoReadout
from fasthamer.runtime.contract import OUTPUTS
from fasthamer.types import N_BETAS, ManoParams

_HOOKED = (nn.Conv2d, nn.BatchNorm2d)


class Folded(NamedTuple):
    """A decoder for inference alone: `mesh(*head(last), features) -> HandOutput`.

    `head` takes the backbone's last map (B, C, h, w) and has `round_to(dtype)`, after which it takes and computes most
    in that precision and still gives float32; `mesh` computes in float32.
    """

    head: nn.Module
    mesh: nn.Module
    outputs: tuple[str, ...]  # those of `fasthamer.runtime.contract.OUTPUTS` that it gives


@runtime_checkable
class Foldable(Protocol):
    """A decoder that defines its own folding."""

    def fold(self) -> Folded: ...


def fold_decoder(decoder: nn.Module, hand: Hand) -> Folded:
    """The inference graph of a decoder.

    Args:
        decoder: not changed.
        hand: the hand model of its MANO parameters.

    Raises:
        ValueError: a decoder for which no folding is implemented.
    """
    if isinstance(decoder, Foldable):
        return decoder.fold()
    return Folded(FoldedHead(decoder), SkinnedHand(hand), OUTPUTS)


class FoldedHead(nn.Module):
    """`ManoReadout.regress` with its constant products folded: (B, C, h, w) to MANO parameters and camera.

    Args:
        head: in eval mode; not changed.

    Raises:
        ValueError: a decoder for which no folding is implemented.
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        if not isinstance(head, ManoHead | FlatHead):
            raise ValueError(
                f"no inference graph is known for a {type(head).__name__}: only the decoders mano, flat and token "
                "have one"
            )
        exact = copy.deepcopy(head).double()
        self.summary = FoldedQuery(exact) if isinstance(exact, ManoHead) else _folded_flat(exact)
        self.readout = _one_readout(exact)
        self.float().requires_grad_(False)

    def round_to(self, dtype: torch.dtype) -> None:
        """Takes features in another precision and computes the summary in it; the read-out stays in float32."""
        self.summary.to(dtype)

    def forward(self, features: Tensor) -> tuple[ManoParams, Tensor]:
        query = self.summary(features).float()  # rotations and camera need float32
        pose, betas, camera = self.readout(query).split((6 * N_ROTATIONS, N_BETAS, 3), dim=1)
        rotations = rot6d_to_matrix(pose.unflatten(1, (N_ROTATIONS, 6)))
        return ManoParams(rotations[:, :1], rotations[:, 1:], betas), camera


class FoldedQuery(nn.Module):
    """HaMeR's transformer for its single query: (B, C, h, w) to (B, width).

    With one query token, self-attention has the weight 1 and is the linear map W_o W_v. Cross-attention does not need
    the keys and values of the N image tokens: head h scores token j by
    (W_k,h ctx_j) . q_h = ctx_j . (W_k,h^T q_h), and the sum of the values is W_v,h (sum_j a_hj ctx_j). The products
    with N tokens shrink from N * C * 2 * heads * d to N * C * 2 * heads, d being a head's width. All that precedes the
    first cross-attention is constant.

    Args:
        head: in doubles.
    """

    first_query: Tensor  # (1, width) after the first self-attention
    first_scorer: Tensor  # (heads, C) its product with a token is the token's score
    position_embedding: Tensor | None  # (1, C, h, w)

    def __init__(self, head: ManoHead) -> None:
        super().__init__()
        transformer = head.transformer
        layers: Any = transformer.transformer["layers"]
        self.blocks = nn.ModuleList(_FoldedBlock(*block) for block in layers)
        with torch.no_grad():
            query = transformer.to_token_embedding.bias[None] + transformer.pos_embedding[0]  # (1, width)
            first: Any = self.blocks[0]
            query = query + first.self_attention(normalise_without_affine(query))
            scorer = first.scorer(query)[0]
        embedding = head.position_embedding
        self.register_buffer("first_query", query)
        self.register_buffer("first_scorer", scorer)
        self.register_buffer("position_embedding", None if embedding is None else embedding.detach())
        del first.self_attention, first.to_query, first.keys  # they are in the constants now

    def forward(self, features: Tensor) -> Tensor:
        context = features if self.position_embedding is None else features + self.position_embedding
        context = context.flatten(2)  # (B, C, N)
        query = self.first_query
        block: Any
        for number, block in enumerate(self.blocks):
            if number:
                query = query + block.self_attention(normalise_without_affine(query))
            scorer = block.scorer(query) if number else self.first_scorer.expand(context.shape[0], -1, -1)
            query = query + block.attend(scorer, context)
            query = query + block.mlp(normalise_without_affine(query))
        return query


class _FoldedBlock(nn.Module):
    """One block, from the parts `_PreNorm` of self-attention, cross-attention and MLP, in doubles."""

    keys: Tensor  # (heads, d, C)
    values: Tensor  # (heads, C, d)

    def __init__(self, attention: Any, cross: Any, mlp: Any) -> None:
        super().__init__()
        inner = attention.fn.to_qkv.weight.shape[0] // 3
        value, out = attention.fn.to_qkv.weight[2 * inner :], attention.fn.to_out[0]
        self.self_attention = linear(*absorb_affine(attention.norm, out.weight @ value, out.bias))
        self.heads = cross.fn.heads
        scale = (inner // self.heads) ** -0.5
        self.to_query = linear(*absorb_affine(cross.norm, scale * cross.fn.to_q.weight, None))
        key, value = cross.fn.to_kv.weight.detach().chunk(2)  # each (heads * d, C)
        self.register_buffer("keys", key.unflatten(0, (self.heads, -1)).contiguous())
        self.register_buffer("values", value.unflatten(0, (self.heads, -1)).transpose(1, 2).contiguous())
        self.out = linear(cross.fn.to_out[0].weight, cross.fn.to_out[0].bias)
        widen, narrow = mlp.fn.net[0], mlp.fn.net[2]
        widen = linear(*absorb_affine(mlp.norm, widen.weight, widen.bias))
        self.mlp = nn.Sequential(widen, nn.GELU(), linear(narrow.weight, narrow.bias))

    def scorer(self, query: Tensor) -> Tensor:
        """(B, width) to (B, heads, C): its product with a token is the token's attention score."""
        by_head = self.to_query(normalise_without_affine(query)).unflatten(1, (self.heads, -1))  # (B, heads, d)
        return torch.bmm(by_head.transpose(0, 1), self.keys).transpose(0, 1)

    def attend(self, scorer: Tensor, context: Tensor) -> Tensor:
        """Scorer (B, heads, C) and context (B, C, N) to (B, width)."""
        weights = torch.bmm(scorer, context).softmax(-1)  # (B, heads, N)
        pooled = torch.bmm(weights, context.transpose(1, 2))  # (B, heads, C)
        values = torch.bmm(pooled.transpose(0, 1), self.values)  # (heads, B, d)
        return self.out(values.transpose(0, 1).flatten(1))


def fold_backbone(network: nn.Module, image: Tensor) -> nn.Module:
    """A copy of a timm network with its branches re-parameterised and its batch norms inside its convolutions.

    A batch norm is folded where nothing else uses its convolution's result. That is observed in one forward pass: the
    order of modules does not matter and no graph is traced.

    Args:
        network: in eval mode; not changed.
        image: (1, 3, S, S), any content.
    """
    exact = _reparameterised(copy.deepcopy(network).eval().double())
    with torch.no_grad():
        for convolution, norm in _foldable_pairs(exact, image.double()):
            absorb_batch_norm(convolution, norm)
            name = next(name for name, module in exact.named_modules() if module is norm)
            kept = norm.act if isinstance(norm, BatchNormAct2d) else nn.Identity()  # timm's has an activation
            exact.set_submodule(name, kept)  # type: ignore[arg-type]
    return exact.float().requires_grad_(False)


def _foldable_pairs(network: nn.Module, image: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Each convolution with the batch norm that is the only user of its result."""
    made: dict[int, nn.Conv2d] = {}
    taken: list[tuple[int, nn.BatchNorm2d]] = []
    calls: Counter[nn.Module] = Counter()

    def record(module: nn.Module, inputs: Any, output: Tensor) -> None:
        calls[module] += 1
        if isinstance(module, nn.Conv2d):
            made[id(output)] = module
        elif isinstance(module, nn.BatchNorm2d):
            taken.append((id(inputs[0]), module))

    handles = [part.register_forward_hook(record) for part in network.modules() if isinstance(part, _HOOKED)]
    try:
        with _Uses() as uses:
            network(image)
    finally:
        for handle in handles:
            handle.remove()
    return [
        (made[key], norm)
        for key, norm in taken
        if key in made and uses.count[key] == 1 and calls[made[key]] == calls[norm] == 1
    ]


class _Uses(TorchFunctionMode):
    """Counts the operations that use each tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[int] = Counter()
        self.kept: list[Tensor] = []  # keeps tensors alive, so that ids stay unique

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)):  # not a query of its shape
            given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            self.count.update(map(id, given))
            self.kept += given
        return result


def absorb_batch_norm(convolution: nn.Conv1d | nn.Conv2d, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
    """Folds the batch norm after a convolution into its weight and bias, in place."""
    assert norm.running_mean is not None and norm.running_var is not None
    factor = (norm.running_var + norm.eps).rsqrt()
    shift = -norm.running_mean * factor
    if norm.affine:
        factor, shift = factor * norm.weight, shift * norm.weight + norm.bias
    bias = shift if convolution.bias is None else convolution.bias * factor + shift
    convolution.weight = nn.Parameter(
        convolution.weight * factor.unflatten(0, (-1, *[1] * (convolution.weight.ndim - 1)))
    )
    convolution.bias = nn.Parameter(bias)


def normalise_without_affine(tokens: Tensor) -> Tensor:
    """Layer norm over the last dimension (..., C) without its affine part, epsilon 1e-5."""
    return F.layer_norm(tokens, tokens.shape[-1:])


def absorb_affine(norm: nn.LayerNorm, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Weight and bias of a linear map (N, C) that includes the affine part of the layer norm before it."""
    assert norm.eps == 1e-5, "`normalise_without_affine` takes layer norm's default epsilon"
    shift = weight @ norm.bias
    return weight * norm.weight, shift if bias is None else shift + bias


class _Product(nn.Linear):
    """`nn.Linear`; on a CPU in eager torch, several rows are computed with the weights on the left, which is faster.

    Measured on one core with 1024 x 1024 weights that were not in the cache: 8 rows 0.47 ms against 0.67, 32 rows 0.62
    against 0.78; fewer rows gain nothing.
    """

    def forward(self, rows: Tensor) -> Tensor:
        eager = rows.device.type == "cpu" and rows.dtype == torch.float32 and not torch.compiler.is_compiling()
        if eager and rows.ndim == 2 and len(rows) >= 8:
            return torch.addmm(self.bias[:, None], self.weight, rows.T).T
        return super().forward(rows)


def linear(weight: Tensor, bias: Tensor) -> _Product:
    """A linear layer (N, C) of these tensors, which are not copied."""
    layer = _Product(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
    return layer


def _one_readout(head: ManoReadout) -> nn.Linear:
    """Pose, shape and camera in one linear layer, with the initial values they are added to in its bias."""
    parts = ((head.decpose, head.init_hand_pose), (head.decshape, head.init_betas), (head.deccam, head.init_cam))
    weight = torch.cat([layer.weight for layer, _ in parts])
    return linear(weight, torch.cat([layer.bias + start[0] for layer, start in parts]))


def _folded_flat(head: FlatHead) -> nn.Sequential:
    norm, widen, *others = head.layers
    first = linear(*absorb_affine(norm, widen.weight, widen.bias))  # type: ignore[arg-type]
    others = [linear(each.weight, each.bias) if isinstance(each, nn.Linear) else each for each in others]
    return nn.Sequential(head.reduce, nn.Flatten(), _NormaliseWithoutAffine(), first, *others)


class _NormaliseWithoutAffine(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        return normalise_without_affine(tokens)


def _reparameterised(network: nn.Module) -> nn.Module:
    """timm's merging of parallel branches, in the network's precision instead of the default one."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(next(network.parameters()).dtype)
    try:
        return reparameterize_model(network, inplace=True)
    finally:
        torch.set_default_dtype(before)
