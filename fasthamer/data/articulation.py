"""The finger pose and shape of a hand, without its position and orientation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from fasthamer.data.crop import mirror_axis_angle


class Articulation(NamedTuple):
    """Of a right hand, or of a mirrored left one. MANO's rotations are valid for the embedded hand and vice versa."""

    hand_pose: NDArray[np.float32]  # (15, 3, 3) absolute rotations, MANO's joint order
    betas: NDArray[np.float32] | None  # (10,) of the hand model in use; None if unknown


def articulation_of(pose: NDArray, betas: NDArray | None, left: bool = False) -> Articulation:
    """The articulation in `fasthamer.data.sample.Labels`.

    Args:
        pose: (16, 3) axis-angle, absolute, wrist first, before mirroring.
        betas: (10,) or None.
        left: whether it is a left hand.
    """
    fingers = mirror_axis_angle(pose[1:]) if left else pose[1:]
    rotations = Rotation.from_rotvec(fingers).as_matrix().astype(np.float32)
    return Articulation(rotations, None if betas is None else np.asarray(betas, np.float32))
