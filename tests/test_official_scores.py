"""Scores of every protocol against slow rewrites of the official scripts, on ordinary and degenerate hands."""

import numpy as np
import pytest
from official_reference import (
    MANO_FROM_OPENPOSE,
    OPENGL,
    align_rigidly,
    align_sc_tr,
    align_w_scale,
    dexycb,
    kp_avg_pck,
    meshes_and_joints,
)
from scipy.spatial.transform import Rotation

from fasthamer.metrics.alignment import procrustes, scale_translation
from fasthamer.metrics.pck import Annotated, score_pck
from fasthamer.metrics.protocols import PROTOCOLS, from_official, protocol, to_official
from fasthamer.metrics.scores import Hands, score

pytestmark = pytest.mark.filterwarnings("ignore:PA-MPJPE is")  # some of the hands are mirrored

CLOSE = {"rel": 1e-9, "abs": 1e-9}


def true_hands(count=12, seed=0):
    rng = np.random.default_rng(seed)
    middle = np.array([0.02, -0.05, 0.7])
    return Hands(rng.normal(0, 0.04, (count, 21, 3)) + middle, rng.normal(0, 0.03, (count, 778, 3)) + middle)


def predicted(target, seed=1):
    """Noisy hands, some of them degenerate."""
    rng = np.random.default_rng(seed)
    parts = []
    for points in target[:2]:
        noisy = points + rng.normal(0, 0.004, points.shape)
        noisy[0] *= [-1, 1, 1]  # mirrored
        noisy[1] = 3.5 * noisy[1] - 2  # scaled and far away
        noisy[2] = 0  # all points at the camera
        noisy[3] = [0.1, 0.2, 0.3]  # all points at another position
        noisy[4] = np.linspace(-1, 1, len(points[4]))[:, None] * [0.05, -0.02, 0.1]  # collinear
        noisy[5, :, 2] = 0.6  # flat
        noisy[6] = noisy[6] @ Rotation.from_rotvec([0.3, 2.0, -1.0]).as_matrix()
        noisy[7] = 1e-7 * noisy[7]  # tiny
        parts.append(noisy)
    return Hands(*parts)


@pytest.fixture(scope="module")
def hands():
    target = true_hands()
    return predicted(target), target


@pytest.mark.parametrize("name", ["freihand", "ho3d"])
def test_scores_equal_the_official_evaluation_of_joints_and_meshes(hands, name):
    prediction, target = hands
    files = [prediction.joints, prediction.vertices, target.joints, target.vertices]
    if name == "ho3d":  # as in its files: MANO's order, OpenGL's axes
        files = [(part[:, MANO_FROM_OPENPOSE] if part.shape[1] == 21 else part) * OPENGL for part in files]
    theirs = meshes_and_joints(*files, scale_translation=name == "ho3d")
    ours = score(prediction, target, name, frame="camera")
    pairs = {
        "mpjpe_mm": 1000 * theirs["xyz_mean3d"],
        "auc_joints_raw": theirs["xyz_auc3d"],
        "pa_mpjpe_mm": 1000 * theirs["xyz_al_mean3d"],
        "auc_joints": theirs["xyz_al_auc3d"],
        "mpvpe_mm": 1000 * theirs["mesh_mean3d"],
        "auc_vertices_raw": theirs["mesh_auc3d"],
        "pa_mpvpe_mm": 1000 * theirs["mesh_al_mean3d"],
        "auc_vertices": theirs["mesh_al_auc3d"],
        "f5": theirs["f_al_score_5"],
        "f15": theirs["f_al_score_15"],
        "f5_raw": theirs["f_score_5"],
        "f15_raw": theirs["f_score_15"],
    }
    if name == "ho3d":
        pairs |= {"mpjpe_st_mm": 1000 * theirs["xyz_st_mean3d"], "auc_joints_st": theirs["xyz_st_auc3d"]}
    for key, value in pairs.items():
        assert ours[key] == pytest.approx(value, **CLOSE), key
    assert 0 < ours["f5"] < ours["f15"] < 1 and 0 < ours["auc_joints"] < 1  # the comparison is not of zeros
    assert ("mpjpe_st_mm" in ours) == (name == "ho3d")


def test_scores_equal_the_official_evaluation_of_dexycb(hands):
    prediction, target = hands
    ids = range(100, 100 + len(target.joints))
    theirs = dexycb(
        dict(zip(ids, 1000 * prediction.joints, strict=True)),
        {**dict(zip(ids, 1000 * target.joints, strict=True)), 7: np.full((21, 3), -1000.0)},
    )
    ours = score(prediction, target, "dexycb", frame="camera")
    for official, error, area in (
        ("absolute", "mpjpe_mm", "auc_joints_raw"),
        ("root-relative", "mpjpe_rel_mm", "auc_joints_rel"),
        ("procrustes", "pa_mpjpe_mm", "auc_joints"),
    ):
        assert ours[error] == pytest.approx(theirs[official][0], **CLOSE), official
        assert ours[area] == pytest.approx(theirs[official][1], **CLOSE), official


def test_right_hands_are_scored_separately_if_the_protocol_has_both(hands):
    prediction, target = hands
    right = np.arange(len(target.joints)) % 3 > 0
    both = score(prediction, target._replace(right=right), "dexycb", frame="camera")
    alone = score(*(Hands(part.joints[right], part.vertices[right]) for part in hands), "dexycb", frame="camera")
    assert both["n"] == 12 and both["right_n"] == 8
    named = np.where(right, "right", "left")
    assert score(prediction, target._replace(right=named), "dexycb", frame="camera")["right_n"] == 8
    for key in ("mpjpe_mm", "mpjpe_rel_mm", "pa_mpjpe_mm", "auc_joints", "pa_mpjpe_mm_ci95", "f5"):
        assert both[f"right_{key}"] == pytest.approx(alone[key]), key
    assert "right_n" not in score(prediction, target._replace(right=right), "freihand")
    none = score(prediction, target._replace(right=np.zeros(12, bool)), "dexycb")
    assert none["right_n"] == 0 and "right_pa_mpjpe_mm" not in none


@pytest.mark.filterwarnings("ignore:Optimal rotation")  # of the collinear hand
def test_rigid_alignment_equals_the_best_rotation_of_scipy(hands):
    prediction, target = hands
    ours = score(prediction, target, "freihand")
    for key, preds, gts in (
        ("pa_mpjpe_rigid_mm", prediction.joints, target.joints),
        ("pa_mpvpe_rigid_mm", prediction.vertices, target.vertices),
    ):
        pairs = zip(preds, gts, strict=True)
        errors = [np.linalg.norm(align_rigidly(gt, pred) - gt, axis=-1).mean() for pred, gt in pairs]
        assert ours[key] == pytest.approx(1000 * np.mean(errors), rel=1e-7), key  # SciPy's accuracy is 1e-8
    assert ours["pa_mpjpe_rigid_mm"] > ours["pa_mpjpe_mm"] + 1  # the mirrored hand


def test_for_a_collinear_true_hand_the_rotation_is_ambiguous_but_not_the_squared_error():
    gt = np.linspace(-1, 1, 21)[None, :, None] * [0.05, -0.02, 0.1] + [0.0, 0.0, 0.6]
    pred = true_hands(1, seed=5).joints
    ours, theirs = ((each - gt) ** 2 for each in (procrustes(pred, gt), align_w_scale(gt[0], pred[0])[None]))
    assert ours.sum() == pytest.approx(theirs.sum(), **CLOSE)


def test_scale_and_translation_by_hand():
    pred, gt = np.zeros((1, 21, 3)), np.zeros((1, 21, 3))
    pred[0, 9], pred[0, 3] = [0, 2, 0], [1, 0, 0]  # wrist at the origin, middle knuckle 2 away
    gt[0, 0], gt[0, 9] = [1, 1, 1], [1, 1, 5]  # 4 away: the scale is 2
    moved = scale_translation(pred, gt)
    np.testing.assert_allclose(moved[0, [0, 9, 3]], [[1, 1, 1], [1, 5, 1], [3, 1, 1]])


def test_a_hand_with_a_palm_of_length_zero_is_scaled_as_officially():
    pred, gt = true_hands(1, seed=2).joints, true_hands(1).joints
    pred[0, 9] = pred[0, 0]
    theirs = align_sc_tr(gt[0][MANO_FROM_OPENPOSE], pred[0][MANO_FROM_OPENPOSE])
    np.testing.assert_allclose(scale_translation(pred, gt)[0][MANO_FROM_OPENPOSE], theirs, atol=1e-12)


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_conversion_to_official_order_and_axes_is_inverted_exactly(name):
    hands = true_hands(2)
    for points in hands[:2]:
        np.testing.assert_array_equal(from_official(to_official(points, name), name), points)


def test_ho3d_files_have_manos_order_and_negative_z():
    joints = np.arange(21.0)[None, :, None] * [1, 1, 1]
    official = to_official(joints, "ho3d")[0]
    assert official[:, 0].astype(int).tolist() == MANO_FROM_OPENPOSE
    np.testing.assert_array_equal(official[:, 1], -official[:, 0])
    assert (official[1:, 2] < 0).all()  # pred.py refuses hands with all z above 0
    assert protocol("ho3d").joints == "ho3d" and protocol("freihand").axes == (1, 1, 1)


@pytest.mark.parametrize("broken", ["prediction", "target"])
@pytest.mark.parametrize("name", ["freihand", "dexycb", "ho3d"])
def test_a_nan_names_its_sample_in_every_protocol(name, broken):
    pair = {"prediction": true_hands(3), "target": true_hands(3)}
    pair[broken].joints[2, 5, 1] = np.nan
    with pytest.raises(ValueError, match=f"{broken} of sample 2 is not finite"):
        score(pair["prediction"], pair["target"], name)


def annotated(count=40, seed=0):
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 500, (count, 21, 2))
    known = rng.uniform(size=(count, 21)) < 0.8
    return Annotated(points, known, rng.uniform(40, 300, count), known & (rng.uniform(size=(count, 21)) < 0.4))


def test_pck_equals_hamers_evaluator_for_all_visible_and_occluded_joints():
    target = annotated()
    pred = target.points + np.random.default_rng(1).normal(0, 12, target.points.shape)
    ours = score_pck(pred, target)
    subsets = {"": target.known, "_visible": target.known & ~target.occluded, "_occluded": target.occluded}
    for suffix, confidence in subsets.items():
        for key, threshold in (("pck_05", 0.05), ("pck_10", 0.1), ("pck_15", 0.15)):
            theirs = kp_avg_pck(pred, target.points, confidence, target.size, threshold)
            assert ours[key + suffix] == pytest.approx(theirs, **CLOSE), key + suffix
            low, high = ours[f"{key}{suffix}_ci95"]
            assert low < ours[key + suffix] < high
    assert 0.1 < ours["pck_05"] < ours["pck_15"] < 0.99 and ours["n"] == 40


def test_pck_counts_a_joint_exactly_at_the_threshold():
    target = Annotated(np.zeros((1, 21, 2)), np.ones((1, 21), bool), np.array([100.0]))
    pred = np.zeros((1, 21, 2))
    pred[0, :, 0] = 5.0
    pred[0, 7, 0] = 5.0001
    assert score_pck(pred, target)["pck_05"] == pytest.approx(20 / 21)


def test_the_interval_of_pck_equals_a_bootstrap_over_hands():
    target = annotated(300)
    pred = target.points + np.random.default_rng(1).normal(0, 12, target.points.shape)
    low, high = score_pck(pred, target)["pck_10_ci95"]
    rng, drawn = np.random.default_rng(5), []
    right = np.linalg.norm(pred - target.points, axis=-1) <= 0.1 * target.size[:, None]
    for _ in range(400):
        chosen = rng.integers(0, 300, 300)
        drawn.append(((right & target.known)[chosen].sum(0) / target.known[chosen].sum(0)).mean())
    np.testing.assert_allclose([low, high], np.percentile(drawn, [2.5, 97.5]), atol=0.01)


def test_a_joint_without_any_label_is_left_out_with_a_warning():
    target = annotated()
    target.known[:, 4] = False
    target.points[:, 4] = np.nan  # unused
    pred = np.zeros((40, 21, 2))
    with pytest.warns(UserWarning, match=r"joints \[4\] have no label"):
        scores = score_pck(pred, target._replace(occluded=None))
    assert "pck_05_visible" not in scores and np.isfinite(scores["pck_05"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": np.zeros(40)}, "box of sample 0 measures 0.0 pixels"),
        ({"known": np.zeros((40, 21), bool), "occluded": None}, "no joint of any sample has a label"),
        ({"points": np.zeros((40, 20, 2))}, r"true keypoints have shape \(40, 20, 2\)"),
        ({"points": np.full((40, 21, 2), np.inf)}, "target of sample 0 is not finite"),
    ],
)
def test_invalid_annotations_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        score_pck(np.zeros((40, 21, 2)), annotated()._replace(**change))
