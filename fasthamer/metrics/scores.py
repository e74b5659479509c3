"""Scores of predicted hands as a flat dictionary; docs/evaluation.md defines each key.

All means are over samples and points together, which equals the official means (over samples, then over points) when no
point is missing.
"""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthamer.cores import usable_cores
from fasthamer.hand.sides import are_right
from fasthamer.metrics import points as keypoints
from fasthamer.metrics.alignment import checked, fit, procrustes, scale_translation
from fasthamer.metrics.intervals import summarise
from fasthamer.metrics.protocols import Protocol, protocol
from fasthamer.registry import unknown
from fasthamer.types import N_JOINTS, N_VERTICES

FRAMES = ("camera", "wrist")  # of the unaligned scores: as given, or with each wrist at the origin
MIRROR_ALARM = 1.0  # mm; a larger excess of the rigid over the official PA-MPJPE suggests mirrored hands
_BLOCK = 256  # hands at a time and thread, so that their meshes fit into the cache


class Hands(NamedTuple):
    """Hands of one dataset in its order, metres, x right, y down, z forward. N = samples."""

    joints: NDArray  # (N, 21, 3) OpenPose order
    vertices: NDArray | None = None  # (N, 778, 3)
    right: NDArray | None = None  # (N,) bool; None: all are right hands


def score(prediction: Hands, target: Hands, name: str = "freihand", frame: str = "wrist") -> dict:
    """All scores that the data allow, each with `<key>_ci95: [low, high]`.

    Args:
        prediction: joints in the protocol's convention (`protocol_joints`).
        target: without vertices there are no mesh scores. If there are left hands and the protocol has `both_hands`,
            the right ones are also scored alone, under keys that begin with `right_`.
        name: of a 3D protocol.
        frame: `camera` compares unaligned scores as given (and adds the absolute `mpjpe_mm`, `mpvpe_mm`);
            `wrist` is for hand-centred predictions: unaligned F-scores are then root-relative.

    Returns:
        keys ending in `_mm` are millimetres, the others fractions.

    Raises:
        KeyError: no such protocol.
        ValueError: shapes or order do not match, or a number is not finite.
    """
    each = per_sample(prediction, target, name, frame)
    scores = summarise(each)
    _warn_if_mirrored(each["pa_mpjpe_mm"], each["pa_mpjpe_rigid_mm"])
    about = {"n": len(target.joints), "protocol": name, "frame": frame}
    if protocol(name).both_hands and target.right is not None:
        right = are_right(target.right)
        about["right_n"] = int(right.sum())
        if right.any():
            alone = summarise({key: values[right] for key, values in each.items()})
            scores |= {f"right_{key}": value for key, value in alone.items()}
    return {**scores, **about}


def per_sample(
    prediction: Hands, target: Hands, name: str = "freihand", frame: str = "wrist"
) -> dict[str, NDArray[np.float64]]:
    """The scores of each sample (N,), under the keys of `score`."""
    rules = protocol(name)
    if frame not in FRAMES:
        raise ValueError(unknown("frame", frame, FRAMES))
    _check(prediction, target)
    blocks = [slice(begin, begin + _BLOCK) for begin in range(0, len(target.joints), _BLOCK)]
    with ThreadPoolExecutor(usable_cores()) as pool:  # NumPy and the searches release Python's lock
        parts = list(pool.map(lambda block: _block_scores(prediction, target, block, rules, frame), blocks))
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _block_scores(
    prediction: Hands, target: Hands, block: slice, rules: Protocol, frame: str
) -> dict[str, NDArray[np.float64]]:
    some, true = _part(prediction, block), _part(target, block)
    scores = _joint_scores(some.joints, true.joints, rules, frame)
    if some.vertices is not None and true.vertices is not None:
        scores |= _mesh_scores(some, true, rules, frame)
    return scores


def _part(hands: Hands, samples: slice) -> Hands:
    return Hands(hands.joints[samples], None if hands.vertices is None else hands.vertices[samples])


def _check(prediction: Hands, target: Hands) -> None:
    joints, _ = checked(prediction.joints, target.joints)
    if not len(joints):
        raise ValueError("nothing to score: the prediction holds no sample")
    if joints.shape[1] != N_JOINTS:
        raise ValueError(f"hands have {joints.shape[1]} joints; expected {N_JOINTS}, in OpenPose order")
    if prediction.vertices is None or target.vertices is None:
        return
    for vertices in (prediction.vertices, target.vertices):
        if vertices.shape != (len(joints), N_VERTICES, 3):
            raise ValueError(f"vertices have shape {vertices.shape}; expected {(len(joints), N_VERTICES, 3)}")


def _joint_scores(joints: NDArray, true: NDArray, rules: Protocol, frame: str) -> dict[str, NDArray[np.float64]]:
    aligned, rigid = _aligned_twice(joints, true, rules.per_metre)
    errors = keypoints.distances(aligned, true)
    relative = keypoints.root_relative_distances(joints, true, joints[:, 0], true[:, 0])
    scores = {
        "pa_mpjpe_mm": 1000 * errors.mean(1),
        "pa_mpjpe_rigid_mm": 1000 * keypoints.distances(rigid, true).mean(1),
        "mpjpe_rel_mm": 1000 * relative.mean(1),
        "auc_joints": keypoints.auc(errors),
        "auc_joints_rel": keypoints.auc(relative),
    }
    if rules.scale_translation:
        moved = keypoints.distances(scale_translation(joints, true), true)
        scores |= {"mpjpe_st_mm": 1000 * moved.mean(1), "auc_joints_st": keypoints.auc(moved)}
    if frame == "camera":
        raw = keypoints.distances(joints, true)
        scores |= {"mpjpe_mm": 1000 * raw.mean(1), "auc_joints_raw": keypoints.auc(raw)}
    return scores


def _mesh_scores(prediction: Hands, target: Hands, rules: Protocol, frame: str) -> dict[str, NDArray[np.float64]]:
    vertices, true = checked(prediction.vertices, target.vertices)  # type: ignore[arg-type]
    aligned, rigid = _aligned_twice(vertices, true, rules.per_metre)
    errors = keypoints.distances(aligned, true)
    on_root = vertices - prediction.joints[:, :1] + target.joints[:, :1]  # wrist on wrist
    relative = keypoints.distances(on_root, true)
    f_aligned = keypoints.f_scores(aligned, true)  # (N, 2) at 5 and 15 mm
    f_raw = keypoints.f_scores(vertices if frame == "camera" else on_root, true)
    scores = {
        "pa_mpvpe_mm": 1000 * errors.mean(1),
        "pa_mpvpe_rigid_mm": 1000 * keypoints.distances(rigid, true).mean(1),
        "mpvpe_rel_mm": 1000 * relative.mean(1),
        "auc_vertices": keypoints.auc(errors),
        "auc_vertices_rel": keypoints.auc(relative),
        "f5": f_aligned[:, 0],
        "f15": f_aligned[:, 1],
        "f5_raw": f_raw[:, 0],
        "f15_raw": f_raw[:, 1],
    }
    if frame == "camera":
        raw = keypoints.distances(vertices, true)
        scores |= {"mpvpe_mm": 1000 * raw.mean(1), "auc_vertices_raw": keypoints.auc(raw)}
    return scores


def _aligned_twice(points: NDArray, true: NDArray, per_metre: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points aligned as in the official code, and with rotations only; they differ where the official one reflects."""
    points, true = points * per_metre, true * per_metre
    similarity = fit(points, true)
    aligned = similarity.apply(points)
    reflected = np.linalg.det(similarity.rotation) < 0
    rigid = aligned.copy()
    if reflected.any():
        rigid[reflected] = procrustes(points[reflected], true[reflected], reflection=False)
    return aligned / per_metre, rigid / per_metre


def _warn_if_mirrored(official_mm: NDArray, rigid_mm: NDArray) -> None:
    """Warns if reflections, which the official alignment allows, change the result."""
    if rigid_mm.mean() - official_mm.mean() > MIRROR_ALARM:
        reflected = int((np.abs(rigid_mm - official_mm) > 1e-6).sum())
        warnings.warn(
            f"PA-MPJPE is {official_mm.mean():.1f} mm as the official code aligns (reflections allowed) but "
            f"{rigid_mm.mean():.1f} mm with rotations only: {reflected} of {len(official_mm)} hands fit better "
            "mirrored. Left and right are probably confused, or an axis is flipped",
            stacklevel=3,
        )
