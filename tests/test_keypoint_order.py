"""Whether the 2D keypoints of a set are in OpenPose order, without depth."""

import json

import numpy as np
import pytest

from fasthamer.data.keypoint_order import BETTER, ENOUGH, NO_HAND, order_problem, order_score
from fasthamer.data.synthetic.dataset import SyntheticDataset

TIPS_FIRST = [joint for base in range(1, 21, 4) for joint in range(base + 3, base - 1, -1)]
ORDERS = {
    "from tip to base .RHD.": [0, *TIPS_FIRST],
    "from tip to base, the wrist last": [*TIPS_FIRST, 0],
    "the wrist last": [*range(1, 21), 0],
    "the little finger first": [
        0,
        *(17, 18, 19, 20),
        *(13, 14, 15, 16),
        *(9, 10, 11, 12),
        *(5, 6, 7, 8),
        *(1, 2, 3, 4),
    ],
    "the thumb last": [0, *range(5, 21), *range(1, 5)],
    "MANO's": [0, 5, 6, 7, 9, 10, 11, 17, 18, 19, 13, 14, 15, 1, 2, 3, 4, 8, 12, 16, 20],
    "HANDS 2017": [0, 1, 5, 9, 13, 17, *(2, 3, 4), *(6, 7, 8), *(10, 11, 12), *(14, 15, 16), *(18, 19, 20)],
    "all knuckles": [0, *(joint for row in range(1, 5) for joint in range(row, 21, 4))],
    "ring and little finger swapped": [*range(13), 17, 18, 19, 20, 13, 14, 15, 16],
}


@pytest.fixture(scope="module")
def keypoints(embedded):
    """(60, 21, 3) of posed hands seen from all sides; every third hand is mirrored."""
    dataset = SyntheticDataset(embedded, 60, 64)
    joints = np.array([dataset.hand(index).joints for index in range(60)], np.float64)
    points = 1000 * joints[..., :2] / joints[..., 2:]
    points[::3, :, 0] *= -1
    return np.concatenate([points, np.ones((60, 21, 1))], axis=2)


def check_all_orders(keypoints):
    assert order_problem(keypoints) is None
    for name, order in ORDERS.items():
        problem = order_problem(keypoints[:, order])
        assert problem is not None and name.replace(" .", " (").replace(".", ")") in problem, (name, problem)


def test_the_right_order_passes_and_other_orders_in_use_are_named(keypoints):
    check_all_orders(keypoints)


def test_a_shuffled_order_is_found(keypoints):
    rng = np.random.default_rng(0)
    for _ in range(30):
        assert order_problem(keypoints[:, rng.permutation(21)]) is not None
    shuffled = keypoints[:, np.random.default_rng(1).permutation(21)]
    assert "not to be in OpenPose's order" in order_problem(shuffled)


def test_the_score_does_not_depend_on_scale_side_or_turn(keypoints):
    score = order_score(keypoints)
    turned = keypoints.copy()
    turned[..., :2] = turned[..., :2] @ np.array([[0.0, -3.0], [3.0, 0.0]]) + 7
    assert order_score(turned) == pytest.approx(score)
    assert order_score(keypoints * [-1, 1, 1]) == pytest.approx(score)


def test_few_hands_and_unknown_keypoints_are_not_judged(keypoints):
    shuffled = keypoints[:, ::-1]
    assert order_problem(shuffled[: ENOUGH - 1]) is None and order_problem(shuffled[:ENOUGH]) is not None
    hidden = shuffled.copy()
    hidden[:, 8:, 2] = 0
    assert order_score(hidden) is None and order_problem(hidden) is None
    assert order_problem(np.zeros((60, 21, 3))) is None and order_problem(np.ones((60, 21, 3))) is None
    assert order_problem(np.zeros((0, 21, 3))) is None
    some = keypoints.copy()
    some[np.random.default_rng(1).random((60, 21)) < 0.2] = [1e6, -1e6, 0]  # what stands there does not matter
    assert order_problem(some) is None


def real_sets(shared_data):
    for part in ("training", "evaluation"):
        folder = shared_data("realhand")
        joints = np.array(json.loads((folder / f"{part}_xyz.json").read_text()))
        pixels = joints @ np.array(json.loads((folder / f"{part}_K.json").read_text())).transpose(0, 2, 1)
        yield np.concatenate([pixels[..., :2] / pixels[..., 2:], np.ones((len(joints), 21, 1))], axis=2)
    for kind in ("all", "vis"):
        with np.load(shared_data("hint") / f"TEST_newdays_img_{kind}.npz") as stored:
            yield stored["hand_keypoints_2d"].astype(np.float64)
    found = json.loads((shared_data("openhands") / "mediapipe.json").read_text())
    by_set = {}
    for name, hands in found.items():
        by_set.setdefault(name.split("/")[0], []).extend(hand["keypoints_2d"] for hand in hands)
    for points in by_set.values():
        yield np.concatenate([np.array(points), np.ones((len(points), 21, 1))], axis=2)


def test_real_sets_pass_in_their_order_and_are_caught_in_others(shared_data):
    rng = np.random.default_rng(0)
    sets = list(real_sets(shared_data))
    assert len(sets) == 9
    for keypoints in sets:
        check_all_orders(keypoints)
        assert order_score(keypoints) < NO_HAND / 1.9
        for _ in range(5):
            some = keypoints[rng.choice(len(keypoints), min(len(keypoints), 300), replace=False)]
            assert order_problem(some) is None
            assert order_problem(some[:, rng.permutation(21)]) is not None
            assert order_score(some) < BETTER * order_score(some[:, [0, *TIPS_FIRST]])
