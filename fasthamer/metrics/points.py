"""Errors of points (joints, or vertices of a mesh): distances, PCK and the area under it, F-scores of surfaces.

Every score is one number per sample, so that means, confidence intervals and worst samples come from the same arrays.
FreiHAND averages over samples first and keypoints second; with no keypoint missing, that is the mean of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from fasthamer.cores import usable_cores
from fasthamer.metrics.alignment import checked, procrustes, require_finite

AUC_THRESHOLDS = np.linspace(0.0, 0.05, 100)  # metres; FreiHAND's and DexYCB's
F_THRESHOLDS = (0.005, 0.015)  # metres: F@5 and F@15


def distances(prediction: ArrayLike, target: ArrayLike) -> NDArray[np.float64]:
    """Euclidean distance of each point: (B, N, 3) twice -> (B, N)."""
    first, second = checked(prediction, target)
    return np.sqrt(((first - second) ** 2).sum(-1))


def root_relative_distances(
    prediction: ArrayLike, target: ArrayLike, prediction_root: ArrayLike, target_root: ArrayLike
) -> NDArray[np.float64]:
    """Distances (B, N) after moving both roots (B, 3) to the origin."""
    first = np.asarray(prediction, np.float64) - np.asarray(prediction_root, np.float64)[:, None]
    second = np.asarray(target, np.float64) - np.asarray(target_root, np.float64)[:, None]
    return distances(first, second)


def aligned_distances(prediction: ArrayLike, target: ArrayLike, reflection: bool = True) -> NDArray[np.float64]:
    """Distances (B, N) after Procrustes: their mean over N is PA-MPJPE (or PA-MPVPE) of each sample."""
    return distances(procrustes(prediction, target, reflection), target)


def pck(errors: ArrayLike, thresholds: ArrayLike = AUC_THRESHOLDS) -> NDArray[np.float64]:
    """Share of all errors at or below each threshold: any shape -> (T,)."""
    ordered = np.sort(np.asarray(errors, np.float64), axis=None)
    return np.searchsorted(ordered, np.asarray(thresholds), side="right") / ordered.size


def auc(errors: ArrayLike, thresholds: NDArray[np.float64] = AUC_THRESHOLDS) -> NDArray[np.float64]:
    """Area under the PCK curve of each sample, over the area of a perfect one: (B, N) -> (B,).

    The trapezoid rule is linear in the curve, so the area of a mean of step functions is the mean of their areas.
    The step of an error rises at the first threshold that is not below it; its area is looked up in a table.
    """
    gaps = np.diff(thresholds)
    of_threshold = np.zeros(len(thresholds) + 1)  # by the threshold where the step rises; the last one never rises
    halves = np.concatenate([[0.0], gaps / 2]) + np.concatenate([gaps / 2, [0.0]])
    of_threshold[:-1] = np.cumsum(halves[::-1])[::-1]
    step = np.searchsorted(thresholds, np.asarray(errors, np.float64), side="left")
    return of_threshold[step].mean(-1) / (thresholds[-1] - thresholds[0])


def f_scores(
    prediction: ArrayLike, target: ArrayLike, thresholds: Sequence[float] = F_THRESHOLDS
) -> NDArray[np.float64]:
    """Harmonic mean of precision and recall: the shares of points strictly nearer than t to the other surface.

    Args:
        prediction: (B, N, 3) metres.
        target: (B, M, 3) metres.
        thresholds: T distances, metres.

    Returns:
        (B, T), 0 where no point is near.
    """
    predicted, true = np.asarray(prediction, np.float64), np.asarray(target, np.float64)
    if len(predicted) != len(true):
        raise ValueError(f"{len(predicted)} predicted and {len(true)} true meshes: give the same samples in one order")
    require_finite(predicted, "prediction")
    require_finite(true, "target")
    with ThreadPoolExecutor(usable_cores()) as pool:  # the searches release Python's lock
        rows = list(pool.map(lambda pair: _f_score(pair[0], pair[1], thresholds), zip(predicted, true, strict=True)))
    return np.array(rows).reshape(len(predicted), len(thresholds))


def nearest_distances(
    points: NDArray[np.float64], surface: NDArray[np.float64], bound: float = np.inf
) -> NDArray[np.float64]:
    """From each of (N, 3) points to the nearest of (M, 3); infinite where nothing lies within `bound`."""
    tree = cKDTree(surface, balanced_tree=False, compact_nodes=False)
    return np.asarray(tree.query(points, distance_upper_bound=bound)[0])


def _f_score(predicted: NDArray, true: NDArray, thresholds: Sequence[float]) -> list[float]:
    bound = max(thresholds)  # larger distances do not count
    unsettled = np.ones(len(predicted), bool)
    if len(predicted) == len(true):  # same topology: no search for points near their own vertex, often half of them
        unsettled = ((predicted - true) ** 2).sum(-1) >= min(thresholds) ** 2
    settled = int((~unsettled).sum())
    recall = nearest_distances(true[unsettled] if settled else true, predicted, bound)
    precision = nearest_distances(predicted[unsettled], true, bound)
    scores = []
    for threshold in thresholds:
        p = (settled + np.count_nonzero(precision < threshold)) / len(predicted)
        r = (settled + np.count_nonzero(recall < threshold)) / len(true)
        scores.append(2 * p * r / (p + r) if p + r > 0 else 0.0)
    return scores
