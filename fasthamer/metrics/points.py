"""Errors of corresponding points (joints, or vertices of one topology): distances, PCK and the area under it.

Every score is one number per sample, so that means, confidence intervals and worst cases come from the same arrays.
FreiHAND averages over samples first and keypoints second; with no keypoint missing, that is the mean of these.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fasthamer.metrics.alignment import checked, procrustes

AUC_THRESHOLDS = np.linspace(0.0, 0.05, 100)  # metres; FreiHAND's and DexYCB's


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

    The trapezoid rule is linear in the curve, so the area of a mean of step functions is the mean of their areas:
    each error looks up the area of the step that rises at the first threshold it does not exceed.
    """
    gaps = np.diff(thresholds)
    of_threshold = np.zeros(len(thresholds) + 1)  # area of the step that rises at threshold j; the last never rises
    halves = np.concatenate([[0.0], gaps / 2]) + np.concatenate([gaps / 2, [0.0]])
    of_threshold[:-1] = np.cumsum(halves[::-1])[::-1]
    step = np.searchsorted(thresholds, np.asarray(errors, np.float64), side="left")
    return of_threshold[step].mean(-1) / (thresholds[-1] - thresholds[0])
