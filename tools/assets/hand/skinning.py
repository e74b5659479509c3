"""Skin weights by diffusion of bone labels, and the joint regressor. Millimetres."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls
from scipy.sparse import coo_matrix, diags
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from fasthamer.tools.assets.hand.skeleton import FINGERS, Skeleton


def labels(points: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """The bone (N,) that owns each point, cut at planes that halve the angle of a joint."""
    joints, ends = skeleton.joints, skeleton.ends
    nearest = np.full(len(points), np.inf)
    label = np.zeros(len(points), int)
    for number, finger in enumerate(FINGERS):
        first = 1 + 3 * number
        away = np.min([_segment_distance(points, joints[b], ends[b]) for b in range(first, first + 3)], axis=0)
        mine = np.full(len(points), 0)
        before = joints[first] - joints[0]
        for bone in range(first, first + 3):
            after = ends[bone] - joints[bone]
            cut = before / np.linalg.norm(before) + after / np.linalg.norm(after)
            mine[(points - joints[bone]) @ cut > 0] = bone
            before = after
        if finger == "thumb":
            palm = np.min([_segment_distance(points, joints[0], joints[k]) for k in (1, 4)], axis=0)
            mine[(mine == first) & (away > palm + 1.0)] = 0
            away = away - 3.0
        closer = away < nearest
        nearest[closer], label[closer] = away[closer], mine[closer]
    return label


def weights(vertices: np.ndarray, faces: np.ndarray, at: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Smooth weights (M, 16) at the points `at` (M, 3): labels on the dense mesh, diffused; at most 4 a point."""
    start = np.eye(16)[labels(vertices, skeleton)]
    width = _blend_width(vertices, skeleton)
    stiffness, area = _laplacian(vertices, faces, 0.5 * width**2 / 2)
    solver = splu((diags(area) + stiffness).tocsc())
    smooth = solver.solve(area[:, None] * start)
    smooth = solver.solve(area[:, None] * smooth)
    away, near = cKDTree(vertices).query(at, k=5)
    share = 1.0 / (away + 0.1)
    found = np.einsum("mk,mkj->mj", share / share.sum(1, keepdims=True), smooth[near])
    found = np.clip(found, 0, 1)
    small = np.sort(found, axis=1)[:, -5][:, None]
    found = np.where((found > small) & (found > 0.01), found, 0.0)
    return found / found.sum(1, keepdims=True)


def joint_regressor(vertices: np.ndarray, joints: np.ndarray, directions: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Non-negative rows (16, V) that sum to 1, give `joints` from `vertices` and follow the shape directions.

    Args:
        vertices: (V, 3) and its shape directions (V, 3, S).
        joints: (16, 3) and how they move with each shape direction, `moves` (16, 3, S).
    """
    rows = np.zeros((len(joints), len(vertices)))
    for j, joint in enumerate(joints):
        near = np.argsort(np.linalg.norm(vertices - joint, axis=1))[: 110 if j == 0 else 56]
        matrix = [1e3 * (vertices[near] - joint).T, 1e4 * np.ones((1, len(near)))]
        target = [np.zeros(3), 1e4 * np.ones(1)]
        matrix.append(3.0 * directions[near].reshape(len(near), -1).T)
        target.append(3.0 * moves[j].reshape(-1))
        matrix.append(6.0 * np.eye(len(near)))
        target.append(np.full(len(near), 6.0 / len(near)))
        found, _ = nnls(np.concatenate(matrix), np.concatenate(target), maxiter=20000)
        rows[j, near] = found / found.sum()
    return rows


def _blend_width(points: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """How far weights spread (mm): narrow at finger joints, wide at knuckles and the thumb's root."""
    width = np.full(len(points), 7.0)
    for joint, spread in ((13, 13.0), (1, 9.5), (4, 9.5), (7, 9.0), (10, 9.5), (14, 8.0)):
        away = np.linalg.norm(points - skeleton.joints[joint], axis=1)
        width = np.maximum(width, spread - np.maximum(away - 20.0, 0) * 0.4)
    for joint in (2, 3, 5, 6, 8, 9, 11, 12, 15):
        away = np.linalg.norm(points - skeleton.joints[joint], axis=1)
        width = np.where(away < 14.0, 5.5, width)
    return width


def _laplacian(vertices: np.ndarray, faces: np.ndarray, time: np.ndarray):
    """Cotangent stiffness (N, N) with diffusion time per vertex, and lumped areas (N,)."""
    n = len(vertices)
    rows, columns, values = [], [], []
    area = np.zeros(n)
    for k in range(3):
        a, b, c = faces[:, k], faces[:, (k + 1) % 3], faces[:, (k + 2) % 3]
        u, w = vertices[b] - vertices[a], vertices[c] - vertices[a]
        twice = np.maximum(np.linalg.norm(np.cross(u, w), axis=1), 1e-6)
        cotangent = np.clip((u * w).sum(1) / twice, 0.0, 10.0) * 0.5 * time[faces].mean(1)
        rows += [b, c, b, c]
        columns += [c, b, b, c]
        values += [-cotangent, -cotangent, cotangent, cotangent]
        area += np.bincount(a, twice / 6, n)
    matrix = coo_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(n, n))
    return matrix.tocsc(), area


def _segment_distance(points: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    axis = b - a
    along = np.clip((points - a) @ axis / (axis @ axis), 0, 1)
    return np.linalg.norm(points - a - along[:, None] * axis, axis=1)
