"""Any hand model as a teacher: always in eval mode, without gradients, in a precision of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fasthamer.data.crop import shape_for
from fasthamer.hand.mano import Hand
from fasthamer.registry import unknown
from fasthamer.teachers.ensemble import Ensemble
from fasthamer.types import HandOutput, View

PRECISIONS = ("auto", "fp32", "bf16")


class Teacher(nn.Module):
    """`teacher(image) -> HandOutput` in float32 whose tensors may enter a loss as targets.

    Args:
        model: a hand model; it is frozen in place.
        precision: of the matrix products, whatever autocast surrounds the call: fp32, bf16, or
            auto = bf16 on cuda, else fp32. Meshes are skinned in fp32 always. With bf16 the backbone's matrices are
            converted at the first call: autocast would convert them at every call, to the same numbers.
    """

    def __init__(self, model: nn.Module, precision: str = "auto") -> None:
        super().__init__()
        if precision not in PRECISIONS:
            raise KeyError(unknown("teacher precision", precision, PRECISIONS))
        self.model = model.eval().requires_grad_(False)
        self.precision, self.halved = precision, False
        self.training = False
        self.image_size: int = model.image_size  # type: ignore[assignment]
        self.view: View = model.view  # type: ignore[assignment]
        self.feature_channels: int = model.feature_channels  # type: ignore[assignment]
        self.box_shape = shape_for(model)
        self.hand: Hand = model.hand  # type: ignore[assignment]

    def train(self, mode: bool = True) -> Teacher:
        """Stays in eval mode: batch statistics and drop-path would make its outputs noisy."""
        return super().train(False)

    @torch.no_grad()  # not inference_mode: a product with an inference tensor cannot be backpropagated
    def forward(self, image: Tensor) -> HandOutput:
        half = self.convert(image.device)
        with torch.autocast(image.device.type, dtype=torch.bfloat16, enabled=half):
            output: HandOutput = self.model(image)
        return output._replace(features=output.features.float())

    def convert(self, device: torch.device) -> bool:
        """Whether it computes in bf16 on a device; if so its matrices are converted now, unless they have been."""
        half = self.precision == "bf16" or (self.precision == "auto" and device.type == "cuda")
        if half and not self.halved:
            for backbone in self.backbones():
                for layer in backbone.modules():
                    if isinstance(layer, nn.Linear | nn.Conv2d):
                        layer.to(torch.bfloat16)
            self.halved = True
        return half

    def backbones(self) -> list[nn.Module]:
        """The backbone of the model, or of each member of an ensemble."""
        members = self.model.members if isinstance(self.model, Ensemble) else [self.model]
        return [member.backbone for member in members]  # type: ignore[misc]
