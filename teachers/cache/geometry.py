"""Moves a hand model's output with its crop, when that is rotated, scaled or shifted, in closed form.

HaMeR's augmentation crops the same image along another square, so the new crop is a similarity of the old one, and an
output that fits the old crop fits the new one after that similarity. The network's own output on the new crop differs,
since no network is exactly equivariant; the difference is measured when a cache is built.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fasthamer.types import HandOutput

SLACK = 1e-3  # tolerance of an identity motion: crops store their affine maps in float32


class Motion(NamedTuple):
    """A point u of the old crop (crop units) lies at `scale * turn @ u + shift` in the new one."""

    turn: Tensor  # (B, 2, 2)
    scale: Tensor  # (B,)
    shift: Tensor  # (B, 2) crop units

    @property
    def is_none(self) -> Tensor:
        """(B,) whether both crops are the same, bool."""
        still = (self.turn - torch.eye(2).to(self.turn)).abs().amax((1, 2)) < SLACK
        return still & ((self.scale - 1).abs() < SLACK) & (self.shift.abs().amax(1) < SLACK)


def crop_motion(before: Tensor, after: Tensor, size: int) -> Motion:
    """The similarity from one crop of an image to another.

    Args:
        before: (B, 2, 3) from pixels of the image to pixels of the old crop, see `fasthamer.types.Batch.crop`.
        after: (B, 2, 3) to those of the new one. Mirroring is in both and cancels.
        size: pixels, the side of both crops.

    Returns:
        float64, on the CPU if its arguments are.
    """
    before, after = before.double(), after.double()
    linear = after[..., :2] @ torch.linalg.inv(before[..., :2])
    # Between pixels p: p' = linear p + offset; in crop units, pixel / size - 0.5, the middle stays the middle.
    offset = after[..., 2] - (linear @ before[..., 2:])[..., 0]
    middle = torch.full((2,), 0.5, dtype=torch.float64, device=before.device)
    shift = offset / size + linear @ middle - middle
    scale = torch.linalg.det(linear).sqrt()
    return Motion(linear / scale[:, None, None], scale, shift)


def move_output(output: HandOutput, motion: Motion) -> HandOutput:
    """The same hand in the new crop.

    The rotation is about the viewing axis. MANO rotates the hand about its wrist, which stays in place, so the camera
    takes the rest: t' = R (t + wrist) - wrist. The scale goes to the camera's s, as in a weak perspective;
    `keypoints_2d` move with the image exactly.

    Args:
        output: of any hand model on the old crop; its features are not changed.
        motion: on the same device.
    """
    turn, scale, shift = (each.to(output.camera) for each in motion)
    rotation = torch.eye(3).to(turn).repeat(len(turn), 1, 1)
    rotation[:, :2, :2] = turn
    wrist = output.joints[:, :1]
    linear = scale[:, None, None] * turn
    new_scale = output.camera[:, 0] * scale
    sideways = output.camera[:, 1:] + wrist[:, 0, :2]
    sideways = (turn @ sideways[..., None])[..., 0] - wrist[:, 0, :2] + 2 * shift / new_scale[:, None]
    mano = output.mano
    if mano is not None:
        mano = mano._replace(global_orient=rotation[:, None] @ mano.global_orient)
    return output._replace(
        vertices=(output.vertices - wrist) @ rotation.mT + wrist,
        joints=(output.joints - wrist) @ rotation.mT + wrist,
        keypoints_2d=output.keypoints_2d @ linear.mT + shift[:, None],
        camera=torch.cat((new_scale[:, None], sideways), dim=1),
        mano=mano,
    )
