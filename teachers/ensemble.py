"""Several hand models as one, whose answer is the mean of theirs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fasthamer.data.crop import shape_for
from fasthamer.hand.mano import Hand
from fasthamer.hand.rotation import nearest_rotation
from fasthamer.students.tokenhand.token_decoder import TokenDecoder
from fasthamer.types import HandOutput, ManoParams, View

JOINED = "+"  # between the names of an ensemble's members


class Ensemble(nn.Module):
    """A hand model that averages the parameters of others; its mesh is posed by the means, so it is a hand.

    Rotations are averaged as matrices and moved to the nearest rotation (the chordal mean: Hartley et al. 2013,
    "Rotation Averaging", section 5.3). Features are the first member's.

    Args:
        members: at least two hand models with MANO parameters, of one hand model and one shape of crops.

    Raises:
        ValueError: the members differ in those.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        first: nn.Module = members[0]
        self.hand: Hand = first.hand  # type: ignore[assignment]
        self.image_size: int = first.image_size  # type: ignore[assignment]
        self.view: View = first.view  # type: ignore[assignment]
        self.feature_channels: int = first.feature_channels  # type: ignore[assignment]
        self.box_shape = shape_for(first)
        for member in members:
            if isinstance(getattr(member, "decoder", None), TokenDecoder):
                raise ValueError(
                    "an ensemble's mesh is posed by the means of MANO parameters, which a member with the decoder "
                    "token does not predict"
                )
            hand: Hand = member.hand  # type: ignore[assignment]
            if hand.fingerprint != self.hand.fingerprint:
                raise ValueError(
                    f"an ensemble's members predict parameters of one hand model, not of {self.hand.name} "
                    f"({self.hand.fingerprint}) and {hand.name} ({hand.fingerprint})"
                )
            if shape_for(member) != self.box_shape:
                raise ValueError(
                    f"an ensemble's members see the same crops, not {self.box_shape} and {shape_for(member)} ones"
                )

    def forward(self, image: Tensor) -> HandOutput:
        """(B, 3, S, S) RGB, values 0..255 of any dtype."""
        outputs: list[HandOutput] = [member(image) for member in self.members]
        parameters = [output.mano for output in outputs if output.mano is not None]  # all: see __init__
        orient, pose, betas = (torch.stack(each).mean(0) for each in zip(*parameters, strict=True))
        mano = ManoParams(nearest_rotation(orient), nearest_rotation(pose), betas)
        vertices, joints = self.hand(mano)
        keypoints, camera = (
            torch.stack([getattr(output, name) for output in outputs]).mean(0) for name in ("keypoints_2d", "camera")
        )
        return HandOutput(vertices, joints, keypoints, camera, outputs[0].features, mano)
