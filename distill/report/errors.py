"""What the charts of a report show: errors by joint, PCK curves, and errors against pose and visibility."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthamer.distill.evaluate import KNOWN, Predicted, Rules
from fasthamer.metrics.alignment import procrustes
from fasthamer.metrics.intervals import interval, resampled_sums, summarise
from fasthamer.metrics.points import AUC_THRESHOLDS, aligned_distances, distances, pck
from fasthamer.types import N_JOINTS

PERCENT_OF_BOX = np.linspace(0.0, 30.0, 61)  # thresholds of 2D errors
BINS = 8  # groups of equally many samples in an error curve
PER_BIN = 5  # samples at least
FLEXION, PALM, VISIBLE = "mean finger flexion, degrees", "palm to camera, degrees", "visible keypoints, share of 21"
FINGERS = np.arange(5, N_JOINTS).reshape(4, 4)  # joints of index to pinky, base to tip
INDEX_KNUCKLE, PINKY_KNUCKLE = 5, 17
_BLOCK = 1024  # meshes aligned at a time


class Errors(NamedTuple):
    """Errors of one model on one dataset. N = samples, T = thresholds."""

    joints: NDArray[np.float64]  # (N, 21) after alignment in 3D, as projected in 2D; NaN without a label
    unit: str  # "mm" or "% of box"
    thresholds: NDArray[np.float64]  # (T,) of the curves, in that unit
    vertices_pck: NDArray[np.float64] | None  # (T,) share of aligned vertices; None where the labels have no meshes
    conditions: dict[str, NDArray[np.float64]]  # (N,) what errors are shown against, by the axis's title

    @property
    def samples(self) -> NDArray[np.float64]:
        """(N,) mean over the labelled joints; NaN where there is none."""
        known = np.isfinite(self.joints)
        total = np.where(known, self.joints, 0.0).sum(1)
        return np.where(known.any(1), total / np.maximum(known.sum(1), 1), np.nan)


class Curve(NamedTuple):
    """Mean errors with their 95 % intervals. K = points."""

    at: NDArray[np.float64]  # (K,)
    mean: NDArray[np.float64]  # (K,)
    low: NDArray[np.float64]  # (K,)
    high: NDArray[np.float64]  # (K,)


def errors_of(predicted: Predicted, rules: Rules, joints: NDArray) -> Errors:
    """The errors that the scores are means of.

    Args:
        predicted: from `fasthamer.distill.evaluate.predict`.
        rules: its protocol.
        joints: (N, 21, 3) metres, predicted, in the protocol's convention.
    """
    complete = np.asarray((predicted.true_joints[..., 3] > 0).all(1))
    conditions = _conditions(predicted, complete)
    if rules.protocol == "hint":
        off = np.linalg.norm(predicted.keypoints - predicted.true_keypoints[..., :2], axis=-1)
        off = 100 * off / predicted.hand_size[:, None]
        known = predicted.true_keypoints[..., 2] > KNOWN
        return Errors(np.where(known, off, np.nan), "% of box", PERCENT_OF_BOX, None, conditions)
    errors = np.full((len(joints), N_JOINTS), np.nan)
    if complete.any():
        errors[complete] = 1000 * aligned_distances(joints[complete], predicted.true_joints[complete, :, :3])
    return Errors(errors, "mm", 1000 * AUC_THRESHOLDS, _vertices_pck(predicted, complete), conditions)


def _conditions(predicted: Predicted, complete: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
    """Poses where the labels have 3D joints, visibility where they mark hidden keypoints."""
    conditions = {}
    if complete.any():
        true = predicted.true_joints[..., :3].astype(np.float64)
        pose = {FLEXION: flexion(true), PALM: palm_angle(true)}
        conditions = {name: np.where(complete, values, np.nan) for name, values in pose.items()}
    visible = (predicted.true_keypoints[..., 2] > KNOWN).mean(1)
    return conditions | ({VISIBLE: visible} if len(np.unique(visible)) > 1 else {})


def _vertices_pck(predicted: Predicted, complete: NDArray[np.bool_]) -> NDArray[np.float64] | None:
    if predicted.true_vertices is None or not complete.any():
        return None
    chosen = np.flatnonzero(complete)
    counts = np.zeros(len(AUC_THRESHOLDS))
    for begin in range(0, len(chosen), _BLOCK):
        some = chosen[begin : begin + _BLOCK]
        true = predicted.true_vertices[some]
        counts += len(some) * pck(distances(procrustes(predicted.vertices[some], true), true))
    return counts / len(chosen)


def joints_pck(errors: Errors) -> NDArray[np.float64]:
    """(T,) the share of errors up to each threshold: the mean over joints, as HInt's protocol defines it."""
    labelled = [column[np.isfinite(column)] for column in errors.joints.T]
    return np.mean([pck(each, errors.thresholds) for each in labelled if len(each)], axis=0)


def area(curve: NDArray[np.float64], thresholds: NDArray[np.float64]) -> float:
    """Under a PCK curve (T,), over the area of a perfect one."""
    return float(((curve[1:] + curve[:-1]) / 2 * np.diff(thresholds)).sum() / (thresholds[-1] - thresholds[0]))


def by_joint(errors: Errors) -> Curve:
    """The mean error of each joint that has labels, `at` its number."""
    known = np.isfinite(errors.joints)
    values = np.where(known, errors.joints, 0.0)
    drawn = resampled_sums(np.concatenate([values, known], axis=1))  # (R, 42)
    with np.errstate(invalid="ignore"):
        means = drawn[:, :N_JOINTS] / drawn[:, N_JOINTS:]
    used = np.flatnonzero(known.any(0))
    low, high = interval(np.where(np.isfinite(means), means, np.nanmean(means))[:, used])
    return Curve(used.astype(float), values[:, used].sum(0) / known[:, used].sum(0), low, high)


def against(errors: Errors, condition: str) -> Curve:
    """The mean error in groups of samples, ordered by a condition; `at` the mean of the condition in the group."""
    values, each = errors.conditions[condition], errors.samples
    usable = np.flatnonzero(np.isfinite(values) & np.isfinite(each))
    order = usable[np.argsort(values[usable], kind="stable")]
    groups = np.array_split(order, max(1, min(BINS, len(order) // PER_BIN)))
    rows = [(float(values[group].mean()), summarise({"error": each[group]})) for group in groups if len(group)]
    return Curve(
        np.array([at for at, _ in rows]),
        np.array([row["error"] for _, row in rows]),
        np.array([row["error_ci95"][0] for _, row in rows]),
        np.array([row["error_ci95"][1] for _, row in rows]),
    )


def flexion(joints: NDArray) -> NDArray[np.float64]:
    """Mean angle between successive bones of the four fingers, from the wrist to the tips.

    Args:
        joints: (N, 21, 3).

    Returns:
        (N,) degrees, 0 for a straight hand.
    """
    chains = np.concatenate([np.broadcast_to(joints[:, :1, None], (len(joints), 4, 1, 3)), joints[:, FINGERS]], axis=2)
    bones = _unit(np.diff(chains, axis=2))  # (N, 4, 4, 3)
    cosines = (bones[:, :, 1:] * bones[:, :, :-1]).sum(-1)
    return np.degrees(np.arccos(np.clip(cosines, -1, 1))).mean((1, 2))


def palm_angle(joints: NDArray) -> NDArray[np.float64]:
    """The angle between the palm's normal and the direction to the camera.

    Args:
        joints: (N, 21, 3) of right hands, x right, y down, z away from the camera.

    Returns:
        (N,) degrees: 0 where the palm faces the camera, 90 from the side, 180 where the back of the hand does.
    """
    index, pinky = (joints[:, knuckle] - joints[:, 0] for knuckle in (INDEX_KNUCKLE, PINKY_KNUCKLE))
    normal = _unit(np.cross(index, pinky))
    return np.degrees(np.arccos(np.clip(-normal[:, 2], -1, 1)))


def _unit(vectors: NDArray) -> NDArray[np.float64]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
