"""The skin region of each vertex: back, palm or nail."""

from __future__ import annotations

import numpy as np

from fasthamer.tools.assets.hand.skeleton import FINGERS, Skeleton
from fasthamer.tools.assets.hand.skinning import labels

BACK, PALM, NAIL = 0, 1, 2


def regions(vertices: np.ndarray, faces: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """(V,) uint8: 0 back, 1 palm side, 2 nail."""
    normals = np.zeros_like(vertices)
    cross = np.cross(vertices[faces[:, 1]] - vertices[faces[:, 0]], vertices[faces[:, 2]] - vertices[faces[:, 0]])
    for k in range(3):
        np.add.at(normals, faces[:, k], cross)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    bone = labels(vertices, skeleton)
    facing = (normals * skeleton.dorsal[bone]).sum(1)
    region = np.where(facing < -0.1, PALM, BACK)
    for number in range(len(FINGERS)):
        last = 3 + 3 * number
        axis = skeleton.ends[last] - skeleton.joints[last]
        along = (vertices - skeleton.joints[last]) @ axis / (axis @ axis)
        region[(bone == last) & (facing > 0.62) & (along > 0.42)] = NAIL
    return region.astype(np.uint8)
