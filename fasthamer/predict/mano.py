"""MANO's parameters of predicted hands, in the axes of their images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthamer.data.crop import crop_rotation, mirror_axis_angle, turn_matrix


class ManoArrays(NamedTuple):
    """MANO's parameters of N hands, for `smplx.MANOLayer` without a translation; of one hand without the axis N.

    A left hand's are for MANO_LEFT with the sign of its shape directions corrected, see `fasthamer.hand.left`.
    """

    global_orient: NDArray[np.float32]  # (N, 3, 3) rotation of the wrist in the camera's axes
    hand_pose: NDArray[np.float32]  # (N, 15, 3, 3) relative to the parent joint, MANO's joint order
    betas: NDArray[np.float32]  # (N, 10)
    axis_angle: NDArray[np.float32]  # (N, 48) radians: both rotations, absolute (smplx: flat_hand_mean=True)
    mean_relative: NDArray[np.float32]  # (N, 48) the same, the hand's minus hands_mean (MANO, flat_hand_mean=False)

    def take(self, index: int | slice) -> ManoArrays:
        return ManoArrays(*(each[index] for each in self))


def mano_arrays(
    predicted: tuple[NDArray, NDArray, NDArray], affines: NDArray, left: NDArray[np.bool_], hands_mean: NDArray
) -> ManoArrays:
    """The parameters that give the hands as they are in the image: turned back, left hands mirrored back.

    Args:
        predicted: global_orient (N, 1, 3, 3), hand_pose (N, 15, 3, 3), betas (N, 10) of right hands in their crops.
        affines: (N, 2, 3) from the image to the crops.
        left: (N,) whether the crop was mirrored.
        hands_mean: (45,) of the right hand.
    """
    import torch

    from fasthamer.hand.rotation import matrix_to_axis_angle

    orient, pose, betas = (np.asarray(each, np.float32) for each in predicted)
    back = turn_matrix(crop_rotation(affines)).swapaxes(-1, -2)[:, None]
    rotations = np.concatenate((back @ orient.astype(np.float64), pose), axis=1)  # (N, 16, 3, 3)
    flip = np.where(left[:, None], [-1.0, 1.0, 1.0], 1.0)
    rotations = (rotations * (flip[:, :, None] * flip[:, None])[:, None]).astype(np.float32)
    axis_angle = matrix_to_axis_angle(torch.from_numpy(rotations)).numpy()  # (N, 16, 3)
    right_mean = np.concatenate((np.zeros(3), hands_mean)).reshape(16, 3).astype(np.float32)
    mean = np.where(left[:, None, None], mirror_axis_angle(right_mean), right_mean)
    flat, relative = axis_angle.reshape(-1, 48), (axis_angle - mean).reshape(-1, 48)
    return ManoArrays(rotations[:, 0], rotations[:, 1:], betas, flat, relative)
