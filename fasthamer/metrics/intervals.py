"""Bootstrap confidence intervals of means over samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 1000
_BLOCK = 16  # resamples at a time; bounds the size of the array of counts


def summarise(scores: dict[str, NDArray[np.float64]], resamples: int = RESAMPLES, seed: int = 0) -> dict:
    """Means over samples, each with its 95 % interval as `<key>_ci95: [low, high]`.

    Args:
        scores: one number per sample, (N,), under each key.
        resamples: number of sets drawn with replacement; the intervals are percentiles of their means.
        seed: of the random draws.
    """
    columns = np.stack(list(scores.values()), axis=1)  # (N, K)
    low, high = interval(resampled_sums(columns, resamples, seed) / len(columns))
    means = columns.mean(0)
    summary: dict = {key: float(means[i]) for i, key in enumerate(scores)}
    return summary | {f"{key}_ci95": [float(low[i]), float(high[i])] for i, key in enumerate(scores)}


def resampled_sums(columns: ArrayLike, resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.float64]:
    """Column sums of sets of N samples drawn with replacement: (N, K) -> (R, K)."""
    values = np.asarray(columns, np.float64)
    n = len(values)
    rng = np.random.default_rng(seed)
    sums = np.empty((resamples, values.shape[1]))
    for begin in range(0, resamples, _BLOCK):
        drawn = rng.integers(0, n, (min(_BLOCK, resamples - begin), n), dtype=np.int32)
        counts = np.stack([np.bincount(each, minlength=n) for each in drawn]).astype(np.float64)
        sums[begin : begin + len(drawn)] = counts @ values
    return sums


def interval(statistics: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bounds of the middle 95 % of each statistic over the resampled sets: (R, K) -> low (K,), high (K,)."""
    low, high = np.percentile(statistics, [2.5, 97.5], axis=0)
    return low, high
