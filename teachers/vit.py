"""ViTPose's ViT-H as a timm network: HaMeR's backbone, and with parameter tokens WiLoR's."""

from __future__ import annotations

from functools import partial

import timm.models.vision_transformer as vit
import torch
from torch import Tensor, nn

from fasthamer.types import View

HEIGHT, WIDTH = 256, 192  # pixels
PATCH = 16  # pixels; the map is HEIGHT / PATCH high and WIDTH / PATCH wide
MARGIN = (HEIGHT - WIDTH) // 2  # pixels at the left and right of a square crop that the ViT does not see
VIEW = View(left=MARGIN / HEIGHT - 0.5, right=0.5 - MARGIN / HEIGHT)


class PoseViT(nn.Module):
    """Images (B, 3, 256, 192), ImageNet-normalised, to features (B, width, 16, 12).

    ViTPose differs from timm's ViT in three things: its patch convolution has padding 2, its class token's position
    is added to every patch's (the loaders of the checkpoints fold that in), and its last norm has another name.
    Drop-path, 0.55 while HaMeR trained, is left out: a teacher does not train.
    """

    def __init__(self, width: int = 1280, depth: int = 32, heads: int = 16) -> None:
        super().__init__()
        self.channels = width
        self.network = _network(width, depth, heads)

    def forward(self, image: Tensor) -> Tensor:
        return patch_map(self.network.forward_features(image))


class TokenViT(nn.Module):
    """Images (B, 3, 256, 192), ImageNet-normalised, to normalised tokens (B, parameters + 192, width).

    The parameter tokens come first, then the patches row by row. As they enter the first block, the parameter tokens
    are the same for every image.

    Args:
        parameters: number of parameter tokens; WiLoR's 16 rotations, shape and camera.
    """

    def __init__(self, width: int = 1280, depth: int = 32, heads: int = 16, parameters: int = 18) -> None:
        super().__init__()
        self.channels = width
        self.parameter_tokens = nn.Parameter(torch.zeros(1, parameters, width))
        self.network = _network(width, depth, heads)

    def forward(self, image: Tensor) -> Tensor:
        patches = self.network.patch_embed(image) + self.network.pos_embed  # (B, 192, width)
        tokens = torch.cat((self.parameter_tokens.expand(image.shape[0], -1, -1), patches), dim=1)
        return self.network.norm(self.network.blocks(tokens))


def patch_map(tokens: Tensor) -> Tensor:
    """Patch tokens (B, 192, width) to a map (B, width, 16, 12)."""
    return tokens.transpose(1, 2).unflatten(2, (HEIGHT // PATCH, WIDTH // PATCH))


def fill_at_random(backbone: nn.Module, seed: int = 0) -> None:
    """Matrices and positions normal with deviation 0.02, norms and biases as if untrained."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.02, generator=generator)
            else:
                parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)


def _network(width: int, depth: int, heads: int) -> vit.VisionTransformer:
    network = vit.VisionTransformer(
        img_size=(HEIGHT, WIDTH),
        patch_size=PATCH,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        class_token=False,
        global_pool="",
        num_classes=0,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    network.patch_embed.proj = nn.Conv2d(3, width, PATCH, PATCH, padding=2)
    return network
