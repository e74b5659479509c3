"""Official submission files: written for each dataset, read back and scored; evaluation on a miniature of each."""

import json

import numpy as np
import pytest
import torch
from miniatures_2d import write_hamer_list, write_hint
from miniatures_capture import write_dexycb, write_freihand, write_ho3d
from torch import nn

from fasthamer.camera import fit_weak_camera, project_pixels, translation_to_fit
from fasthamer.config import load_config
from fasthamer.data.build import build_dataset
from fasthamer.distill.evaluate import evaluate, hands, predict, rules_for
from fasthamer.distill.scoring import Evaluation, score_model
from fasthamer.distill.submission import image_ids, score_file
from fasthamer.hand.conventions import LEFT_TIPS, TIPS
from fasthamer.hand.mano import load_hand
from fasthamer.hand.mano_files import read_hand_arrays
from fasthamer.metrics.protocols import with_tips
from fasthamer.metrics.scores import Hands
from fasthamer.metrics.submissions import (
    read_annotated,
    read_keypoints,
    read_predictions,
    read_result_lines,
    write_keypoints,
    write_predictions,
    write_result_lines,
)
from fasthamer.tools import eval as command
from fasthamer.types import HandOutput

SMALL = ["IMAGE_SIZE", "64", "DATA.WORKERS", "0", "EVAL.BATCH", "8", "DEVICE", "cpu"]
FILES = {"freihand": "pred.json", "dexycb": "results.txt", "ho3d": "pred.json", "hint": "keypoints.json"}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A miniature of each dataset, by name."""
    root = tmp_path_factory.mktemp("sets")
    for name in FILES:
        (root / name).mkdir()
    write_freihand(root / "freihand", count=1)
    write_dexycb(root / "dexycb", hands={(2, 4): "left", (2, 9): "right"})
    write_ho3d(root / "ho3d")
    write_hint(root / "hint", 3, ["TEST_newdays_img"])
    write_hamer_list(root / "hint")
    return {name: root / name for name in FILES}


@pytest.fixture(scope="module")
def mano_like(tmp_path_factory):
    """The embedded hand under another name: the datasets' meshes are then labels, as with MANO."""
    path = tmp_path_factory.mktemp("hand") / "hand.npz"
    np.savez(path, **read_hand_arrays("embedded"))
    return load_hand(path)


class Knows(nn.Module):
    """Answers with the labels of a dataset, in order, centred on the hand and `grown`."""

    def __init__(self, dataset, hand, grown=1.0):
        super().__init__()
        self.dataset, self.hand, self.grown, self.next = dataset, hand, grown, 0
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, image):
        items = [self.dataset[(0, self.next + offset)] for offset in range(len(image))]
        self.next += len(image)
        joints, vertices = (torch.stack([getattr(item, name) for item in items]) for name in ("joints", "vertices"))
        root, points = joints[:, :1, :3], torch.stack([item.keypoints_2d[:, :2] for item in items])
        joints, vertices = self.grown * (joints[..., :3] - root), self.grown * (vertices - root)
        camera = fit_weak_camera(joints, points)
        return HandOutput(vertices, joints, points, camera, torch.zeros(len(items), 1, 1, 1))


def config(name, root, *more):
    return load_config(None, ["DATA.NAME", name, "DATA.ROOT", str(root), *SMALL, *more])


def opened(name, root, hand, grown=1.0, shape="auto"):
    cfg = config(name, root, "DATA.BOX_SHAPE", shape)
    dataset = build_dataset(cfg, hand, train=False)
    about = {"model": "knows", "hand": hand.name, "data": name, "split": "evaluation"}
    return Evaluation(Knows(dataset, hand, grown), dataset, cfg, about, rules_for(dataset))


@pytest.mark.parametrize("shape", ["hamer", "upright"])  # upright crops are turned, the camera is not
@pytest.mark.parametrize("name", ["freihand", "dexycb", "ho3d"])
def test_a_model_that_knows_the_answers_is_right_in_the_camera_too_and_so_is_its_submission(
    name, shape, sets, mano_like, tmp_path
):
    scores, _ = score_model(opened(name, sets[name], mano_like, shape=shape), tmp_path, rows=1)
    assert scores["protocol"] == name and scores["joints"] == name and scores["frame"] == "camera"
    for key in ("mpjpe_mm", "mpjpe_rel_mm", "pa_mpjpe_mm", "pa_mpjpe_rigid_mm", "mpvpe_mm", "pa_mpvpe_mm"):
        assert scores[key] < 0.05, key  # crops are float32
    assert scores["f5"] == scores["f5_raw"] == 1.0
    assert ("mpjpe_st_mm" in scores) == (name == "ho3d") and ("right_mpjpe_mm" in scores) == (name == "dexycb")

    cfg = load_config(None, [])
    again = score_file(tmp_path / FILES[name], sets[name], cfg, "auto" if name == "dexycb" else name, "auto")
    assert again["n"] == scores["n"] and again["protocol"] == name
    for key in ("mpjpe_mm", "mpjpe_rel_mm", "pa_mpjpe_mm", "auc_joints_raw"):
        assert again[key] == pytest.approx(scores[key], abs=0.003), key  # rounded in the file


def test_a_hand_too_large_is_put_farther_away(sets, mano_like, tmp_path):
    scores, _ = score_model(opened("ho3d", sets["ho3d"], mano_like, grown=1.1), tmp_path, rows=1)
    assert scores["pa_mpjpe_mm"] < 0.05 and scores["mpjpe_st_mm"] < 0.05  # both take the scale out
    assert 50 < scores["mpjpe_mm"] < 80  # a tenth of about 0.6 m
    assert 2 < scores["mpjpe_rel_mm"] < 15


@pytest.mark.parametrize("shape", ["hamer", "upright"])
def test_left_hands_are_submitted_as_left_hands(shape, sets, mano_like, tmp_path):
    evaluation = opened("dexycb", sets["dexycb"], mano_like, shape=shape)
    score_model(evaluation, tmp_path, rows=1)
    left = [index for index in range(len(evaluation.dataset)) if evaluation.dataset.is_left(index)]
    assert 0 < len(left) < len(evaluation.dataset)
    ids = image_ids(evaluation.dataset)
    joints = read_result_lines(tmp_path / "results.txt", [ids[index] for index in left])
    true = np.stack([evaluation.dataset.labels(index).joints[:, :3] for index in left])
    np.testing.assert_allclose(joints, true, atol=2e-5)


@pytest.mark.filterwarnings("ignore:joints .* have no")  # three hands do not show each joint both ways
@pytest.mark.parametrize("shape", ["hamer", "upright"])
def test_hint_is_scored_by_its_keypoints(shape, sets, mano_like, tmp_path):
    evaluation = opened("hint", sets["hint"], mano_like, shape=shape)
    scores, _ = score_model(evaluation, tmp_path, rows=1)
    known = [evaluation.dataset.labels(index).keypoints[:, 2] > 0 for index in range(3)]
    assert scores["protocol"] == "hint" and scores["n"] == 3 and scores["pck_05"] == 1.0
    again = score_file(
        tmp_path / "keypoints.json", sets["hint"] / "TEST_newdays_img_all.npz", evaluation.cfg, "auto", "auto"
    )
    assert again["pck_05"] == again["pck_05_occluded"] == again["pck_15_visible"] == 1.0
    target = read_annotated(sets["hint"] / "TEST_newdays_img_all.npz")
    np.testing.assert_array_equal(target.known, known)


def test_pck_is_measured_in_halves_of_the_crop_which_is_the_annotated_box(sets, mano_like):
    evaluation = opened("hint", sets["hint"], mano_like)
    predicted = predict(evaluation.model, evaluation.dataset, 8)
    target = read_annotated(sets["hint"] / "TEST_newdays_img_all.npz")
    np.testing.assert_allclose(predicted.hand_size, target.size, rtol=1e-5)
    shifted = predicted._replace(keypoints=predicted.keypoints + np.array([0.12, 0.0]) * target.size[:, None, None])
    scores = evaluate(shifted, evaluation.rules, np.zeros((16, 778)))
    assert scores["pck_10"] == 0 and scores["pck_15"] == 1


@pytest.mark.parametrize("name", sorted(FILES))
def test_the_command_evaluates_the_embedded_model_on_every_set_and_writes_its_submission(name, sets, tmp_path, capsys):
    arguments = ["--model", "embedded", "--data", name, "--data-root", str(sets[name]), "--out", str(tmp_path), *SMALL]
    assert command.main(arguments) == 0, capsys.readouterr().err
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["protocol"] == name and (tmp_path / "pictures" / "cases.png").is_file()
    assert ("pck_05" if name == "hint" else "pa_mpjpe_mm") in scores
    truth = sets[name] / "TEST_newdays_img_all.npz" if name == "hint" else sets[name]
    given = ["--pred", str(tmp_path / FILES[name]), "--gt", str(truth), "--protocol", name]
    assert command.main([*given, "--out", str(tmp_path / "again")]) == 0, capsys.readouterr().err
    again = json.loads((tmp_path / "again" / "scores.json").read_text())
    for key in ("pa_mpjpe_mm", "mpjpe_mm", "mpjpe_st_mm", "right_pa_mpjpe_mm", "pck_10"):
        if key in scores:
            assert again[key] == pytest.approx(scores[key], abs=0.003), key


def test_a_set_without_public_labels_is_predicted_for_its_server(tmp_path, capsys):
    (tmp_path / "set").mkdir()
    write_ho3d(tmp_path / "set", truth=False)
    out = tmp_path / "out"
    arguments = ["--model", "embedded", "--data", "ho3d", "--data-root", str(tmp_path / "set"), "--out", str(out)]
    assert command.main([*arguments, *SMALL]) == 0
    output = capsys.readouterr()
    assert "nothing to score" in output.err and "0 samples" in output.out
    scores = json.loads((out / "scores.json").read_text())
    assert scores["n"] == 0 and scores["unlabelled"] == 2 and "pa_mpjpe_mm" not in scores
    raw_joints, raw_vertices = (np.array(part) for part in json.loads((out / "pred.json").read_text()))
    assert raw_joints.shape == (2, 21, 3) and raw_vertices.shape == (2, 778, 3)
    assert (raw_joints[..., 2] < 0).all()  # OpenGL's axes: pred.py refuses others


def test_the_joints_of_a_file_can_be_scored_with_another_sets_tips(sets, tmp_path):
    truth = json.loads((sets["freihand"] / "evaluation_xyz.json").read_text())
    meshes = json.loads((sets["freihand"] / "evaluation_verts.json").read_text())
    hands_ = Hands(np.array(truth), np.array(meshes))
    moved = Hands(with_tips(*hands_[:2], "ho3d"), hands_.vertices)
    write_predictions(tmp_path / "pred.json", moved)
    cfg = load_config(None, [])
    as_given = score_file(tmp_path / "pred.json", sets["freihand"], cfg, "freihand", "auto")
    put_right = score_file(tmp_path / "pred.json", sets["freihand"], cfg, "freihand", "freihand")
    assert as_given["pa_mpjpe_mm"] > 0.1 and put_right["pa_mpjpe_mm"] < 0.01
    assert put_right["joints"] == "as predicted, tips of freihand"


def test_truths_of_zeros_are_refused(sets, tmp_path):
    xyz, verts = (json.loads((sets["freihand"] / f"evaluation_{name}.json").read_text()) for name in ("xyz", "verts"))
    write_predictions(tmp_path / "pred.json", Hands(np.array(xyz), np.array(verts)))
    (tmp_path / "evaluation_xyz.json").write_text(json.dumps((0 * np.array(xyz)).tolist()))
    with pytest.raises(ValueError, match="the true hands are one point: these are placeholders"):
        score_file(tmp_path / "pred.json", tmp_path, load_config(None, []), "freihand", "auto")


@pytest.mark.parametrize("factor", [1000.0, 0.001])
def test_a_wrong_unit_is_reported(factor, sets, tmp_path):
    xyz, verts = (json.loads((sets["freihand"] / f"evaluation_{name}.json").read_text()) for name in ("xyz", "verts"))
    write_predictions(tmp_path / "pred.json", Hands(factor * np.array(xyz), factor * np.array(verts)))
    with pytest.warns(UserWarning, match=r"pred\.json: hands are .* times as large as the true ones"):
        scores = score_file(tmp_path / "pred.json", sets["freihand"], load_config(None, []), "freihand", "auto")
    assert scores["pa_mpjpe_mm"] < 1  # which is why it is reported; rounding took some of the small ones


def test_a_left_hand_of_dexycb_has_another_vertex_at_its_middle_tip():
    vertices = np.arange(2 * 778 * 3.0).reshape(2, 778, 3)
    joints = with_tips(np.zeros((2, 21, 3)), vertices, "dexycb", np.array([False, True]))
    np.testing.assert_array_equal(joints[0, [4, 8, 12, 16, 20]], vertices[0, list(TIPS["dexycb"])])
    np.testing.assert_array_equal(joints[1, [4, 8, 12, 16, 20]], vertices[1, list(LEFT_TIPS["dexycb"])])


def test_translation_to_fit_projects_the_points_onto_the_pixels():
    rng = np.random.default_rng(0)
    intrinsics = np.array([[[610.0, 0, 312], [0, 630.0, 245], [0, 0, 1]]] * 4)
    points, place = rng.normal(0, 0.05, (4, 21, 3)), rng.normal(0, 0.1, (4, 3)) + np.array([0, 0, 0.8])
    pixels = project_pixels(points + place[:, None], intrinsics)
    np.testing.assert_allclose(translation_to_fit(points, pixels, intrinsics), place, atol=1e-10)
    noisy = translation_to_fit(points, pixels + rng.normal(0, 1, pixels.shape), intrinsics)
    assert 0 < np.abs(noisy - place).max() < 0.03
    assert np.isfinite(translation_to_fit(0 * points, 0 * pixels + 300, intrinsics)).all()  # a hand shrunk to a point


def test_predictions_without_a_camera_stay_centred_on_the_hand(mano_like):
    cfg = load_config(None, ["DATA.NAME", "synthetic", "DATA.SYNTHETIC_EVAL_SIZE", "2", *SMALL])
    dataset = build_dataset(cfg, mano_like, train=False)
    predicted = predict(Knows(dataset, mano_like), dataset, 2)
    assert predicted.intrinsics is None and rules_for(dataset) == ("freihand", "hamer")
    np.testing.assert_allclose(hands(predicted, "hamer", np.zeros((16, 778))).joints[:, 0], 0, atol=1e-6)
    assert "mpjpe_mm" not in evaluate(predicted, rules_for(dataset), np.zeros((16, 778)))


def test_2d_scores_have_no_use_for_a_joint_convention(sets, mano_like):
    dataset = opened("hint", sets["hint"], mano_like).dataset
    assert rules_for(dataset) == ("hint", "hamer")
    with pytest.raises(ValueError, match="--joints ho3d"):
        rules_for(dataset, joints="ho3d")


@pytest.mark.parametrize("name", ["freihand", "ho3d"])
def test_pred_json_is_read_back_in_our_order_and_axes(name, tmp_path):
    rng = np.random.default_rng(0)
    given = Hands(rng.normal(0, 0.1, (3, 21, 3)), rng.normal(0, 0.1, (3, 778, 3)))
    write_predictions(tmp_path / "pred.json", given, name)
    back = read_predictions(tmp_path / "pred.json", 3, name)
    np.testing.assert_allclose(back.joints, given.joints, atol=5.1e-7)
    np.testing.assert_allclose(back.vertices, given.vertices, atol=5.1e-7)
    on_disk = np.array(json.loads((tmp_path / "pred.json").read_text())[0])
    if name == "ho3d":
        np.testing.assert_allclose(on_disk[:, 4], given.joints[:, 9] * [1, -1, -1], atol=5.1e-7)  # middle knuckle
        np.testing.assert_allclose(on_disk[:, 16], given.joints[:, 4] * [1, -1, -1], atol=5.1e-7)  # thumb's tip


def test_result_lines_have_the_format_of_the_toolkit(tmp_path):
    joints = np.random.default_rng(0).normal(0, 0.1, (3, 21, 3))
    path = tmp_path / "results.txt"
    write_result_lines(path, [5, 9, 12], joints)
    lines = path.read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["5", "9", "12"] and {len(line.split(",")) for line in lines} == {
        64
    }
    assert float(lines[1].split(",")[4]) == pytest.approx(1000 * joints[1, 1, 0], abs=1e-4)  # millimetres
    np.testing.assert_allclose(read_result_lines(path, [12, 5]), joints[[2, 0]], atol=5.1e-8)
    path.write_text("\n".join([*lines, lines[0].replace("5,", "9,", 1)]))  # the toolkit takes the later of two
    np.testing.assert_allclose(read_result_lines(path, [9]), joints[[0]], atol=5.1e-8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:1], r"image 9 is missing \(1 of 2 are\)"),
        (lambda lines: [lines[0], lines[1] + ",1"], r"line 2: expected 64 .*, found 65"),
        (lambda lines: [lines[0].replace(",", ";"), lines[1]], "line 1: expected 64"),
        (lambda lines: [lines[0], "9," + ",".join(["x"] * 63)], "line 2: expected 64"),
        (lambda lines: [lines[0], "9," + ",".join(["nan"] * 63)], "sample 1 is not finite"),
        (lambda lines: [], "image 5 is missing"),
    ],
)
def test_errors_of_malformed_result_files_name_the_problem(change, message, tmp_path):
    path = tmp_path / "results.txt"
    write_result_lines(path, [5, 9], np.zeros((2, 21, 3)))
    path.write_text("\n".join(change(path.read_text().splitlines())))
    with pytest.raises(ValueError, match=message):
        read_result_lines(path, [5, 9])


def test_missing_and_foreign_files_of_hint_and_dexycb_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"results\.txt"):
        read_result_lines(tmp_path / "results.txt", [1])
    with pytest.raises(FileNotFoundError, match="TEST_<set>_img_all"):
        read_annotated(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(ValueError, match="not one of HaMeR's evaluation files"):
        read_annotated(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", imgname=np.array(["a"]))
    with pytest.raises(ValueError, match="not one of HaMeR's evaluation files"):
        read_annotated(tmp_path / "other.npz")
    write_keypoints(tmp_path / "keypoints.json", np.zeros((2, 21, 2)))
    with pytest.raises(ValueError, match="2 samples, expected 3"):
        read_keypoints(tmp_path / "keypoints.json", 3)
    (tmp_path / "results.bin").write_bytes(bytes(range(128, 256)))
    with pytest.raises(ValueError, match="not a text file"):
        read_result_lines(tmp_path / "results.bin", [1])


def test_lists_of_two_datasets_are_not_mixed(sets, tmp_path):
    for part in ("all", "occ"):
        with np.load(sets["hint"] / f"TEST_newdays_img_{part}.npz") as labels:
            content = dict(labels)
        content["imgname"] = np.array([f"{part}{name}" for name in content["imgname"]])
        np.savez(tmp_path / f"TEST_newdays_img_{part}.npz", **content)
    with pytest.raises(ValueError, match="lists other images"):
        read_annotated(tmp_path / "TEST_newdays_img_all.npz")
