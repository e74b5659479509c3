"""From crops as datasets yield them to what a backbone was trained on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Normalise(nn.Module):
    """(B, 3, S, S) RGB 0..255 of any dtype and size to (B, 3, size, size), (x / 255 - mean) / std in fp32.

    Shrinking is antialiased, as a photograph taken at the smaller size would be.
    """

    scale: Tensor  # (1, 3, 1, 1)
    shift: Tensor  # (1, 3, 1, 1)

    def __init__(self, size: int, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> None:
        super().__init__()
        self.size = size
        deviation = torch.tensor(std).reshape(1, 3, 1, 1)
        self.register_buffer("scale", 1 / (255 * deviation), persistent=False)
        self.register_buffer("shift", -torch.tensor(mean).reshape(1, 3, 1, 1) / deviation, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        if image.ndim != 4 or image.shape[1] != 3 or image.shape[2] != image.shape[3]:
            raise ValueError(f"images must be square crops (B, 3, S, S), RGB 0..255; got {tuple(image.shape)}")
        image = image.float()
        if image.shape[-1] != self.size:
            image = F.interpolate(
                image, size=(self.size, self.size), mode="bilinear", align_corners=False, antialias=True
            )
        return image * self.scale + self.shift
