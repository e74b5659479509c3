"""Vertex numbers: MANO's fingertip indices must be fingertips."""

from __future__ import annotations

import numpy as np

from fasthamer.tools.assets.hand.skeleton import Skeleton

# per finger in MANO order: the very tip (HaMeR's), then neighbours that other datasets use
TIPS = ((320, 317, 333), (443, 444, 445), (671, 672, 673), (554, 555, 556), (744, 745))


def renumber(vertices: np.ndarray, faces: np.ndarray, skeleton: Skeleton) -> tuple[np.ndarray, np.ndarray]:
    """The same mesh, ordered from wrist to tips by bone, with the tips at MANO's indices."""
    n = len(vertices)
    index = np.full(n, -1)
    axes = skeleton.ends - skeleton.joints
    for number, wanted in enumerate(TIPS):
        bone = 3 + 3 * number
        along = axes[bone] / np.linalg.norm(axes[bone])
        away = np.linalg.norm(vertices - skeleton.tips[number], axis=1)
        tip = int(away.argmin())
        ring = np.unique(faces[(faces == tip).any(1)])
        ring = ring[ring != tip]
        # neighbours that stay closest to the end of the finger
        ring = ring[np.argsort(-((vertices[ring] - vertices[tip]) @ along), kind="stable")]
        for tip_index, vertex in zip(wanted, [tip, *ring[: len(wanted) - 1].tolist()], strict=True):
            index[vertex] = tip_index
    owner = np.argmin(
        [np.linalg.norm(vertices - 0.5 * (skeleton.joints[b] + skeleton.ends[b]), axis=1) for b in range(16)], axis=0
    )
    rest = np.flatnonzero(index < 0)
    rest = rest[np.lexsort((vertices[rest, 2], -vertices[rest, 0], owner[rest]))]
    free = np.setdiff1d(np.arange(n), index[index >= 0])
    index[rest] = free
    moved = np.empty_like(vertices)
    moved[index] = vertices
    return moved, index[faces]
