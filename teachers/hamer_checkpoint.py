"""HaMeR's published checkpoint (`hamer.ckpt`, PyTorch Lightning) into our `HaMeR`, strictly and without running it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fasthamer.files.safe_checkpoint import read_state_dict
from fasthamer.files.weights import check_weights
from fasthamer.hand.mano import Hand
from fasthamer.teachers.hamer import HaMeR, hollow_hamer

# The rest of the file's state dict is the discriminator, MANO's arrays (`load_hand` reads those) and a flag.
PARTS = ("backbone.", "mano_head.")
OURS = "backbone.network."  # timm's network inside `PoseViT`
POSITIONS = "backbone.pos_embed"  # (1, 1 + 192, 1280), the class token's first


def load_hamer(path: str | Path, hand: Hand) -> HaMeR:
    """HaMeR with the weights of a checkpoint, in eval mode; the file stays mapped, large tensors are not copied.

    Args:
        path: hamer.ckpt, or any `torch.save` of HaMeR's state dict.
        hand: the hand model, usually `load_hand(path)`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, refers to code, or not HaMeR's tensors: missing, unexpected or of another shape.
    """
    state = read_state_dict(path)
    weights = {name: value for name, value in state.items() if name.startswith(PARTS)}
    if any(name.startswith("refine_net.") for name in state):
        raise ValueError(
            f"{path} is not HaMeR's checkpoint but WiLoR's (it has refine_net.*): ask for wilor, not hamer"
        )
    model = hollow_hamer(hand)
    check_weights(weights, published_shapes(model), f"{path} is not HaMeR's checkpoint")
    model.load_state_dict(to_ours(weights), assign=True)
    return model.eval()


def published_shapes(model: HaMeR) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published state dict, derived from ours."""
    expected = {_published_name(name): tuple(value.shape) for name, value in model.state_dict().items()}
    batch, patches, width = expected[POSITIONS]
    expected[POSITIONS] = (batch, patches + 1, width)
    return expected


def to_ours(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published names and tensors to those of `HaMeR`, in float32."""
    renamed = {}
    for name, value in weights.items():
        if name == POSITIONS:
            value = value[:, 1:] + value[:, :1]  # ViTPose has no class token but adds its position to every patch
        renamed[_our_name(name)] = value.float()
    return renamed


def _our_name(name: str) -> str:
    name = name.replace("backbone.last_norm.", "backbone.norm.")
    return name.replace("backbone.", OURS, 1)


def _published_name(name: str) -> str:
    name = name.replace(OURS, "backbone.", 1)
    return name.replace("backbone.norm.", "backbone.last_norm.")
