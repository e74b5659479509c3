"""From a decoded mesh to the image: rotation, joints, and the camera that projects them onto the 2D joints."""

from __future__ import annotations

from torch import Tensor, nn

from fasthamer.camera import fit_weak_camera


class Placing(nn.Module):
    """The last step from tokens to a hand; its buffer is not in the state dict.

    Args:
        joints: (21, 778) regressor of the joints of a mesh, see `fasthamer.hand.posed_joints`.
    """

    joints: Tensor

    def __init__(self, joints: Tensor) -> None:
        super().__init__()
        self.register_buffer("joints", joints, persistent=False)

    def forward(self, vertices: Tensor, keypoints: Tensor, rotation: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Rotates the mesh and fits the weak-perspective camera.

        Args:
            vertices: (B, 778, 3) metres.
            keypoints: (B, 21, 2) crop units.
            rotation: (B, 3, 3) of the hand; None where the mesh has it already.

        Returns:
            Vertices (B, 778, 3), joints (B, 21, 3) and camera (B, 3).
        """
        if rotation is not None:
            vertices = vertices @ rotation.transpose(1, 2)
        joints = self.joints @ vertices
        return vertices, joints, fit_weak_camera(joints, keypoints)
