"""Whether the 2D keypoints of a set are in OpenPose order, judged by the lengths of the bones between them.

In an image every bone is foreshortened, but over many hands all are so alike: the medians of their lengths, each as a
share of its hand's size, come out as a hand's own. In another order neighbouring keypoints are far apart. The score is
the mean over bones of |log(median / expected)|. Measured on eleven real sets (FreiHAND, HInt, open images with
MediaPipe's keypoints, and others): with 24 random hands at most 0.23 in the right order, with 21 shuffled points 0.32
or more; no other named order scored below 1.4 times the right one, no swap of two fingers below 1.0 times.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from fasthamer.hand.conventions import INTERHAND_TO_OPENPOSE, MANO_TO_OPENPOSE
from fasthamer.types import N_JOINTS

ENOUGH = 24  # hands that a judgement needs
NO_HAND = 0.3  # a score above this is that of no hand
BETTER = 0.85  # another order that scores less than this times the given one is the right one
_BONES_OF_A_HAND = 12  # with both ends labelled; hands with fewer are not counted
_BONES = np.array(
    [(0 if joint == base else joint - 1, joint) for base in range(1, N_JOINTS, 4) for joint in range(base, base + 4)]
    + [(5, 9), (9, 13), (13, 17)]  # knuckles beside each other, by which fingers are distinguished
)
_MILLIMETRES = np.array(  # means of FreiHAND's and of a measured hand's
    [36, 35, 32, 32, 92, 39, 25, 26, 91, 41, 27, 26, 84, 39, 28, 24, 85, 27, 20, 21, 25, 26, 22], dtype=np.float64
)
_NAMES = ("thumb", "index", "middle", "ring", "little")


def order_problem(keypoints: NDArray[np.float64]) -> str | None:
    """What is wrong with the order of a set's keypoints; None if nothing is, or there are fewer than 24 hands.

    Args:
        keypoints: (N, 21, 3) x, y and confidence; 0 is unknown. Any unit with square pixels, left and right hands.
    """
    score = order_score(keypoints)
    if score is None:
        return None
    scores = {name: order_score(keypoints[:, order]) for name, order in _OTHERS.items()}
    known = {name: other for name, other in scores.items() if other is not None}
    best = min(known, key=known.__getitem__)
    if known[best] < min(NO_HAND, BETTER * score):
        return (
            f"the keypoints seem to be in another order than OpenPose's: {best} (bone lengths deviate by "
            f"{score:.2f} as they are, {known[best]:.2f} in that order)"
        )
    if score > NO_HAND:
        return (
            f"the keypoints seem not to be in OpenPose's order: their bone lengths deviate by {score:.2f} from a "
            f"hand's, at most {NO_HAND} is plausible"
        )
    return None


def order_score(keypoints: NDArray[np.float64]) -> float | None:
    """How far the bone lengths of a set are from a hand's, 0 = not at all; None for fewer than 24 hands.

    Args:
        keypoints: as `order_problem`.
    """
    known = np.all(keypoints[:, _BONES, 2] > 0, axis=2)  # (N, 23)
    counted = known.sum(1) >= _BONES_OF_A_HAND
    ends = keypoints[counted][:, _BONES, :2]  # (M, 23, 2, 2)
    known = known[counted]
    lengths = np.linalg.norm(ends[:, :, 1] - ends[:, :, 0], axis=-1) * known
    extents = lengths.sum(1) / (known * _MILLIMETRES).sum(1)
    lengths, known, extents = lengths[extents > 0], known[extents > 0], extents[extents > 0]
    columns = [number for number in range(len(_BONES)) if known[:, number].sum() >= ENOUGH]
    if len(columns) < _BONES_OF_A_HAND:
        return None
    shares = [np.median((lengths[:, n] / extents)[known[:, n]]) / _MILLIMETRES[n] for n in columns]
    logarithms = np.log(np.maximum(shares, 0.01))
    return float(np.abs(logarithms - np.median(logarithms)).mean())


def _finger(number: int) -> list[int]:
    return list(range(1 + 4 * number, 5 + 4 * number))


def _of_fingers(order: tuple[int, ...]) -> NDArray[np.int64]:
    return np.array([0, *(joint for number in order for joint in _finger(number))])


def _others() -> dict[str, NDArray[np.int64]]:
    """Which of the file's keypoints is each of OpenPose's, for the other orders in use."""
    tips_first = [joint for number in range(5) for joint in reversed(_finger(number))]
    listed = {  # which of OpenPose's keypoints each of the file's is
        "each finger from tip to base (RHD)": [0, *tips_first],
        "each finger from tip to base, the wrist last (InterHand2.6M)": np.argsort(INTERHAND_TO_OPENPOSE).tolist(),
        "the wrist last": [*range(1, N_JOINTS), 0],
        "MANO's, with the tips last": np.argsort(MANO_TO_OPENPOSE).tolist(),
        "the knuckles first, then each finger (HANDS 2017)": [
            *(0, 1, 5, 9, 13, 17),
            *(joint for number in range(5) for joint in _finger(number)[1:]),
        ],
        "all knuckles, then all next joints, the tips last": [
            0,
            *(joint for row in range(4) for joint in range(1 + row, N_JOINTS, 4)),
        ],
        "the thumb last": _of_fingers((1, 2, 3, 4, 0)).tolist(),
        "the little finger first": _of_fingers((4, 3, 2, 1, 0)).tolist(),
    }
    for one, two in combinations(range(5), 2):
        order = list(range(5))
        order[one], order[two] = two, one
        listed[f"{_NAMES[one]} and {_NAMES[two]} finger swapped"] = _of_fingers(tuple(order)).tolist()
    return {name: np.argsort(order) for name, order in listed.items()}


_OTHERS = _others()
