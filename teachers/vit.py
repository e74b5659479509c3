"""HaMeR's backbone: ViTPose's ViT-H, as a timm network."""

from __future__ import annotations

from functools import partial

import timm.models.vision_transformer as vit
from torch import Tensor, nn

HEIGHT, WIDTH = 256, 192  # pixels
PATCH = 16  # pixels; the map is HEIGHT / PATCH high and WIDTH / PATCH wide


class PoseViT(nn.Module):
    """Images (B, 3, 256, 192), ImageNet-normalised, to features (B, width, 16, 12).

    ViTPose differs from timm's ViT in three things: its patch convolution has padding 2, its class token's position
    is added to every patch's (the loader folds that in: `fasthamer.teachers.hamer_checkpoint`), and its last norm
    has another name. Drop-path, 0.55 while HaMeR trained, is left out: a teacher does not train.
    """

    def __init__(self, width: int = 1280, depth: int = 32, heads: int = 16) -> None:
        super().__init__()
        self.channels = width
        self.network = vit.VisionTransformer(
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
        self.network.patch_embed.proj = nn.Conv2d(3, width, PATCH, PATCH, padding=2)

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.network.forward_features(image)  # (B, 192, width)
        return tokens.transpose(1, 2).unflatten(2, (HEIGHT // PATCH, WIDTH // PATCH))
