"""Evaluation protocols: arrays of predicted and true hands in, one flat dictionary of scores out.

`freihand` is the official FreiHAND evaluation (joints and vertices aligned separately, each to its own truth; F@5 and
F@15; AUC from 0 to 50 mm) with the root-relative errors that papers add. All means are over samples and points alike.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fasthamer.hand.conventions import TIPS, regressed_joints
from fasthamer.metrics import keypoints, mesh
from fasthamer.metrics.alignment import checked, fit
from fasthamer.registry import unknown
from fasthamer.types import N_JOINTS, N_VERTICES

PROTOCOLS = ("freihand",)
FRAMES = ("camera", "wrist")  # of the unaligned scores: as given, or each hand with its own wrist at the origin
FINGERTIPS = (4, 8, 12, 16, 20)  # OpenPose order, thumb to pinky
MIRROR_ALARM = 1.0  # mm by which rigid alignment may exceed the official one before a mirrored hand is suspected


class Hands(NamedTuple):
    """Hands of one set in one order, metres. N = samples."""

    joints: NDArray  # (N, 21, 3) OpenPose order
    vertices: NDArray | None = None  # (N, 778, 3)


def score(prediction: Hands, target: Hands, protocol: str = "freihand", frame: str = "wrist") -> dict:
    """Every score the data allow, each with `<key>_ci95: [low, high]`.

    Args:
        prediction: joints in the protocol's convention (`protocol_joints`).
        target: without vertices, the mesh scores are absent.
        protocol: a name in PROTOCOLS.
        frame: `camera` compares unaligned scores as given (and adds the absolute `mpjpe_mm`, `mpvpe_mm`);
            `wrist` is for hand-centred predictions: unaligned F-scores are then root-relative.

    Returns:
        keys ending in `_mm` are millimetres, the others fractions; see docs/evaluation.md.

    Raises:
        ValueError: shapes or order do not match, or a number is not finite.
    """
    scores = summarise(per_sample(prediction, target, protocol, frame))
    _warn_if_mirrored(prediction, target, scores["pa_mpjpe_mm"])
    return {**scores, "n": len(target.joints), "protocol": protocol, "frame": frame}


def per_sample(
    prediction: Hands, target: Hands, protocol: str = "freihand", frame: str = "wrist"
) -> dict[str, NDArray[np.float64]]:
    """The scores of each sample (N,), under the keys of `score`."""
    if protocol not in PROTOCOLS:
        raise ValueError(unknown("protocol", protocol, PROTOCOLS))
    if frame not in FRAMES:
        raise ValueError(unknown("frame", frame, FRAMES))
    joints, true_joints = checked(prediction.joints, target.joints)
    if not len(joints):
        raise ValueError("nothing to score: the prediction holds no sample")
    if joints.shape[1] != N_JOINTS:
        raise ValueError(f"hands have {joints.shape[1]} joints; expected {N_JOINTS}, in OpenPose order")
    scores = _joint_scores(joints, true_joints, frame)
    if prediction.vertices is not None and target.vertices is not None:
        vertices, true_vertices = checked(prediction.vertices, target.vertices)
        if vertices.shape[:2] != (len(joints), N_VERTICES):
            raise ValueError(f"vertices have shape {vertices.shape}; expected {(len(joints), N_VERTICES, 3)}")
        scores |= _mesh_scores(vertices, true_vertices, joints[:, 0], true_joints[:, 0], frame)
    return scores


def summarise(scores: dict[str, NDArray[np.float64]], resamples: int = 1000, seed: int = 0) -> dict:
    """Means over samples and 95 % bootstrap intervals (percentiles of the means of resampled sets; fixed seed)."""
    keys, columns = list(scores), np.stack(list(scores.values()), axis=1)  # (N, K)
    n = len(columns)
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)  # (R, N) times drawn
    low, high = np.percentile(counts @ columns / n, [2.5, 97.5], axis=0)  # (K,)
    summary: dict = {key: float(value) for key, value in zip(keys, columns.mean(0), strict=True)}
    return summary | {f"{key}_ci95": [float(low[i]), float(high[i])] for i, key in enumerate(keys)}


def protocol_joints(joints: NDArray, vertices: NDArray, convention: str, regressor: NDArray | None = None) -> NDArray:
    """The 21 joints that a dataset's labels mean, from a model's joints and vertices.

    Tip definitions alone move PA-MPJPE by up to 1.4 mm, so this belongs to the protocol, not to the model.

    Args:
        joints: (N, 21, 3) as the model gives them: kinematic joints, HaMeR's tips.
        vertices: (N, 778, 3).
        convention: `hamer` keeps the joints; `freihand` regresses the inner ones from the posed vertices, as that
            dataset's code does; any other name of `fasthamer.hand.conventions.TIPS` replaces the tips.
        regressor: (16, 778) joint regressor; `freihand` needs it.
    """
    if convention not in TIPS:
        raise ValueError(unknown("joint convention", convention, TIPS))
    if convention == "hamer":
        return np.asarray(joints)
    if convention == "freihand":
        if regressor is None:
            raise ValueError("the freihand joint convention needs the hand model's joint regressor (16, 778)")
        weights, points = (torch.as_tensor(np.asarray(array, np.float64)) for array in (regressor, vertices))
        return regressed_joints(weights, points, tips="freihand").numpy()
    moved = np.array(joints)
    moved[:, FINGERTIPS] = np.asarray(vertices)[:, list(TIPS[convention])]
    return moved


def convention_of(dataset: str, has_vertices: bool) -> str:
    """What a dataset's labels mean by a joint, as far as its files tell.

    FreiHAND's joints are regressed from its meshes. Sets that only share its layout have no meshes, and a definition
    of their own: the model's joints are compared as they are.
    """
    return "freihand" if dataset == "freihand" and has_vertices else "hamer"


def _joint_scores(joints: NDArray, true: NDArray, frame: str) -> dict[str, NDArray[np.float64]]:
    aligned = keypoints.aligned_distances(joints, true)
    relative = keypoints.root_relative_distances(joints, true, joints[:, 0], true[:, 0])
    scores = {
        "pa_mpjpe_mm": 1000 * aligned.mean(1),
        "mpjpe_rel_mm": 1000 * relative.mean(1),
        "auc_joints": keypoints.auc(aligned),
    }
    if frame == "camera":
        scores["mpjpe_mm"] = 1000 * keypoints.distances(joints, true).mean(1)
    return scores


def _mesh_scores(
    vertices: NDArray, true: NDArray, root: NDArray, true_root: NDArray, frame: str
) -> dict[str, NDArray[np.float64]]:
    aligned = fit(vertices, true).apply(vertices)
    errors = keypoints.distances(aligned, true)
    centred, true_centred = vertices - root[:, None], true - true_root[:, None]
    raw, true_raw = (vertices, true) if frame == "camera" else (centred, true_centred)
    f_aligned, f_raw = mesh.f_scores(aligned, true), mesh.f_scores(raw, true_raw)  # (N, 2) at 5 and 15 mm
    scores = {
        "pa_mpvpe_mm": 1000 * errors.mean(1),
        "mpvpe_rel_mm": 1000 * keypoints.distances(centred, true_centred).mean(1),
        "auc_vertices": keypoints.auc(errors),
        "f5": f_aligned[:, 0],
        "f15": f_aligned[:, 1],
        "f5_raw": f_raw[:, 0],
        "f15_raw": f_raw[:, 1],
    }
    if frame == "camera":
        scores["mpvpe_mm"] = 1000 * keypoints.distances(vertices, true).mean(1)
    return scores


def _warn_if_mirrored(prediction: Hands, target: Hands, official_mm: float) -> None:
    """The official alignment forgives a mirrored hand; say so where that changes the result."""
    rigid_mm = 1000 * float(keypoints.aligned_distances(prediction.joints, target.joints, reflection=False).mean())
    if rigid_mm - official_mm > MIRROR_ALARM:
        reflected = int((np.linalg.det(fit(prediction.joints, target.joints).rotation) < 0).sum())
        warnings.warn(
            f"PA-MPJPE is {official_mm:.1f} mm as the official code aligns (reflections allowed) but {rigid_mm:.1f} mm "
            f"with rotations only: {reflected} of {len(target.joints)} hands fit better mirrored. "
            "Left and right are probably confused, or an axis is flipped",
            stacklevel=3,
        )
