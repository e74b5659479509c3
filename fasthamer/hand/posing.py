"""A hand's mesh in NumPy, for datasets: bit for bit the same in every process.

`smplx.MANOLayer` adds in float32 in an order that depends on the number of threads, so a loader's worker and the main
process would differ in the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fasthamer.hand.conventions import MANO_TO_OPENPOSE, tip_vertices
from fasthamer.hand.kinematics import forward_kinematics, rest_bones

if TYPE_CHECKING:  # exported models without a mesh are posed here, without torch
    from torch import Tensor

    from fasthamer.hand.mano import Hand


class Poser:
    """Linear blend skinning of one hand at a time, in doubles; equals `hand(...)` up to float32's rounding.

    Args:
        arrays: with MANO's keys, see `fasthamer.hand.mano_files.SHAPES`.
    """

    def __init__(self, arrays: Mapping[str, NDArray]) -> None:
        self.template, self.shapes = arrays["v_template"], arrays["shapedirs"]
        self.correctives = arrays["posedirs"].reshape(-1, 135).T  # (135, 778 * 3)
        self.regressor, self.weights = arrays["J_regressor"], arrays["weights"]

    @classmethod
    def of(cls, hand: Hand) -> Poser:
        """From a hand's own buffers, which are rounded to float32."""
        layer = hand.layer
        return cls(
            {
                "v_template": _doubles(layer.v_template),
                "shapedirs": _doubles(layer.shapedirs),
                "posedirs": _doubles(layer.posedirs).T,  # smplx's is (135, 778 * 3)
                "J_regressor": _doubles(layer.J_regressor),
                "weights": _doubles(layer.lbs_weights),
            }
        )

    def __call__(self, rotations: NDArray, betas: NDArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Vertices (778, 3) and joints (21, 3) in OpenPose order, metres.

        Args:
            rotations: (16, 3, 3) relative to the parent, the wrist's absolute; MANO's order.
            betas: (10,)
        """
        rotations = rotations.astype(np.float64)
        shaped = self.template + np.einsum("vck,k->vc", self.shapes, betas.astype(np.float64))
        rest = np.einsum("jv,vc->jc", self.regressor, shaped)
        correction = (rotations[1:] - np.eye(3)).ravel()
        shaped = shaped + np.einsum("p,pn->n", correction, self.correctives).reshape(-1, 3)

        turned, joints = forward_kinematics(rotations, rest_bones(rest))  # (16, 3, 3), (16, 3)
        shift = joints - np.einsum("jab,jb->ja", turned, rest)
        blended = np.einsum("vj,jn->vn", self.weights, turned.reshape(16, 9)).reshape(-1, 3, 3)
        vertices = np.einsum("vab,vb->va", blended, shaped) + np.einsum("vj,ja->va", self.weights, shift)
        ordered = np.concatenate([joints, vertices[list(tip_vertices("hamer"))]])[list(MANO_TO_OPENPOSE)]
        return vertices.astype(np.float32), ordered.astype(np.float32)


def _doubles(tensor: Tensor) -> NDArray[np.float64]:
    return np.asarray(tensor.detach().cpu().numpy(), np.float64)
