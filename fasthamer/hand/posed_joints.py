"""A regressor of the kinematic chain's joints from a posed mesh."""

from __future__ import annotations

import torch
from torch import Tensor

from fasthamer.hand.conventions import MANO_PARENTS, MANO_TO_OPENPOSE, tip_vertices
from fasthamer.hand.mano import Hand
from fasthamer.hand.rotation import axis_angle_to_matrix
from fasthamer.types import N_BETAS, N_HAND_JOINTS, N_VERTICES, ManoParams

_HANDS, _BEND, _RIDGE = 400, 0.5, 1e-6  # random hands; radians, standard deviation of each angle; relative


@torch.no_grad()
def joints_of_vertices(hand: Hand) -> Tensor:
    """The regressor (21, 778) of joints in OpenPose order, HaMeR's fingertips, from a posed mesh.

    MANO's own regressor is meant for the unposed mesh; on bent fingers it is off by 1 to 3 mm. This one is fitted by
    least squares to random poses of this very hand, each joint from the skin of the two bones that meet there, with
    weights that sum to 1, so that it moves with the mesh.
    """
    generator = torch.Generator().manual_seed(0)
    mean = torch.as_tensor(hand.hands_mean).reshape(1, N_HAND_JOINTS, 3)
    device = hand.layer.v_template.device
    pose = mean + _BEND * torch.randn(_HANDS, N_HAND_JOINTS, 3, generator=generator)
    betas = torch.randn(_HANDS, N_BETAS, generator=generator)
    straight = torch.eye(3).expand(_HANDS, 1, 3, 3)
    params = ManoParams(*(each.to(device) for each in (straight, axis_angle_to_matrix(pose.float()), betas)))
    vertices, joints = (each.double().cpu() for each in hand.pose(params))
    skin = hand.layer.lbs_weights.detach().double().cpu()  # (778, 16)
    rows = torch.zeros(16 + 5, N_VERTICES, dtype=torch.float64)
    for joint, parent in enumerate(MANO_PARENTS):
        near = skin[:, joint] + (skin[:, parent] if parent >= 0 else 0)
        chosen = torch.nonzero(near > 0.05)[:, 0]
        # Relative to the skin's middle, so that the weights that are fitted need not sum to anything.
        middle = vertices[:, chosen].mean(1, keepdim=True)
        inputs = (vertices[:, chosen] - middle).transpose(1, 2).flatten(0, 1)  # (hands * 3, n)
        target = (joints[:, joint] - middle[:, 0]).flatten()
        gram = inputs.T @ inputs
        gram += _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
        fitted = torch.linalg.solve(gram, inputs.T @ target)
        rows[joint, chosen] = fitted + (1 - fitted.sum()) / len(chosen)
    for number, tip in enumerate(tip_vertices("hamer")):
        rows[16 + number, tip] = 1.0
    return rows[list(MANO_TO_OPENPOSE)].float().to(device)
