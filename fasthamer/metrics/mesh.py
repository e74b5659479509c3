"""F-score of two surfaces given by their vertices, which need not correspond (Knapitsch et al. 2017, as FreiHAND)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from fasthamer.metrics.alignment import require_finite

F_THRESHOLDS = (0.005, 0.015)  # metres: F@5 and F@15


def f_scores(
    prediction: ArrayLike, target: ArrayLike, thresholds: Sequence[float] = F_THRESHOLDS
) -> NDArray[np.float64]:
    """Harmonic mean of precision and recall: the shares of points strictly nearer than t to the other surface.

    Args:
        prediction: (B, N, 3) metres.
        target: (B, M, 3) metres.
        thresholds: T distances, metres.

    Returns:
        (B, T), 0 where nothing is near.
    """
    predicted, true = np.asarray(prediction, np.float64), np.asarray(target, np.float64)
    if len(predicted) != len(true):
        raise ValueError(f"{len(predicted)} predicted and {len(true)} true meshes: give the same samples in one order")
    require_finite(predicted, "prediction")
    require_finite(true, "target")
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # the searches release Python's lock
        rows = list(pool.map(lambda pair: _f_score(pair[0], pair[1], thresholds), zip(predicted, true, strict=True)))
    return np.array(rows).reshape(len(predicted), len(thresholds))


def nearest_distances(
    points: NDArray[np.float64], surface: NDArray[np.float64], bound: float = np.inf
) -> NDArray[np.float64]:
    """From each of (N, 3) points to the nearest of (M, 3); infinite where nothing lies within `bound`."""
    tree = cKDTree(surface, balanced_tree=False, compact_nodes=False)
    return np.asarray(tree.query(points, distance_upper_bound=bound)[0])


def _f_score(predicted: NDArray, true: NDArray, thresholds: Sequence[float]) -> list[float]:
    bound = max(thresholds)  # farther than this does not count, so it need not be known
    open_ = np.ones(len(predicted), bool)
    if len(predicted) == len(true):  # of one topology: what is near its own vertex needs no search, half of a good mesh
        open_ = ((predicted - true) ** 2).sum(-1) >= min(thresholds) ** 2
    settled = int((~open_).sum())
    recall = nearest_distances(true[open_] if settled else true, predicted, bound)
    precision = nearest_distances(predicted[open_], true, bound)
    scores = []
    for threshold in thresholds:
        p = (settled + np.count_nonzero(precision < threshold)) / len(predicted)
        r = (settled + np.count_nonzero(recall < threshold)) / len(true)
        scores.append(2 * p * r / (p + r) if p + r > 0 else 0.0)
    return scores
