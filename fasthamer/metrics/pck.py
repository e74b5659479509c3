"""PCK of 2D keypoints as HaMeR evaluates HInt: the share of labelled joints within a fraction of the hand's box.

HaMeR's `EvaluatorPCK`: a joint is correct if its error is at most t times the longer side of the annotated box. The
share of each joint is taken over the whole set, and the score is the mean of the 21 shares: a rarely labelled joint has
the same weight as any other.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthamer.metrics.alignment import require_finite
from fasthamer.metrics.intervals import interval, resampled_sums
from fasthamer.types import N_JOINTS

PCK_THRESHOLDS = {"pck_05": 0.05, "pck_10": 0.10, "pck_15": 0.15}  # of the box's longer side


class Annotated(NamedTuple):
    """True keypoints of a set, in pixels of its images. N = samples."""

    points: NDArray  # (N, 21, 2)
    known: NDArray  # (N, 21) bool, True = labelled
    size: NDArray  # (N,) longer side of the annotated box
    occluded: NDArray | None = None  # (N, 21) bool; None = not annotated


def score_pck(points: NDArray, target: Annotated) -> dict:
    """PCK over all labelled joints and, if occlusion is annotated, over the visible and the occluded ones.

    Args:
        points: (N, 21, 2) predicted, pixels of the images.
        target: the same hands in the same order.

    Returns:
        `pck_05`, `pck_10` and `pck_15`, the same with `_visible` and `_occluded`, each with `<key>_ci95`; and `n`.

    Raises:
        ValueError: shapes do not match, a number is not finite, a box has no size, or nothing is labelled.
    """
    errors = distances(points, target)
    known = np.asarray(target.known, bool)
    subsets = {"": known}
    if target.occluded is not None:
        occluded = np.asarray(target.occluded, bool)
        subsets |= {"_visible": known & ~occluded, "_occluded": known & occluded}
    if not known.any():
        raise ValueError("nothing to score: no joint of any sample has a label")
    scores: dict = {}
    for suffix, counted in subsets.items():
        if counted.any():
            scores |= _shares(errors, np.asarray(target.size), counted, suffix)
    return {**scores, "n": len(known), "protocol": "hint"}


def distances(points: NDArray, target: Annotated) -> NDArray[np.float64]:
    """Error of each joint in pixels, (N, 21); 0 for unlabelled joints.

    Raises:
        ValueError: see `score_pck`.
    """
    points, known = np.asarray(points, np.float64), np.asarray(target.known, bool)
    expected = (len(known), N_JOINTS, 2)
    for array, name in ((points, "predicted"), (np.asarray(target.points), "true")):
        if array.shape != expected:
            raise ValueError(f"the {name} keypoints have shape {array.shape}, expected {expected}")
    truth = np.where(known[..., None], target.points, 0.0)  # the values of unlabelled joints are not used
    require_finite(points, "prediction")
    require_finite(truth, "target")
    bad = np.flatnonzero(~(np.isfinite(target.size) & (target.size > 0)))
    if len(bad):
        raise ValueError(f"the box of sample {bad[0]} measures {target.size[bad[0]]} pixels: expected more than 0")
    return np.sqrt(((points - truth) ** 2).sum(-1)) * known


def _shares(errors: NDArray, size: NDArray, counted: NDArray, suffix: str) -> dict:
    """The mean over joints of each one's share of errors within the thresholds, with its interval."""
    labels = counted.sum(0)
    used = labels > 0
    if not used.all():
        warnings.warn(
            f"joints {np.flatnonzero(~used).tolist()} have no{suffix.replace('_', ' ')} label: they are excluded from "
            "the mean, which is NaN in the official code",
            stacklevel=3,
        )
    labels, counted = labels[used], counted[:, used].astype(np.float64)
    scores: dict = {}
    for key, threshold in PCK_THRESHOLDS.items():
        right = counted * (errors[:, used] <= threshold * size[:, None])
        scores[key + suffix] = float((right.sum(0) / labels).mean())
        drawn_right, drawn_labels = np.split(resampled_sums(np.concatenate([right, counted], axis=1)), 2, axis=1)
        shares = np.divide(drawn_right, drawn_labels, out=np.full_like(drawn_right, np.nan), where=drawn_labels > 0)
        low, high = interval(np.nanmean(shares, axis=1)[:, None])
        scores[f"{key}{suffix}_ci95"] = [float(low[0]), float(high[0])]
    return scores
