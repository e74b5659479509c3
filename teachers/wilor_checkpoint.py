"""WiLoR's published checkpoint (`wilor_final.ckpt`, from PyTorch Lightning) into our `WiLoR`, without running it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from fasthamer.files.safe_checkpoint import read_state_dict
from fasthamer.files.weights import check_weights
from fasthamer.hand.mano import Hand
from fasthamer.nn.mano_head import N_ROTATIONS
from fasthamer.teachers.wilor import WiLoR, hollow_wilor
from fasthamer.types import N_BETAS

logger = logging.getLogger(__name__)

PARTS = ("backbone.", "refine_net.")
# Not part of the network: the training's discriminator, MANO's arrays (`load_hand` reads those) and a flag.
BESIDE = ("discriminator.", "mano.", "initialized")
OURS = "backbone.network."  # timm's network inside `TokenViT`
POSITIONS = "backbone.pos_embed"  # (1, 1 + 192, 1280), the unused class token's first
TOKENS = "backbone.parameter_tokens"  # ours: (1, 18, 1280)
EMBEDDINGS = {  # of a mean parameter: how many tokens they make of it and what each is made of
    "pose": ("init_hand_pose", N_ROTATIONS, 6),
    "shape": ("init_betas", 1, N_BETAS),
    "cam": ("init_cam", 1, 3),
}
IN_DECODER = ("decpose.", "decshape.", "deccam.", "init_")  # under `backbone.` in the file, under `decoder.` in ours


def load_wilor(path: str | Path, hand: Hand, hollow: WiLoR | None = None) -> WiLoR:
    """WiLoR with the weights of a checkpoint, in eval mode; the file stays mapped, large tensors are not copied.

    Args:
        path: wilor_final.ckpt, or any `torch.save` of WiLoR's state dict.
        hand: the hand model, usually `load_hand(path)`.
        hollow: the architecture that the file must hold, its weights are replaced; None is the published one.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, refers to code, or not WiLoR's tensors: missing, unexpected or of another shape.
    """
    state = read_state_dict(path)
    weights = {name: value for name, value in state.items() if name.startswith(PARTS)}
    if any(name.startswith("mano_head.") for name in state):
        raise ValueError(f"{path} is not WiLoR's checkpoint but HaMeR's (it has mano_head.*): ask for hamer, not wilor")
    model = hollow_wilor(hand) if hollow is None else hollow
    check_weights(weights, published_shapes(model), f"{path} is not WiLoR's checkpoint")
    unused = [name for name in state if not name.startswith(PARTS + BESIDE)]
    if unused:
        logger.warning("%s: not part of WiLoR and not used: %s", path, ", ".join(unused))
    model.load_state_dict(to_ours(weights), assign=True)
    return model.eval()


def published_shapes(model: WiLoR) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published state dict, derived from ours."""
    expected = {_published_name(name): tuple(value.shape) for name, value in model.state_dict().items()}
    *_, width = expected.pop(TOKENS)
    batch, patches, _ = expected[POSITIONS]
    expected[POSITIONS] = (batch, patches + 1, width)
    for name, (_, _, length) in EMBEDDINGS.items():
        expected[f"backbone.{name}_emb.weight"] = (width, length)
        expected[f"backbone.{name}_emb.bias"] = (width,)
    return expected


def to_ours(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published names and tensors to those of `WiLoR`, floats in float32.

    Two parts of the published network do not depend on the image and are computed here: the embeddings of the mean
    parameters become `parameter_tokens`, and the class token's position is added to every patch's.
    """
    left = {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}
    tokens = []
    for name, (mean, number, length) in EMBEDDINGS.items():
        layer = left.pop(f"backbone.{name}_emb.weight"), left.pop(f"backbone.{name}_emb.bias")
        tokens.append(F.linear(left[f"backbone.{mean}"].reshape(1, number, length), *layer))
    left[POSITIONS] = left[POSITIONS][:, 1:] + left[POSITIONS][:, :1]
    renamed = {_our_name(name): value for name, value in left.items()}
    renamed[TOKENS] = torch.cat(tokens, dim=1)
    return renamed


def _our_name(name: str) -> str:
    part, _, rest = name.partition(".")
    if part == "refine_net":
        return f"decoder.{name}"
    if rest.startswith(IN_DECODER):
        return f"decoder.{rest}"
    return OURS + rest.replace("last_norm.", "norm.", 1)


def _published_name(name: str) -> str:
    if name.startswith("decoder.refine_net."):
        return name.removeprefix("decoder.")
    if name.startswith("decoder."):
        return name.replace("decoder.", "backbone.", 1)
    if name.startswith(OURS + "norm."):
        return name.replace(OURS + "norm.", "backbone.last_norm.", 1)
    return name.replace(OURS, "backbone.", 1)
