"""Corrective pose directions: what linear blend skinning loses when a joint bends, read off the posed implicit surface.

Each joint is bent through its range, the volumes of the implicit surface move along, and the skinned vertices are
projected onto that surface. A ridge regression on MANO's features (R - I) makes that linear. Millimetres.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix, diags
from scipy.spatial.transform import Rotation

from fasthamer.hand.conventions import MANO_PARENTS
from fasthamer.tools.assets.hand import surface
from fasthamer.tools.assets.hand.skeleton import Skeleton

FEATURES = 135
_MOST = 5.0  # mm a vertex may move
_RIDGE = 0.02


def directions(
    vertices: np.ndarray, faces: np.ndarray, skin: np.ndarray, skeleton: Skeleton, parts: surface.Parts
) -> np.ndarray:
    """Pose directions (V, 3, 135), mm per unit of (R - I)."""
    found = np.zeros((len(vertices), 3, FEATURES))
    smooth = _smoother(faces, len(vertices))
    for joint in range(1, 16):
        features, moves = [], []
        reach = np.linalg.norm(vertices - skeleton.joints[joint], axis=1)
        mask = np.clip((34.0 - reach) / 10.0, 0, 1)[:, None]
        near = np.flatnonzero(mask[:, 0])
        for rotation in _range(joint, skeleton):
            bent, linear, placed = _skin(vertices, skin, skeleton, joint, rotation)
            goal = bent.copy()
            goal[near] = surface.project(bent[near], _moved(parts, placed), rounds=6, most=1.0)
            move = np.linalg.solve(linear, (goal - bent)[..., None])[..., 0]
            size = np.linalg.norm(move, axis=1, keepdims=True)
            move = move * np.minimum(1.0, _MOST / np.maximum(size, 1e-9)) * mask
            features.append((rotation - np.eye(3)).reshape(-1))
            moves.append((smooth @ (smooth @ move)).reshape(-1))
        x, y = np.stack(features), np.stack(moves)
        solved = np.linalg.solve(x.T @ x + _RIDGE * np.eye(9), x.T @ y)  # (9, V * 3)
        found[:, :, 9 * (joint - 1) : 9 * joint] = solved.T.reshape(-1, 3, 9)
    return found


def _range(joint: int, skeleton: Skeleton) -> list[np.ndarray]:
    """Rotations a joint goes through: flexion, and at a finger's root abduction too."""
    root = (joint - 1) % 3 == 0
    flexions: tuple[int, ...]
    sides: tuple[int, ...]
    if joint == 13:
        flexions, sides = (-25, -12, 12, 25, 40), (-25, 0, 25)
    elif root:
        flexions, sides = (-20, 15, 35, 55, 75, 90), (-15, 0, 15)
    else:
        flexions, sides = (-10, 20, 40, 60, 80, 100), (0,)
    turns = []
    for flexion in flexions:
        for side in sides:
            about_dorsal = Rotation.from_rotvec(np.radians(side) * skeleton.dorsal[joint])
            turns.append(
                (about_dorsal * Rotation.from_rotvec(np.radians(flexion) * skeleton.flexion[joint])).as_matrix()
            )
    return turns


def _skin(vertices: np.ndarray, skin: np.ndarray, skeleton: Skeleton, joint: int, rotation: np.ndarray):
    """Blend skinning with one joint rotated about itself: vertices, their linear maps (V, 3, 3), each bone's (R, t)."""
    below = [bone for bone in range(16) if _descends(bone, joint)]
    start = skeleton.joints[joint]
    placed = [(np.eye(3), np.zeros(3))] * 16
    for bone in below:
        placed[bone] = (rotation, start - rotation @ start)
    linear = np.einsum("vj,jab->vab", skin, np.stack([r for r, _ in placed]))
    offset = skin @ np.stack([t for _, t in placed])
    return np.einsum("vab,vb->va", linear, vertices) + offset, linear, placed


def _descends(bone: int, joint: int) -> bool:
    while bone > joint:
        bone = MANO_PARENTS[bone]
    return bone == joint


def _moved(parts: surface.Parts, placed: list) -> surface.Parts:
    """The implicit surface with every volume carried by its bone."""

    def carry(p: np.ndarray, bone: int) -> np.ndarray:
        rotation, offset = placed[bone]
        return rotation @ p + offset

    def cone(c: surface.Cone) -> surface.Cone:
        return c._replace(a=carry(c.a, c.bone_a), b=carry(c.b, c.bone_b), normal=placed[c.bone_a][0] @ c.normal)

    nails = [(carry(p, bone), placed[bone][0] @ normal, bone) for p, normal, bone in parts.nails]
    return surface.Parts([cone(c) for c in parts.palm], [[cone(c) for c in f] for f in parts.fingers], nails)


def _smoother(faces: np.ndarray, n: int):
    """Half a vertex, half the mean of its neighbours."""
    row = np.concatenate([faces[:, k] for k in (0, 1, 1, 2, 2, 0)])
    column = np.concatenate([faces[:, k] for k in (1, 0, 2, 1, 0, 2)])
    graph = coo_matrix((np.ones(len(row)), (row, column)), shape=(n, n)).tocsr()
    graph.data[:] = 1.0
    mean = diags(1.0 / np.asarray(graph.sum(1)).ravel()) @ graph
    return 0.5 * mean + diags(np.full(n, 0.5))
