"""Resizes and normalises crops for a backbone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Normalise(nn.Module):
    """(B, 3, S, S) RGB 0..255 of any dtype and size to (B, 3, size, size), (x / 255 - mean) / std in fp32.

    Shrinking is antialiased, as an image taken at the smaller size would be.

    Args:
        size: pixels of the backbone's input.
        mean: of the pixels the backbone was trained on, 0..1.
        std: their standard deviation.
        share: the middle part of the crop's side that is used; the rest is cut off.
    """

    scale: Tensor  # (1, 3, 1, 1)
    shift: Tensor  # (1, 3, 1, 1)

    def __init__(
        self,
        size: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        share: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 < share <= 1:
            raise ValueError(f"a model's share of the crop is between 0 and 1, not {share}")
        self.size, self.share = size, share
        deviation = torch.tensor(std).reshape(1, 3, 1, 1)
        self.register_buffer("scale", 1 / (255 * deviation), persistent=False)
        self.register_buffer("shift", -torch.tensor(mean).reshape(1, 3, 1, 1) / deviation, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        if image.ndim != 4 or image.shape[1] != 3 or image.shape[2] != image.shape[3]:
            raise ValueError(f"images must be square crops (B, 3, S, S), RGB 0..255; got {tuple(image.shape)}")
        margin = round(image.shape[-1] * (1 - self.share) / 2)
        if margin:
            image = image[..., margin:-margin, margin:-margin]
        image = image.float()
        if image.shape[-1] != self.size:
            image = F.interpolate(
                image, size=(self.size, self.size), mode="bilinear", align_corners=False, antialias=True
            )
        return image * self.scale + self.shift
