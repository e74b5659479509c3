"""tools/eval.py end to end on made-up data: scores, pred.json, images, exit codes."""

import json

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from fasthamer.config import load_config
from fasthamer.data.build import build_dataset
from fasthamer.data.dataset import DatasetInfo, HandDataset
from fasthamer.distill.evaluate import rules_for
from fasthamer.distill.sample_sheet import choose
from fasthamer.distill.scoring import Evaluation, score_model
from fasthamer.hand.mano import load_hand
from fasthamer.metrics.scores import Hands
from fasthamer.metrics.submissions import read_predictions, write_predictions
from fasthamer.students import build_student, save_student
from fasthamer.tools import eval as command
from fasthamer.types import HandOutput

SMALL = ["IMAGE_SIZE", "64", "DATA.SYNTHETIC_EVAL_SIZE", "5", "DATA.WORKERS", "0", "EVAL.BATCH", "2", "DEVICE", "cpu"]


@pytest.fixture(scope="module")
def student_file(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("run") / "student.safetensors"
    save_student(path, build_student("timm:test_resnet", decoder_size="tiny", image_size=64), {})
    return path


class Mirrored(HandDataset):
    """The items of a dataset, marked as mirrored left hands."""

    info = DatasetInfo("Mirrored")

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, key):
        return self.dataset[key]._replace(mirrored=torch.tensor(1.0))


class Knows(nn.Module):
    """Answers with the labels of a dataset, in order, changed by `alter`."""

    def __init__(self, dataset, hand, alter=lambda points: points):
        super().__init__()
        self.dataset, self.hand, self.alter, self.next = dataset, hand, alter, 0
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, image):
        items = [self.dataset[(0, self.next + offset)] for offset in range(len(image))]
        self.next += len(image)
        joints = torch.stack([item.joints[:, :3] for item in items])
        vertices = torch.stack([item.vertices for item in items])
        points = torch.stack([item.keypoints_2d[:, :2] for item in items])
        camera = torch.tensor([[5.0, 0.0, 0.0]]).repeat(len(items), 1)
        return HandOutput(self.alter(vertices), self.alter(joints), points, camera, torch.zeros(len(items), 1, 1, 1))


def evaluation(alter=lambda points: points, mirrored=False):
    cfg, hand = load_config(None, SMALL), load_hand("embedded")
    dataset = build_dataset(cfg, hand, train=False)
    if mirrored:
        dataset = Mirrored(dataset)
    about = {"model": "stub", "hand": hand.name, "data": "synthetic", "split": "evaluation"}
    return Evaluation(Knows(dataset, hand, alter), dataset, cfg, about, rules_for(dataset))


def test_perfect_answers_score_zero_and_a_known_error_scores_itself(tmp_path):
    scores, _ = score_model(evaluation(), tmp_path, rows=1)
    assert scores["pa_mpjpe_mm"] < 1e-3 and scores["pa_mpvpe_mm"] < 1e-3
    assert scores["f5"] == 1.0 and scores["n"] == 5 and scores["joints"] == "hamer"
    grown, _ = score_model(evaluation(lambda points: 1.2 * points), tmp_path / "grown", rows=1)
    assert grown["pa_mpjpe_mm"] < 1e-3  # alignment takes the scale out
    assert grown["mpjpe_rel_mm"] > 5
    assert json.loads((tmp_path / "scores.json").read_text()) == scores


def test_pred_json_holds_the_hands_as_seen_also_left_ones(tmp_path):
    score_model(evaluation(), tmp_path / "right", rows=1)
    score_model(evaluation(mirrored=True), tmp_path / "left", rows=1)
    right, left = (read_predictions(tmp_path / side / "pred.json", 5) for side in ("right", "left"))
    np.testing.assert_allclose(left.joints, right.joints * [-1, 1, 1], atol=1e-6)
    np.testing.assert_allclose(left.vertices, right.vertices * [-1, 1, 1], atol=1e-6)


def test_a_nan_prediction_names_its_sample(tmp_path):
    def broken(points):
        points = points.clone()
        points[0, 0, 0] = float("nan")  # of each batch of 2: samples 0, 2 and 4
        return points

    with pytest.raises(ValueError, match=r"sample 0 is not finite \(3 of 5"):
        score_model(evaluation(broken), tmp_path, rows=1)


def test_the_command_scores_a_student_on_synthetic_hands(student_file, tmp_path, capsys):
    out = tmp_path / "out"
    assert command.main(["--model", str(student_file), "--data", "synthetic", "--out", str(out), *SMALL]) == 0
    scores = json.loads((out / "scores.json").read_text())
    assert scores["n"] == 5 and scores["data"] == "synthetic" and scores["model"] == str(student_file)
    assert scores["pa_mpjpe_mm_ci95"][0] <= scores["pa_mpjpe_mm"] <= scores["pa_mpjpe_mm_ci95"][1]
    assert read_predictions(out / "pred.json", 5).vertices.shape == (5, 778, 3)
    image = cv2.imread(str(out / "pictures" / "cases.png"))
    assert image.shape[1] > 5 * 256 and image.std() > 10
    shown = capsys.readouterr().out
    assert f"{scores['pa_mpjpe_mm']:.2f}" in shown and "5 samples, crops of 64 pixels, " in shown


def test_a_run_directory_is_a_model_and_keeps_its_results(student_file, capsys):
    assert command.main(["--model", str(student_file.parent), "--data", "synthetic", *SMALL]) == 0
    assert (student_file.parent / "eval" / "synthetic-evaluation" / "scores.json").is_file()


def freihand_folder(path, count=3):
    rng = np.random.default_rng(0)
    (path / "evaluation" / "rgb").mkdir(parents=True)
    for index in range(count):
        image = rng.integers(0, 255, (224, 224, 3), dtype=np.uint8)
        cv2.imwrite(str(path / "evaluation" / "rgb" / f"{index:08d}.jpg"), image)
    joints = rng.normal(0, 0.04, (count, 21, 3)) + np.array([0, 0, 0.6])
    camera = [[[500.0, 0, 112], [0, 500.0, 112], [0, 0, 1]]] * count
    (path / "evaluation_xyz.json").write_text(json.dumps(joints.tolist()))
    (path / "evaluation_K.json").write_text(json.dumps(camera))
    return path


def test_images_without_meshes_get_joint_scores_only(student_file, tmp_path):
    root, out = freihand_folder(tmp_path / "set"), tmp_path / "out"
    code = command.main(["--model", str(student_file), "--data-root", str(root), "--out", str(out), *SMALL])
    scores = json.loads((out / "scores.json").read_text())
    assert code == 0 and scores["n"] == 3 and scores["data"] == "freihand" and scores["joints"] == "hamer"
    assert "pa_mpjpe_mm" in scores and "pa_mpvpe_mm" not in scores and "f5" not in scores


def test_the_joint_convention_is_the_users_to_choose(student_file, tmp_path):
    root = freihand_folder(tmp_path / "set")
    results = {}
    for convention in ("hamer", "freihand", "ho3d"):
        out = tmp_path / convention
        given = ["--model", str(student_file), "--data-root", str(root), "--joints", convention, "--out", str(out)]
        assert command.main([*given, *SMALL]) == 0
        results[convention] = json.loads((out / "scores.json").read_text())
        assert results[convention]["joints"] == convention
    assert len({scores["pa_mpjpe_mm"] for scores in results.values()}) == 3


def test_a_damaged_image_fails_with_its_name(student_file, tmp_path, capsys):
    root = freihand_folder(tmp_path / "set")
    image = root / "evaluation" / "rgb" / "00000001.jpg"
    image.write_bytes(image.read_bytes()[:500])
    given = ["--model", str(student_file), "--data-root", str(root), "--out", str(tmp_path / "out"), *SMALL]
    assert command.main(given) == 1
    message = capsys.readouterr().err
    assert "00000001.jpg: damaged image" in message.strip().splitlines()[-1] and "Traceback" not in message


def official_files(folder, count=4):
    rng = np.random.default_rng(1)
    truth = Hands(rng.normal(0, 0.05, (count, 21, 3)), rng.normal(0, 0.05, (count, 778, 3)))
    folder.mkdir()
    (folder / "evaluation_xyz.json").write_text(json.dumps(truth.joints.tolist()))
    (folder / "evaluation_verts.json").write_text(json.dumps(truth.vertices.tolist()))
    return truth


def test_an_existing_prediction_is_scored_in_the_cameras_frame(tmp_path):
    truth = official_files(tmp_path / "gt")
    write_predictions(tmp_path / "pred.json", Hands(truth.joints + 0.1, truth.vertices + 0.1))
    out = tmp_path / "out"
    arguments = ["--pred", str(tmp_path / "pred.json"), "--gt", str(tmp_path / "gt"), "--protocol", "freihand"]
    assert command.main([*arguments, "--out", str(out)]) == 0
    scores = json.loads((out / "scores.json").read_text())
    assert scores["mpjpe_mm"] == pytest.approx(100 * 3**0.5, abs=0.01)  # 10 cm along each axis
    assert scores["pa_mpjpe_mm"] < 0.01 and scores["f15"] == 1.0 and scores["n"] == 4


def test_a_mirrored_prediction_is_announced(tmp_path, capsys):
    truth = official_files(tmp_path / "gt")
    mirror = np.array([-1, 1, 1])
    write_predictions(tmp_path / "pred.json", Hands(truth.joints * mirror, truth.vertices * mirror))
    arguments = ["--pred", str(tmp_path / "pred.json"), "--gt", str(tmp_path / "gt"), "--out", str(tmp_path / "out")]
    assert command.main(arguments) == 0
    assert "fit better mirrored" in capsys.readouterr().err


def mistake(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_a_prediction_of_the_wrong_length_is_refused(tmp_path, capsys):
    truth = official_files(tmp_path / "gt")
    write_predictions(tmp_path / "pred.json", Hands(truth.joints[:3], truth.vertices[:3]))
    message = mistake(["--pred", str(tmp_path / "pred.json"), "--gt", str(tmp_path / "gt")], capsys)
    assert "3 samples, expected 4" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --model, or --pred with --gt"),
        (["--pred", "pred.json"], "give --model, or --pred with --gt"),
        (["--model", "no/such.safetensors"], "no model 'no/such.safetensors'"),
        (["--model", "STUDENT", "--data", "freihnd"], "did you mean 'freihand'"),
        (["--model", "STUDENT", "--data", "freihand"], "--data-root"),
        (["--model", "STUDENT", "--data-root", "nowhere"], "nowhere"),
        (["--model", "STUDENT", "--protocol", "freihnd"], "did you mean 'freihand'"),
        (["--model", "STUDENT", "--joints", "hammer"], "did you mean 'hamer'"),
        (["--model", "STUDENT", "EVAL.BATHC", "3"], "EVAL.BATCH"),
        (["--pred", "nowhere.json", "--gt", "nowhere"], "evaluation_xyz.json is missing"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(arguments, message, student_file, capsys):
    arguments = [str(student_file) if each == "STUDENT" else each for each in arguments]
    assert message in mistake(arguments, capsys)


def test_cases_are_the_worst_and_the_middle_never_twice():
    errors = np.arange(11.0)  # sample 10 is the worst, 5 the median
    chosen = choose(errors, 3)
    assert [index for title, index in chosen if title == "worst"] == [10, 9, 8]
    typical = [index for title, index in chosen if title == "typical"]
    assert 5 in typical and len(typical) == 3
    few = [index for _, index in choose(np.arange(4.0), 3)]
    assert sorted(few) == [0, 1, 2, 3]


def test_real_images_are_scored(student_file, tmp_path, shared_data):
    root, out = shared_data("realhand"), tmp_path / "out"
    assert command.main(["--model", str(student_file), "--data-root", str(root), "--out", str(out), *SMALL]) == 0
    scores = json.loads((out / "scores.json").read_text())
    assert scores["n"] == 80 and 20 < scores["pa_mpjpe_mm"] < 35  # an untrained student: about the mean pose's 24
    assert read_predictions(out / "pred.json", 80).joints.shape == (80, 21, 3)
