"""Forward kinematics of MANO's 16 joints, for NumPy arrays and torch tensors alike; the only one in fasthamer.

MANO's tree is a wrist with five chains of three joints (`fasthamer.hand.conventions.MANO_PARENTS`; the reader of hand
files checks it), so the five fingers are computed together, level by level.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from fasthamer.hand.conventions import MANO_PARENTS

FINGERS, LEVELS = 5, 3  # chains from the wrist, and joints in each
Array = TypeVar("Array", bound=Any)  # np.ndarray or torch.Tensor


def forward_kinematics(rotations: Array, bones: Array) -> tuple[Array, Array]:
    """Absolute rotation and position of each joint.

    NumPy arrays keep their type and give the same bits in every process. Tensors can be differentiated and exported.

    Args:
        rotations: (..., 16, 3, 3) relative to the parent, MANO's order; the wrist's is absolute.
        bones: (..., 16, 3) at rest, see `rest_bones`.

    Returns:
        (..., 16, 3, 3) and (..., 16, 3), in the wrist's parent frame and the bones' unit.
    """
    library = _library(rotations)
    local = library.concatenate((rotations, bones[..., None]), -1)  # (..., 16, 3, 4)
    wrist, fingers = local[..., :1, :, :], local[..., 1:, :, :]
    fingers = fingers.reshape(*fingers.shape[:-3], FINGERS, LEVELS, 3, 4)
    parent, levels = wrist, []
    for level in range(LEVELS):
        product = _product(parent[..., :3], fingers[..., level, :, :])  # (..., 5, 3, 4)
        parent = library.concatenate((product[..., :3], product[..., 3:] + parent[..., 3:]), -1)
        levels.append(parent)
    chains = library.stack(levels, -3)  # (..., 5, 3, 3, 4)
    chains = chains.reshape(*chains.shape[:-4], FINGERS * LEVELS, 3, 4)
    joints = library.concatenate((wrist, chains), -3)
    return joints[..., :3], joints[..., 3]


def rest_bones(joints: Array) -> Array:
    """(..., 16, D) joints at rest to the vector from each joint's parent to it; the wrist's is its position."""
    bones = joints[..., 1:, :] - joints[..., list(MANO_PARENTS[1:]), :]
    return _library(joints).concatenate((joints[..., :1, :], bones), -2)


def _library(array: Any) -> ModuleType:
    if isinstance(array, np.ndarray):
        return np
    import torch  # exported models without a mesh are posed with NumPy alone

    return torch


def _product(left: Any, right: Any) -> Any:
    """(..., 3, 3) times (..., 3, 4)."""
    if isinstance(left, np.ndarray):  # the library behind NumPy's @ adds in an order that depends on the CPU
        return np.einsum("...ab,...bc->...ac", left, right)
    return left @ right
