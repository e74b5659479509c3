"""The hand layer as a few batched matrix products; the same function as `Hand.forward`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fasthamer.camera import project, weak_to_translation
from fasthamer.hand.conventions import MANO_TO_OPENPOSE, tip_vertices
from fasthamer.hand.kinematics import forward_kinematics, rest_bones
from fasthamer.hand.mano import Hand
from fasthamer.types import HandOutput, ManoParams


class SkinnedHand(nn.Module):
    """MANO parameters and a camera to a complete `HandOutput`: `SkinnedHand(hand)(mano, camera, features)`."""

    def __init__(self, hand: Hand) -> None:
        super().__init__()
        self.skinning = Skinning(hand)

    def forward(self, mano: ManoParams, camera: Tensor, features: Tensor) -> HandOutput:
        vertices, joints = self.skinning(mano)
        keypoints_2d = project(joints, weak_to_translation(camera))
        return HandOutput(vertices, joints, keypoints_2d, camera, features, mano)


class Skinning(nn.Module):
    """Linear blend skinning: one product for all blend shapes, one per level of the kinematic tree, one for the skin.

    Its buffers are not in the state dict, as those of `Hand`.

    Args:
        hand: whose arrays are rearranged here, in doubles.
    """

    rest: Tensor  # (1, 778 * 3) template, without the correctives of unbent joints
    blend: Tensor  # (10 + 15 * 9, 778 * 3) of betas and rotation matrices
    joints_rest: Tensor  # (1, 32 * 3) the 16 joints, then each one's bone, from its parent to it
    joints_blend: Tensor  # (10, 32 * 3) of betas
    weights: Tensor  # (778, 16)
    tips: Tensor  # (5,) vertices
    order: Tensor  # (21,) OpenPose's joints among the 16 and the tips

    def __init__(self, hand: Hand) -> None:
        super().__init__()
        layer = hand.layer
        template, shapes, correctives, regressor = (
            part.detach().cpu().double()
            for part in (layer.v_template, layer.shapedirs, layer.posedirs, layer.J_regressor)
        )
        bones = rest_bones(torch.eye(16, dtype=torch.float64))  # (16, 16): times joints, their bones
        regressor = torch.cat((regressor, bones @ regressor))  # (32, 778)
        unbent = torch.eye(3, dtype=torch.float64).flatten().repeat(15)  # (135,)
        buffers = {
            "rest": (template.flatten() - unbent @ correctives)[None].float(),
            "blend": torch.cat((shapes.flatten(0, 1).T, correctives)).float().contiguous(),
            "joints_rest": (regressor @ template).flatten()[None].float(),
            "joints_blend": torch.einsum("jv,vck->kjc", regressor, shapes).flatten(1).float().contiguous(),
            "weights": layer.lbs_weights.detach().float(),
            "tips": torch.tensor(tip_vertices("hamer")),
            "order": torch.tensor(MANO_TO_OPENPOSE),
        }
        for name, value in buffers.items():
            self.register_buffer(name, value.to(layer.v_template.device), persistent=False)

    def forward(self, mano: ManoParams) -> tuple[Tensor, Tensor]:
        """Vertices (B, 778, 3) and joints (B, 21, 3) in OpenPose order, metres."""
        shaped = torch.addmm(self.rest, torch.cat((mano.betas, mano.hand_pose.flatten(1)), 1), self.blend)
        both = torch.addmm(self.joints_rest, mano.betas, self.joints_blend).unflatten(1, (2, 16, 3))
        joints, bones = both[:, 0], both[:, 1]
        rotations, posed = forward_kinematics(torch.cat((mano.global_orient, mano.hand_pose), 1), bones)
        shifts = posed - (rotations * joints[:, :, None]).sum(-1)  # translation of each joint's skin
        skin = self.weights @ torch.cat((rotations.flatten(2), shifts), 2)  # (B, 778, 12)
        vertices = (skin[..., :9].unflatten(2, (3, 3)) * shaped.unflatten(1, (-1, 1, 3))).sum(-1) + skin[..., 9:]
        tips = vertices.index_select(1, self.tips)
        return vertices, torch.cat((posed, tips), 1).index_select(1, self.order)
