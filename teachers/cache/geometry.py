"""Where a hand model's answer goes when its crop is cut otherwise: turned, enlarged or shifted, in closed form.

HaMeR's augmentation cuts the same image along another square, so the new crop is a similarity of the old one,
and whatever answer fits the old crop fits the new one after that similarity. A network's own answer on the new crop
differs, since no network turns with its image exactly; how far is measured when a cache is built.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fasthamer.types import HandOutput

SLACK = 1e-3  # of a motion that is none: crops hold their maps in float32


class Motion(NamedTuple):
    """A point u of the old crop (crop units) lies at `scale * turn @ u + shift` in the new one."""

    turn: Tensor  # (B, 2, 2)
    scale: Tensor  # (B,)
    shift: Tensor  # (B, 2) crop units

    @property
    def is_none(self) -> Tensor:
        """(B,) whether both crops are the same."""
        still = (self.turn - torch.eye(2).to(self.turn)).abs().amax((1, 2)) < SLACK
        return still & ((self.scale - 1).abs() < SLACK) & (self.shift.abs().amax(1) < SLACK)


def motion_between(before: Tensor, after: Tensor, size: int) -> Motion:
    """What happened to a crop.

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


def moved(answer: HandOutput, motion: Motion) -> HandOutput:
    """The same hand as the new crop shows it.

    The turn is about the viewing axis. MANO turns the hand about its wrist, which stays where it is, so the camera
    takes up the rest: t' = R (t + wrist) - wrist. The scale goes to the camera's s, as for a weak perspective;
    `keypoints_2d` go with the image, exactly.

    Args:
        answer: of any hand model on the old crop; the features are handed on as they are.
        motion: on the same device.
    """
    turn, scale, shift = (each.to(answer.camera) for each in motion)
    rotation = torch.eye(3).to(turn).repeat(len(turn), 1, 1)
    rotation[:, :2, :2] = turn
    wrist = answer.joints[:, :1]
    linear = scale[:, None, None] * turn
    new_scale = answer.camera[:, 0] * scale
    sideways = answer.camera[:, 1:] + wrist[:, 0, :2]
    sideways = (turn @ sideways[..., None])[..., 0] - wrist[:, 0, :2] + 2 * shift / new_scale[:, None]
    mano = answer.mano
    if mano is not None:
        mano = mano._replace(global_orient=rotation[:, None] @ mano.global_orient)
    return answer._replace(
        vertices=(answer.vertices - wrist) @ rotation.mT + wrist,
        joints=(answer.joints - wrist) @ rotation.mT + wrist,
        keypoints_2d=answer.keypoints_2d @ linear.mT + shift[:, None],
        camera=torch.cat((new_scale[:, None], sideways), dim=1),
        mano=mano,
    )
