"""Alignment, point errors and F-scores against per-sample code in the form of the official evaluations."""

import numpy as np
import pytest
from counting import counted_calls
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.transform import Rotation

from fasthamer.metrics.alignment import fit, procrustes
from fasthamer.metrics.points import AUC_THRESHOLDS, aligned_distances, auc, distances, f_scores, nearest_distances, pck


def official(pred, gt):
    """FreiHAND's align_w_scale, described in its evaluation code, for one sample."""
    gt_mean, pred_mean = gt.mean(0), pred.mean(0)
    gt0, pred0 = gt - gt_mean, pred - pred_mean
    s1, s2 = np.linalg.norm(gt0) + 1e-8, np.linalg.norm(pred0) + 1e-8
    rotation, scale = orthogonal_procrustes(gt0 / s1, pred0 / s2)
    return pred0 / s2 @ rotation.T * scale * s1 + gt_mean


def hands(count=40, points=21, seed=0):
    return np.random.default_rng(seed).normal(0, 0.05, (count, points, 3)) + np.array([0.02, -0.05, 0.7])


def moved(points, seed, noise=0.0, mirror=False):
    """Each sample turned, scaled, shifted, perturbed, and mirrored on demand."""
    rng = np.random.default_rng(seed)
    turns = Rotation.random(len(points), random_state=seed).as_matrix()
    scales = rng.uniform(0.2, 5, (len(points), 1, 1))
    result = points @ turns.transpose(0, 2, 1) * scales + rng.normal(size=(len(points), 1, 3))
    result = result + rng.normal(0, 1, points.shape) * noise * scales
    return result * [-1, 1, 1] if mirror else result


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("noise", [0.0, 0.003, 0.05, 1.0])
@pytest.mark.parametrize("points", [21, 778])
def test_alignment_equals_the_official_code(points, noise, mirror):
    gt = hands(points=points)
    pred = moved(gt, 1, noise, mirror)
    expected = np.stack([official(p, g) for p, g in zip(pred, gt, strict=True)])
    np.testing.assert_allclose(procrustes(pred, gt), expected, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 0.2), st.booleans(), st.integers(3, 30))
def test_alignment_equals_the_official_code_on_any_hand(seed, noise, mirror, points):
    gt = hands(2, points, seed)
    pred = moved(gt, seed + 1, noise, mirror)
    expected = np.stack([official(p, g) for p, g in zip(pred, gt, strict=True)])
    np.testing.assert_allclose(procrustes(pred, gt), expected, atol=1e-9)


def test_predictions_shrunk_to_a_point_or_a_line_align_as_the_official_code_does():
    gt = hands(3)
    pred = np.zeros_like(gt)
    pred[1] = [0.1, 0.2, 0.3]
    pred[2] = np.linspace(0, 1, 21)[:, None] * [0.01, 0.03, -0.02]
    expected = np.stack([official(p, g) for p, g in zip(pred, gt, strict=True)])
    np.testing.assert_allclose(procrustes(pred, gt), expected, atol=1e-9)
    np.testing.assert_allclose(procrustes(pred, gt)[:2], np.repeat(gt[:2].mean(1, keepdims=True), 21, 1), atol=1e-9)


def test_a_mirrored_hand_has_no_official_error_but_a_rigid_one():
    gt = hands(5)
    mirrored = gt * [-1, 1, 1]
    assert aligned_distances(mirrored, gt).max() < 1e-7
    assert aligned_distances(mirrored, gt, reflection=False).mean() > 0.005
    assert (np.linalg.det(fit(mirrored, gt, reflection=False).rotation) > 0.999).all()


def test_rigid_alignment_recovers_a_known_similarity():
    gt = hands(6)
    turn = Rotation.from_euler("xyz", [20, -50, 130], degrees=True).as_matrix()
    pred = (gt - [0.1, 0.2, 0.3]) @ turn / 2.5  # so that gt = 2.5 * turn @ pred + shift
    found = fit(pred, gt, reflection=False)
    np.testing.assert_allclose(found.scale, 2.5, atol=1e-5)  # the official 1e-8 in the norms costs 1e-7
    np.testing.assert_allclose(found.rotation, np.broadcast_to(turn, (6, 3, 3)), atol=1e-9)


def test_rigid_alignment_is_the_best_rotation_and_scale():
    gt, pred = hands(8), hands(8, seed=1) * [-1, 1, 1]
    best = (aligned_distances(pred, gt, reflection=False) ** 2).sum(1)
    found = fit(pred, gt, reflection=False)
    centred, middle = pred - pred.mean(1, keepdims=True), gt.mean(1, keepdims=True)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        nudge = Rotation.from_rotvec(rng.normal(0, 0.02, 3)).as_matrix()
        scale = found.scale * rng.normal(1, 0.02)
        other = centred @ (found.rotation @ nudge).transpose(0, 2, 1) * scale[:, None, None] + middle
        assert (((other - gt) ** 2).sum((1, 2)) >= best - 1e-12).all()


def test_a_nan_is_named_by_its_sample():
    gt = hands(4)
    pred = gt.copy()
    pred[2, 7, 1] = np.nan
    with pytest.raises(ValueError, match=r"prediction of sample 2 is not finite \(1 of 4"):
        procrustes(pred, gt)


@pytest.mark.parametrize("shape", [(4, 20, 3), (3, 21, 3), (4, 21, 2), (21, 3)])
def test_shapes_that_do_not_match_are_an_error(shape):
    with pytest.raises(ValueError, match=r"shape|differ"):
        procrustes(np.zeros(shape), hands(4))


def test_distances_by_hand():
    gt = np.zeros((1, 2, 3))
    pred = np.array([[[3.0, 4.0, 0.0], [0.0, 0.0, 2.0]]])  # 3-4-5 triangle; 2 along z
    np.testing.assert_array_equal(distances(pred, gt), [[5.0, 2.0]])


def test_auc_by_hand():
    # Thresholds 0, 1, 2. Error 0: area of 1, 1, 1 = 2. Error 0.5: 0, 1, 1 = 1.5. Error 2: 0, 0, 1 = 0.5. Error 3: 0.
    errors = np.array([[0.0], [0.5], [2.0], [3.0]])
    np.testing.assert_allclose(auc(errors, np.array([0.0, 1.0, 2.0])), [1.0, 0.75, 0.25, 0.0])


def test_auc_equals_the_trapezoid_under_each_keypoints_curve():
    errors = np.abs(np.random.default_rng(0).normal(0, 0.02, (200, 21)))
    errors[0, 0], errors[1, 1] = AUC_THRESHOLDS[7], 0.05  # exactly on a threshold counts: the official code has <=
    gaps = np.diff(AUC_THRESHOLDS)
    areas = []
    for joint in range(21):
        curve = np.array([(errors[:, joint] <= t).mean() for t in AUC_THRESHOLDS])
        areas.append(((curve[1:] + curve[:-1]) / 2 * gaps).sum() / gaps.sum())
    np.testing.assert_allclose(auc(errors).mean(), np.mean(areas), atol=1e-12)
    np.testing.assert_allclose(pck(errors), [(errors <= t).mean() for t in AUC_THRESHOLDS])


def test_f_score_by_hand():
    # Two of three predicted points are within 5 mm of the truth (p = 2/3); one of two true points is hit (r = 1/2).
    gt = np.array([[[0.0, 0, 0], [1.0, 0, 0]]])
    pred = np.array([[[0.001, 0, 0], [0.0, 0.004, 0], [0.0, 0.012, 0]]])
    at_5 = 2 * (2 / 3) * (1 / 2) / (2 / 3 + 1 / 2)
    at_15 = 2 * 1 * (1 / 2) / (1 + 1 / 2)
    np.testing.assert_allclose(f_scores(pred, gt), [[at_5, at_15]])


def test_a_point_exactly_at_the_threshold_does_not_count():
    # 0.25 is exact in binary. One surface is hit wholly; of the other, half at 0.25 and all at 0.26: F = 2/3 and 1.
    one, two = np.zeros((1, 1, 3)), np.array([[[0.25, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    np.testing.assert_allclose(f_scores(two, one, (0.25, 0.26)), [[2 / 3, 1.0]])
    np.testing.assert_allclose(f_scores(one, two, (0.25, 0.26)), [[2 / 3, 1.0]])


def test_far_surfaces_score_zero_not_nan():
    gt = hands(2)
    np.testing.assert_array_equal(f_scores(gt + 1, gt), np.zeros((2, 2)))


def test_nearest_distances_equal_brute_force():
    a, b = hands(1, 200)[0], hands(1, 150, seed=3)[0]
    brute = np.linalg.norm(a[:, None] - b[None], axis=-1).min(1)
    np.testing.assert_allclose(nearest_distances(a, b), brute, atol=1e-12)
    assert np.isinf(nearest_distances(a, b, bound=brute.min() / 2)).all()


def test_f_scores_name_a_broken_sample_and_a_missing_one():
    gt = hands(3, 10)
    pred = gt.copy()
    pred[1] = np.inf
    with pytest.raises(ValueError, match="sample 1"):
        f_scores(pred, gt)
    with pytest.raises(ValueError, match="2 predicted and 3 true"):
        f_scores(gt[:2], gt)


def test_f_scores_of_meshes_use_no_python_loop_over_points():
    gt = hands(100, 778)
    pred = gt + np.random.default_rng(1).normal(0, 0.004, gt.shape)
    with counted_calls() as calls:
        f_scores(pred, gt)
    assert 100 < calls() < 100 * 778 / 2
