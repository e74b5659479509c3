"""Meshes from the MANO parameters that datasets keep."""

from __future__ import annotations

import numpy as np
import torch

from fasthamer.data.crop import mirror_axis_angle, mirror_points
from fasthamer.hand.mano import Hand
from fasthamer.hand.rotation import axis_angle_to_matrix
from fasthamer.types import ManoParams


def mano_vertices(
    hand: Hand, pose: np.ndarray, betas: np.ndarray, translation: np.ndarray, left: bool = False
) -> np.ndarray:
    """(778, 3) metres, in the frame of the parameters.

    Args:
        hand: a right hand; for a left one its mirror image, see `fasthamer.hand.left`.
        pose: (16, 3) axis-angle, absolute, wrist first, of the hand as it is.
        betas: (10,)
        translation: (3,) metres, MANO's: the wrist joint is at its place in the rest pose plus this.
        left: whether the parameters are a left hand's.
    """
    rotations = axis_angle_to_matrix(torch.from_numpy(mirror_axis_angle(pose) if left else pose).double())[None]
    shape = torch.from_numpy(np.asarray(betas, np.float64))[None]
    with torch.no_grad():
        vertices = hand(ManoParams(rotations[:, :1], rotations[:, 1:], shape))[0][0].numpy().astype(np.float64)
    return (mirror_points(vertices) if left else vertices) + translation
