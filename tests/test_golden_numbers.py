"""Numbers that are known of public files, and large sets scored without a loop over samples."""

import json

import numpy as np
import pytest
from counting import counted_calls

from fasthamer.hand.conventions import TIPS
from fasthamer.metrics.alignment import procrustes
from fasthamer.metrics.points import aligned_distances
from fasthamer.metrics.protocols import FINGERTIPS
from fasthamer.metrics.scores import Hands, score
from fasthamer.metrics.submissions import read_annotated, read_truth


@pytest.fixture(scope="module")
def freihand_hands(shared_data):
    folder = shared_data("freihand_mini")
    xyz, verts = (json.loads((folder / f"training_{name}.json").read_text()) for name in ("xyz", "verts"))
    return Hands(np.array(xyz), np.array(verts))


def test_a_real_mesh_mirrored_is_officially_perfect_and_20_mm_off_by_rotations_alone(freihand_hands):
    mesh = freihand_hands.vertices[:1]
    assert 1000 * aligned_distances(mesh * [-1, 1, 1], mesh).mean() < 1e-4
    assert 1000 * aligned_distances(mesh * [-1, 1, 1], mesh, reflection=False).mean() == pytest.approx(20.5, abs=0.05)


@pytest.mark.parametrize(
    ("one", "other", "floor"),
    [
        ("hamer", "freihand", 0.67),
        ("hamer", "ho3d", 0.96),
        ("hamer", "manopth", 1.04),
        ("freihand", "ho3d", 0.53),
        ("manopth", "freihand", 1.44),
    ],
)
def test_another_sets_fingertips_cost_what_was_measured_on_five_real_meshes(freihand_hands, one, other, floor):
    joints = {}
    for name in (one, other):
        joints[name] = freihand_hands.joints.copy()
        joints[name][:, FINGERTIPS] = freihand_hands.vertices[:, list(TIPS[name])]
    assert 1000 * aligned_distances(joints[one], joints[other]).mean() == pytest.approx(floor, abs=0.04)  # three here


def test_real_labels_score_0_against_themselves_24_mm_by_their_mean_and_10_mm_by_an_oracle(shared_data):
    folder = shared_data("realhand")
    truth, training = read_truth(folder), read_truth(folder, "training")
    assert len(truth.joints) == 80
    assert score(truth, truth)["pa_mpjpe_mm"] < 1e-4
    mean_pose = training.joints[0]
    for _ in range(5):  # of aligned hands, which is where it converges
        mean_pose = procrustes(training.joints, np.repeat(mean_pose[None], len(training.joints), 0)).mean(0)
    assert score(Hands(np.repeat(mean_pose[None], 80, 0)), truth)["pa_mpjpe_mm"] == pytest.approx(24.0, abs=0.05)
    best = []
    for joints in truth.joints:
        repeated = np.repeat(joints[None], len(training.joints), 0)
        best.append(aligned_distances(training.joints, repeated).mean(1).min())
    assert 1000 * np.mean(best) == pytest.approx(10.0, abs=0.1)


def test_hamers_list_of_newdays_has_all_its_keypoints_visible_or_occluded(shared_data):
    target = read_annotated(shared_data("hint") / "TEST_newdays_img_all.npz")
    assert target.known.shape == (1753, 21) and target.known.sum() == 34110
    assert target.occluded.sum() == 12527 and (target.known & ~target.occluded).sum() == 21583


def test_the_zero_prediction_aligned_is_the_mean_distance_from_the_middle():
    # How README's golden numbers of FreiHAND (4.73 cm) and HO-3D (5.19 cm) come about: nothing to turn or to scale.
    joints = np.random.default_rng(0).normal(0, 0.05, (30, 21, 3)) + np.array([0, 0, 0.7])
    expected = np.linalg.norm(joints - joints.mean(1, keepdims=True), axis=-1).mean()
    scores = score(Hands(np.zeros_like(joints)), Hands(joints), frame="camera")
    assert scores["pa_mpjpe_mm"] == pytest.approx(1000 * expected)
    assert scores["mpjpe_mm"] == pytest.approx(1000 * np.linalg.norm(joints, axis=-1).mean())


def test_a_test_set_is_scored_with_intervals_without_a_loop_over_its_samples():
    def calls_for(count):
        truth = np.random.default_rng(0).normal(0, 0.05, (count, 21, 3)) + np.array([0, 0, 0.8])
        prediction = truth + np.random.default_rng(1).normal(0, 0.005, truth.shape)
        with counted_calls() as calls:
            scores = score(Hands(prediction), Hands(truth, right=np.arange(count) % 2 > 0), "dexycb", "camera")
        assert (scores["n"], scores["right_n"], len(scores["auc_joints_rel_ci95"])) == (count, count // 2, 2)
        return calls()

    assert calls_for(12_000) - calls_for(6_000) < 4 * 6_000  # one alignment is more


def test_meshes_are_scored_without_a_loop_over_their_points():
    def calls_for(count):
        rng = np.random.default_rng(0)
        mesh = rng.normal(0, 0.03, (count, 778, 3)) + np.array([0, 0, 0.7])
        truth = Hands(mesh[:, :21], mesh)
        prediction = Hands(*(part + rng.normal(0, 0.004, part.shape) for part in truth[:2]))
        with counted_calls() as calls:
            assert 0 < score(prediction, truth, "freihand", "camera")["f5_raw"] < 1
        return calls()

    assert calls_for(60) - calls_for(30) < 30 * 778
