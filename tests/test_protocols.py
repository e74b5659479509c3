"""Scores, joint conventions and intervals; pred.json in and out. The official scripts: test_official_scores.py."""

import json
import warnings

import numpy as np
import pytest

from fasthamer.files.number_lists import read_number_lists
from fasthamer.hand.conventions import MANO_TO_OPENPOSE, TIPS
from fasthamer.metrics.intervals import summarise
from fasthamer.metrics.protocols import protocol_joints
from fasthamer.metrics.scores import Hands, per_sample, score
from fasthamer.metrics.submissions import read_predictions, read_truth, write_predictions


def some_hands(count=6, seed=0):
    rng = np.random.default_rng(seed)
    joints = rng.normal(0, 0.05, (count, 21, 3)) + np.array([0.0, 0.0, 0.7])
    return Hands(joints, rng.normal(0, 0.03, (count, 778, 3)) + np.array([0.0, 0.0, 0.7]))


def perturbed(hands, noise=0.006, seed=1):
    rng = np.random.default_rng(seed)
    return Hands(*(part + rng.normal(0, noise, part.shape) for part in hands[:2]))


def test_root_relative_scores_ignore_position_but_not_size():
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


def test_scores_that_the_data_do_not_allow_are_absent():
    scores = score(perturbed(some_hands()), Hands(some_hands().joints))
    assert {"pa_mpjpe_mm", "pa_mpjpe_mm_ci95", "mpjpe_rel_mm", "auc_joints", "n", "protocol", "frame"} <= set(scores)
    assert not [key for key in scores if "mpvpe" in key or "vertices" in key or key.startswith(("f5", "f15"))]


def test_scores_are_plain_json_numbers():
    scores = score(perturbed(some_hands()), some_hands())
    assert json.loads(json.dumps(scores)) == scores


def test_the_confidence_interval_contains_the_mean_and_is_reproducible():
    values = {"a": np.random.default_rng(0).normal(10, 2, 400), "b": np.full(400, 3.0)}
    first, second = summarise(values), summarise(values)
    assert first == second
    low, high = first["a_ci95"]
    assert low < first["a"] < high
    assert high - low == pytest.approx(2 * 1.96 * values["a"].std() / 20, rel=0.1)  # the normal approximation
    assert first["b_ci95"] == pytest.approx([3.0, 3.0])


def test_a_mirrored_hand_is_scored_with_a_warning():
    target = some_hands()
    mirrored = Hands(*(part * np.array([-1, 1, 1]) for part in target[:2]))
    with pytest.warns(UserWarning, match="6 of 6 hands fit better mirrored"):
        assert score(mirrored, target)["pa_mpjpe_mm"] < 1e-3


def test_an_ordinary_hand_causes_no_warning():
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


def test_conventions_that_cannot_be_applied_are_errors():
    hands = some_hands(1)
    with pytest.raises(ValueError, match="did you mean 'freihand'"):
        protocol_joints(hands.joints, hands.vertices, "freihnd")
    with pytest.raises(ValueError, match="joint regressor"):
        protocol_joints(hands.joints, hands.vertices, "freihand")


def test_predictions_are_read_back_from_the_official_file(tmp_path):
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
        ("{not json", "damaged, or no JSON"),
        ("[1, 2, 3]", "two lists"),
        (json.dumps([np.zeros((2, 21, 3)).tolist(), []]), "2 samples, expected 3"),
        (json.dumps([np.zeros((3, 20, 3)).tolist(), []]), r"sample 0 has shape \(20, 3\)"),
        (json.dumps([[*np.zeros((2, 21, 3)).tolist(), "x"], []]), "sample 2 is not a table"),
        (json.dumps([np.full((3, 21, 3), np.nan).tolist(), []]), "sample 0 is not finite"),
        (json.dumps([np.zeros((3, 21, 3)).tolist(), np.zeros((2, 778, 3)).tolist()]), "vertices: 2 samples"),
    ],
)
def test_errors_of_malformed_prediction_files_name_the_problem(tmp_path, content, message):
    (tmp_path / "pred.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_predictions(tmp_path / "pred.json", expected=3)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"pred\.json"):
        read_predictions(tmp_path / "pred.json")
    with pytest.raises(FileNotFoundError, match="evaluation_xyz"):
        read_truth(tmp_path)


def test_large_lists_are_read_exactly_and_anything_else_is_left_to_json(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "points.json"
    one, two = rng.normal(0, 1e-3, (3, 2, 3)), rng.normal(0, 1e3, (3, 4, 3))
    path.write_text(json.dumps([one.tolist(), two.tolist()], indent=1))
    found = read_number_lists(path, (2, 3), (4, 3))
    np.testing.assert_array_equal(found[0], one)  # every bit
    np.testing.assert_array_equal(found[1], two)
    path.write_text(json.dumps(one.tolist()))
    np.testing.assert_array_equal(read_number_lists(path, (2, 3))[0], one)
    text = path.read_text()
    number = text[3 : text.index(",")]
    others = [text[:-1], text.replace(number, "1 2"), text.replace(number, "NaN"), text.replace(number, ""), "[]", ""]
    others += [text.replace(number, f'"{number}"'), text.replace("], [", ", ", 1), json.dumps([one.tolist()])]
    for other in others:
        path.write_text(other)
        assert read_number_lists(path, (2, 3)) is None, other
    path.write_text(json.dumps([one.tolist(), two[:2].tolist()]))
    assert read_number_lists(path, (2, 3), (4, 3)) is None


def test_scores_do_not_depend_on_the_blocks():
    target = some_hands(600)
    target = Hands(target.joints)
    prediction = Hands(perturbed(some_hands(600)).joints)
    whole = per_sample(prediction, target)
    for sample in (0, 255, 256, 599):
        one = slice(sample, sample + 1)
        alone = per_sample(Hands(prediction.joints[one]), Hands(target.joints[one]))
        for key, values in whole.items():
            assert values[sample] == pytest.approx(alone[key][0], abs=1e-9), key
