"""Procrustes alignment of batches, as in the official evaluation code and restricted to rotations.

The public evaluations (FreiHAND, HO-3D, DexYCB) call `scipy.linalg.orthogonal_procrustes`, whose "rotation" may be a
reflection: a mirrored hand then scores 0 mm. `reflection=False` allows rotations only (Umeyama 1991, eq. 39-42), so
that a mirrored hand has a large error.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fasthamer.hand.conventions import MIDDLE_KNUCKLE, WRIST

_TINY = 1e-8  # added to both norms by the official `align_w_scale`; avoids division by 0 if all points coincide


class Similarity(NamedTuple):
    """`points @ rotation^T * scale + translation`, one per sample."""

    scale: NDArray[np.float64]  # (B,)
    rotation: NDArray[np.float64]  # (B, 3, 3); determinant -1 where it reflects
    translation: NDArray[np.float64]  # (B, 3)

    def apply(self, points: ArrayLike) -> NDArray[np.float64]:
        """(B, N, 3) -> (B, N, 3)."""
        turned = np.asarray(points, np.float64) @ self.rotation.transpose(0, 2, 1)
        return turned * self.scale[:, None, None] + self.translation[:, None]


def procrustes(prediction: ArrayLike, target: ArrayLike, reflection: bool = True) -> NDArray[np.float64]:
    """`prediction` translated, rotated and scaled onto `target`, sample by sample.

    Args:
        prediction: (B, N, 3) in any unit.
        target: (B, N, 3), the same points.
        reflection: True as the official code; False allows rotations only.

    Returns:
        (B, N, 3) in the target's frame and unit.

    Raises:
        ValueError: shapes differ, or a coordinate is not finite (the message names the sample).
    """
    return fit(prediction, target, reflection).apply(prediction)


def fit(prediction: ArrayLike, target: ArrayLike, reflection: bool = True) -> Similarity:
    """The least-squares similarity from `prediction` to `target`; arguments and errors as `procrustes`."""
    moved, fixed = checked(prediction, target)
    moved_mean, fixed_mean = moved.mean(1), fixed.mean(1)  # (B, 3)
    moved, fixed = moved - moved_mean[:, None], fixed - fixed_mean[:, None]
    moved_norm = np.sqrt((moved**2).sum((1, 2))) + _TINY  # (B,)
    fixed_norm = np.sqrt((fixed**2).sum((1, 2))) + _TINY
    covariance = (fixed / fixed_norm[:, None, None]).transpose(0, 2, 1) @ (moved / moved_norm[:, None, None])
    u, singular, vt = np.linalg.svd(covariance)
    if not reflection:
        sign = np.where(np.linalg.det(u @ vt) < 0, -1.0, 1.0)
        u = np.concatenate([u[:, :, :2], u[:, :, 2:] * sign[:, None, None]], axis=2)
        singular = np.concatenate([singular[:, :2], singular[:, 2:] * sign[:, None]], axis=1)
    rotation = u @ vt
    scale = singular.sum(1) * fixed_norm / moved_norm
    translation = fixed_mean - scale[:, None] * (rotation @ moved_mean[:, :, None])[:, :, 0]
    return Similarity(scale, rotation, translation)


def scale_translation(prediction: ArrayLike, target: ArrayLike) -> NDArray[np.float64]:
    """`prediction` scaled until wrist and middle knuckle are as far apart as the target's, wrist moved onto wrist.

    HO-3D's `align_sc_tr`, which takes MANO's joints 0 and 4. A prediction whose bone has no length is scaled by the
    target's length in metres, as there.

    Args:
        prediction: (B, 21, 3) joints in OpenPose order.
        target: (B, 21, 3).

    Returns:
        (B, 21, 3)

    Raises:
        ValueError: as `procrustes`.
    """
    moved, fixed = checked(prediction, target)
    length = np.sqrt(((moved[:, MIDDLE_KNUCKLE] - moved[:, WRIST]) ** 2).sum(-1))
    true_length = np.sqrt(((fixed[:, MIDDLE_KNUCKLE] - fixed[:, WRIST]) ** 2).sum(-1))
    scaled = moved / np.where(length > 0, length, 1.0)[:, None, None] * true_length[:, None, None]
    return scaled - scaled[:, WRIST, None] + fixed[:, WRIST, None]


def checked(prediction: ArrayLike, target: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both as float64 arrays of one shape (B, N, 3) with finite numbers.

    Raises:
        ValueError: they are not; the message names the first bad sample.
    """
    arrays = np.asarray(prediction, np.float64), np.asarray(target, np.float64)
    for array, name in zip(arrays, ("prediction", "target"), strict=True):
        if array.ndim != 3 or array.shape[2] != 3:
            raise ValueError(f"the {name} has shape {array.shape}; expected (samples, points, 3)")
    if arrays[0].shape != arrays[1].shape:
        raise ValueError(
            f"prediction {arrays[0].shape} and target {arrays[1].shape} differ: "
            "give the same samples and the same points, in the same order"
        )
    for array, name in zip(arrays, ("prediction", "target"), strict=True):
        require_finite(array, name)
    return arrays


def require_finite(points: NDArray[np.float64], name: str) -> None:
    """Raises a ValueError naming the first sample of `points` (B, ...) that holds a NaN or an infinity."""
    finite = np.isfinite(points).all(axis=tuple(range(1, points.ndim)))
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise ValueError(
            f"the {name} of sample {bad[0]} is not finite ({len(bad)} of {len(points)} samples hold NaN or infinity)"
        )
