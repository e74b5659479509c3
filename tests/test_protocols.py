"""The FreiHAND protocol against a slow, per-sample rewrite of the official script; pred.json in and out."""

import json
import warnings

import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.linalg import orthogonal_procrustes

from fasthamer.hand.conventions import MANO_TO_OPENPOSE, TIPS
from fasthamer.metrics.intervals import summarise
from fasthamer.metrics.predictions import read_predictions, read_truth, write_predictions
from fasthamer.metrics.protocols import protocol_joints
from fasthamer.metrics.scores import Hands, per_sample, score


def some_hands(count=6, seed=0):
    rng = np.random.default_rng(seed)
    joints = rng.normal(0, 0.05, (count, 21, 3)) + np.array([0.0, 0.0, 0.7])
    return Hands(joints, rng.normal(0, 0.03, (count, 778, 3)) + np.array([0.0, 0.0, 0.7]))


def perturbed(hands, noise=0.006, seed=1):
    rng = np.random.default_rng(seed)
    return Hands(*(part + rng.normal(0, noise, part.shape) for part in hands[:2]))


def official_scores(prediction, target):
    """xyz/mesh mean and AUC per keypoint then over keypoints, F-scores by brute force; metres."""

    def align(pred, gt):
        t1, t2 = gt.mean(0), pred.mean(0)
        s1, s2 = np.linalg.norm(gt - t1) + 1e-8, np.linalg.norm(pred - t2) + 1e-8
        r, s = orthogonal_procrustes((gt - t1) / s1, (pred - t2) / s2)
        return (pred - t2) / s2 @ r.T * s * s1 + t1

    def f_score(pred, gt, threshold):
        pairs = np.linalg.norm(gt[:, None] - pred[None], axis=-1)
        recall, precision = (pairs.min(1) < threshold).mean(), (pairs.min(0) < threshold).mean()
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    thresholds = np.linspace(0.0, 0.05, 100)
    scores = {}
    for name, preds, gts in (("xyz", prediction.joints, target.joints), ("mesh", prediction.vertices, target.vertices)):
        aligned = np.stack([align(p, g) for p, g in zip(preds, gts, strict=True)])
        for kind, points in (("", preds), ("_al", aligned)):
            errors = np.linalg.norm(points - gts, axis=-1)
            means, areas = [], []
            for k in range(errors.shape[1]):
                curve = (errors[:, k, None] <= thresholds).mean(0)
                areas.append(trapezoid(curve, thresholds) / trapezoid(np.ones(100), thresholds))
                means.append(errors[:, k].mean())
            scores[f"{name}{kind}_mean3d"], scores[f"{name}{kind}_auc3d"] = np.mean(means), np.mean(areas)
    for mm in (5, 15):
        for kind, points in (("", preds), ("_al", aligned)):
            scores[f"f{kind}_score_{mm}"] = np.mean(
                [f_score(p, g, mm / 1000) for p, g in zip(points, gts, strict=True)]
            )
    return scores


@pytest.mark.parametrize("offset", [0.0, 0.01])
def test_scores_equal_the_official_evaluation(offset):
    target = some_hands()
    prediction = Hands(*(part * 1.1 + offset for part in perturbed(target)[:2]))
    ours, theirs = score(prediction, target, frame="camera"), official_scores(prediction, target)
    pairs = {
        "pa_mpjpe_mm": 1000 * theirs["xyz_al_mean3d"],
        "pa_mpvpe_mm": 1000 * theirs["mesh_al_mean3d"],
        "mpjpe_mm": 1000 * theirs["xyz_mean3d"],
        "mpvpe_mm": 1000 * theirs["mesh_mean3d"],
        "auc_joints": theirs["xyz_al_auc3d"],
        "auc_vertices": theirs["mesh_al_auc3d"],
        "f5": theirs["f_al_score_5"],
        "f15": theirs["f_al_score_15"],
        "f5_raw": theirs["f_score_5"],
        "f15_raw": theirs["f_score_15"],
    }
    for key, value in pairs.items():
        assert ours[key] == pytest.approx(value, abs=1e-9), key
    assert 0 < ours["f5"] < 1  # the comparison is not of zeros


def test_root_relative_scores_forget_where_the_hand_is_but_not_its_size():
    target = some_hands()
    shifted = Hands(target.joints + 0.3, target.vertices + 0.3)
    scores = score(shifted, target)
    assert scores["mpjpe_rel_mm"] == pytest.approx(0, abs=1e-9)
    assert scores["mpvpe_rel_mm"] == pytest.approx(0, abs=1e-9)
    assert scores["f5_raw"] == 1
    assert "mpjpe_mm" not in scores
    root = target.joints[:, :1]
    grown = Hands((target.joints - root) * 1.1 + root, (target.vertices - root) * 1.1 + root)
    expected = 100 * np.linalg.norm(target.joints - root, axis=-1).mean()  # 10 % of the distance to the wrist, in mm
    assert score(grown, target)["mpjpe_rel_mm"] == pytest.approx(expected)


def test_what_the_data_cannot_give_is_absent():
    scores = score(perturbed(some_hands()), Hands(some_hands().joints))
    assert {"pa_mpjpe_mm", "pa_mpjpe_mm_ci95", "mpjpe_rel_mm", "auc_joints", "n", "protocol", "frame"} <= set(scores)
    assert not [key for key in scores if "mpvpe" in key or "vertices" in key or key.startswith(("f5", "f15"))]


def test_scores_are_plain_json_numbers():
    scores = score(perturbed(some_hands()), some_hands())
    assert json.loads(json.dumps(scores)) == scores


def test_the_confidence_interval_holds_the_mean_and_repeats():
    values = {"a": np.random.default_rng(0).normal(10, 2, 400), "b": np.full(400, 3.0)}
    first, second = summarise(values), summarise(values)
    assert first == second
    low, high = first["a_ci95"]
    assert low < first["a"] < high
    assert high - low == pytest.approx(2 * 1.96 * values["a"].std() / 20, rel=0.1)  # the normal approximation
    assert first["b_ci95"] == pytest.approx([3.0, 3.0])


def test_a_mirrored_hand_is_scored_but_announced():
    target = some_hands()
    mirrored = Hands(*(part * np.array([-1, 1, 1]) for part in target[:2]))
    with pytest.warns(UserWarning, match="6 of 6 hands fit better mirrored"):
        assert score(mirrored, target)["pa_mpjpe_mm"] < 1e-3


def test_an_ordinary_hand_raises_no_alarm():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score(perturbed(some_hands()), some_hands())


def test_a_broken_prediction_is_named():
    target = some_hands()
    broken = perturbed(target)
    broken.joints[3, 0] = np.nan
    with pytest.raises(ValueError, match="sample 3"):
        score(broken, target)
    with pytest.raises(KeyError, match="did you mean 'freihand'"):
        per_sample(target, target, "frehand")
    with pytest.raises(ValueError, match="no frame named"):
        per_sample(target, target, frame="world")
    with pytest.raises(ValueError, match="no sample"):
        score(Hands(np.zeros((0, 21, 3))), Hands(np.zeros((0, 21, 3))))
    with pytest.raises(ValueError, match="777"):
        score(Hands(target.joints, target.vertices[:, 1:]), Hands(target.joints, target.vertices[:, 1:]))
    with pytest.raises(ValueError, match="20 joints"):
        score(Hands(target.joints[:, 1:]), Hands(target.joints[:, 1:]))


def test_freihand_joints_are_regressed_from_the_posed_mesh_with_its_own_tips():
    hands = some_hands(2)
    regressor = np.random.default_rng(3).dirichlet(np.ones(778), 16)
    joints = protocol_joints(hands.joints, hands.vertices, "freihand", regressor)
    inner = np.einsum("jv,nvc->njc", regressor, hands.vertices)
    expected = np.concatenate([inner, hands.vertices[:, [744, 320, 443, 555, 672]]], 1)[:, list(MANO_TO_OPENPOSE)]
    np.testing.assert_allclose(joints, expected)
    np.testing.assert_array_equal(joints[:, 20], hands.vertices[:, 672])  # the pinky's tip


def test_other_conventions_replace_the_tips_only():
    hands = some_hands(2)
    assert protocol_joints(hands.joints, hands.vertices, "hamer") is not None
    np.testing.assert_array_equal(protocol_joints(hands.joints, hands.vertices, "hamer"), hands.joints)
    moved = protocol_joints(hands.joints, hands.vertices, "ho3d")
    np.testing.assert_array_equal(moved[:, [4, 8, 12, 16, 20]], hands.vertices[:, list(TIPS["ho3d"])])
    kept = [j for j in range(21) if j not in (4, 8, 12, 16, 20)]
    np.testing.assert_array_equal(moved[:, kept], hands.joints[:, kept])


def test_a_convention_that_cannot_be_followed_says_so():
    hands = some_hands(1)
    with pytest.raises(ValueError, match="did you mean 'freihand'"):
        protocol_joints(hands.joints, hands.vertices, "freihnd")
    with pytest.raises(ValueError, match="joint regressor"):
        protocol_joints(hands.joints, hands.vertices, "freihand")


def test_predictions_survive_the_official_file(tmp_path):
    hands = some_hands(3)
    write_predictions(tmp_path / "pred.json", hands)
    back = read_predictions(tmp_path / "pred.json", expected=3)
    np.testing.assert_allclose(back.joints, hands.joints, atol=5.1e-7)
    np.testing.assert_allclose(back.vertices, hands.vertices, atol=5.1e-7)


def test_a_mesh_of_another_topology_is_scored_by_its_joints(tmp_path):
    (tmp_path / "pred.json").write_text(json.dumps([np.zeros((2, 21, 3)).tolist(), np.zeros((2, 5, 3)).tolist()]))
    assert read_predictions(tmp_path / "pred.json").vertices is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{not json", "is not JSON"),
        ("[1, 2, 3]", "two lists"),
        (json.dumps([np.zeros((2, 21, 3)).tolist(), []]), "2 samples, expected 3"),
        (json.dumps([np.zeros((3, 20, 3)).tolist(), []]), r"sample 0 has shape \(20, 3\)"),
        (json.dumps([[*np.zeros((2, 21, 3)).tolist(), "x"], []]), "sample 2 is not a table"),
        (json.dumps([np.full((3, 21, 3), np.nan).tolist(), []]), "sample 0 is not finite"),
        (json.dumps([np.zeros((3, 21, 3)).tolist(), np.zeros((2, 778, 3)).tolist()]), "vertices: 2 samples"),
    ],
)
def test_a_malformed_prediction_file_says_what_is_wrong(tmp_path, content, message):
    (tmp_path / "pred.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_predictions(tmp_path / "pred.json", expected=3)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"pred\.json"):
        read_predictions(tmp_path / "pred.json")
    with pytest.raises(FileNotFoundError, match="evaluation_xyz"):
        read_truth(tmp_path)


def test_real_labels_score_zero_against_themselves_and_24_mm_against_their_mean(shared_data):
    folder = shared_data("realhand")
    truth, training = read_truth(folder), read_truth(folder, "training")
    assert len(truth.joints) == 80
    assert score(truth, truth)["pa_mpjpe_mm"] < 1e-4
    mean_pose = (training.joints - training.joints[:, :1]).mean(0, keepdims=True)
    result = score(Hands(np.repeat(mean_pose, 80, 0)), truth)
    assert 22 < result["pa_mpjpe_mm"] < 26  # measured when the set was made: 24.0
