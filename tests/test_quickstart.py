"""The quickstart from outside, on a handful of hands."""

import json

import numpy as np
import pytest

from fasthamer.data.synthetic.dataset import SyntheticDataset
from fasthamer.distill.real_images import real_images
from fasthamer.files.images import write_image
from fasthamer.hand.mano import load_hand
from fasthamer.students import load_student
from fasthamer.teachers.embedded import FILE
from fasthamer.tools import quickstart

TINY = {
    "STUDENT.NAME": "timm:test_resnet",
    "STUDENT.BACKBONE_FILE": "",
    "STUDENT.FREEZE": "0",
    "TRAIN.STEPS": "2",
    "TRAIN.BATCH": "4",
    "DATA.SYNTHETIC_SIZE": "40",
    "DATA.SYNTHETIC_EVAL_SIZE": "8",
    "DATA.WORKERS": "0",
    "DEVICE": "cpu",
}
OVERRIDES = [text for pair in TINY.items() for text in pair]


@pytest.fixture(scope="module")
def hand():
    return load_hand("embedded")


def test_the_teacher_ships_with_the_package_and_fits_its_promise():
    assert FILE.is_file()
    assert FILE.stat().st_size <= 15e6


def test_quickstart_compares_both_students_with_their_teacher_and_only_scores_when_called_again(tmp_path, capsys):
    out = tmp_path / "quickstart"
    assert quickstart.main(["--out", str(out), *OVERRIDES]) == 0
    output = capsys.readouterr().out
    assert "comparison.png" in output and (out / "comparison.png").is_file()
    summary = json.loads((out / "summary.json").read_text())
    assert list(summary) == ["teacher", "no_kd", "kd"]
    for row in summary.values():
        assert set(row) == {"pa_mpjpe_mm", "pa_mpvpe_mm", "params_m", "ms_per_image"}
        assert all(value > 0 for value in row.values())
    assert summary["no_kd"]["params_m"] == summary["kd"]["params_m"] < summary["teacher"]["params_m"]

    trained = (out / "kd" / "student.safetensors").stat().st_mtime_ns
    assert quickstart.main(["--out", str(out)]) == 0
    assert "is finished" in capsys.readouterr().out
    assert (out / "kd" / "student.safetensors").stat().st_mtime_ns == trained


def test_a_mistyped_setting_is_one_line_and_leaves_nothing_behind(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        quickstart.main(["--out", str(tmp_path / "run"), "TRAIN.STEP", "3"])
    assert stopped.value.code == 2
    assert "did you mean TRAIN.STEPS" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_training_that_cannot_start_is_reported_as_a_failure(tmp_path, capfd):
    arguments = [*OVERRIDES, "STUDENT.BACKBONE_FILE", "shipped"]
    assert quickstart.main(["--out", str(tmp_path / "run"), *arguments]) == 1
    output = capfd.readouterr().err
    assert "no weights are shipped for test_resnet" in output and "kd failed" in output


def test_images_of_a_folder_are_shown_with_the_hands_that_are_found_in_them(hand, tmp_path):
    dataset = SyntheticDataset(hand, 3, seed=4, image_size=256, scale=0.0, shift=0.0)
    for index in range(3):
        write_image(tmp_path / "images" / f"{index}.png", dataset[(0, index)].image.permute(1, 2, 0).numpy())
    write_image(tmp_path / "images" / "nothing.png", np.zeros((64, 64, 3), np.uint8))
    teacher = load_student(FILE)
    image = real_images({"teacher": teacher, "kd": teacher}, tmp_path / "images", most=2, cell=64)
    assert image.shape[1] >= 3 * 64
    assert image.shape[0] < 4 * 64


def test_a_folder_in_which_no_hand_is_found_gives_no_image(tmp_path):
    write_image(tmp_path / "nothing.png", np.zeros((64, 64, 3), np.uint8))
    assert real_images({}, tmp_path, most=2) is None


def test_a_folder_without_images_is_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="no images"):
        real_images({}, tmp_path, most=2)
