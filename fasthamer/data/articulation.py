"""How a hand's fingers are bent and what shape it has, apart from where it is and which way it faces."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from fasthamer.data.crop import mirror_axis_angle


class Articulation(NamedTuple):
    """Of a right hand, or of a left one's mirror image. MANO's rotations serve the embedded hand and vice versa."""

    hand_pose: NDArray[np.float32]  # (15, 3, 3) absolute rotations, MANO's joint order
    betas: NDArray[np.float32] | None  # (10,) of the hand model in use; None where they are not known


def articulation_of(pose: NDArray, betas: NDArray | None, left: bool = False) -> Articulation:
    """From labels as `fasthamer.data.sample.Labels` has them.

    Args:
        pose: (16, 3) axis-angle, absolute, wrist first, of the hand as it is.
        betas: (10,) or None.
        left: whether it is a left hand.
    """
    fingers = mirror_axis_angle(pose[1:]) if left else pose[1:]
    rotations = Rotation.from_rotvec(fingers).as_matrix().astype(np.float32)
    return Articulation(rotations, None if betas is None else np.asarray(betas, np.float32))
