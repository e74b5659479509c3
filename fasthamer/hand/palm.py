"""The palm as a frame of reference: position and orientation of a hand from its mesh alone."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from fasthamer.hand.mano import Hand
from fasthamer.hand.rotation import nearest_rotation


class PalmAligned(NamedTuple):
    """A mesh without its rotation and translation: `vertices @ rotation^T + wrist` is the input mesh."""

    vertices: Tensor  # (B, 778, 3) metres, wrist at the origin, palm oriented as the template's
    rotation: Tensor  # (B, 3, 3)
    wrist: Tensor  # (B, 3) metres


class PalmFrame(nn.Module):
    """The rotation from the template's palm to a mesh's (Kabsch 1976), weighted by the skin weights of the wrist.

    It needs no MANO parameters, so it works for teachers' meshes and for labels. The wrist joint is regressed from the
    mesh; the skin around it hardly deforms (0.02 mm on posed hands). Its buffers are not in the state dict.
    """

    template: Tensor  # (778, 3) metres, weighted mean at the origin
    weights: Tensor  # (778, 1) sum to 1
    wrist: Tensor  # (1, 778)

    def __init__(self, hand: Hand) -> None:
        super().__init__()
        layer = hand.layer
        weights = layer.lbs_weights.detach()[:, :1].double()
        weights = weights / weights.sum()
        template = layer.v_template.detach().double()
        template = template - (weights * template).sum(0)
        self.register_buffer("template", template.float(), persistent=False)
        self.register_buffer("weights", weights.float(), persistent=False)
        self.register_buffer("wrist", hand.J_regressor.detach()[:1].clone(), persistent=False)

    def forward(self, vertices: Tensor) -> PalmAligned:
        """Aligns meshes.

        Args:
            vertices: (B, 778, 3) metres, any origin and orientation.
        """
        vertices = vertices.float()
        centred = vertices - (self.weights * vertices).sum(1, keepdim=True)
        covariance = (self.weights * centred).transpose(1, 2) @ self.template  # (B, 3, 3)
        rotation = nearest_rotation(covariance)
        wrist = self.wrist @ vertices  # (B, 1, 3)
        return PalmAligned((vertices - wrist) @ rotation, rotation, wrist[:, 0])
