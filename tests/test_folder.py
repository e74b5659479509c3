"""Images without labels, with lists of boxes around the hands."""

import json

import numpy as np
import pytest
import torch
from miniatures_2d import write_folder

from fasthamer.config import load_config
from fasthamer.data.build import build_dataset
from fasthamer.data.readers.folder import Folder
from fasthamer.files.images import write_image
from fasthamer.hand.mano import load_hand
from fasthamer.students import build_student
from fasthamer.students.files import save_student
from fasthamer.tools import distill


@pytest.fixture(params=["csv", "json"])
def listed(request, tmp_path):
    return tmp_path, write_folder(tmp_path, 3, form=request.param)


def test_each_box_is_a_sample_without_labels(listed):
    root, rows = listed
    dataset = Folder(root)
    assert len(dataset) == 3
    for index, (name, (x, y, width, height), side) in enumerate(rows):
        image, item = dataset.raw_sample(index), dataset[(0, index)]
        assert dataset.sample_name(index) == name and image.path == root / name
        assert image.left == (side == "left") == bool(item.mirrored)
        centre, crop_side, _ = image.box
        assert centre.tolist() == [x + width / 2, y + height / 2]
        assert crop_side == pytest.approx(2 * max(height, width * 256 / 192))
        assert item.keypoints_2d.abs().sum() == item.joints.abs().sum() == item.vertices.abs().sum() == 0
        assert item.has_pose == item.has_betas == item.has_vertices == 0
        skin = (item.image[0] > 100).numpy()  # the drawn hand stands in the middle, at half the crop's size or less
        y, x = np.nonzero(skin)
        assert abs((y.min() + y.max()) / 2 - 128) < 4 and abs((x.min() + x.max()) / 2 - 128) < 4
        assert np.ptp(y) <= 132 and np.ptp(x) <= 132


def test_a_split_can_name_another_list(tmp_path):
    write_folder(tmp_path, 3)
    lines = (tmp_path / "boxes.csv").read_text().splitlines()
    (tmp_path / "held_out.csv").write_text("\ufeff" + "\n".join(lines[:2]) + "\n\n", encoding="utf-8")
    assert len(Folder(tmp_path, "training")) == 3 and len(Folder(tmp_path, "held_out.csv")) == 1


def test_a_run_without_teacher_is_refused_because_there_are_no_targets(tmp_path):
    write_folder(tmp_path, 1)
    hand, named = load_hand("embedded"), ["DATA.NAME", "folder", "DATA.ROOT", str(tmp_path)]
    assert len(build_dataset(load_config(None, [*named, "KD.MODE", "output"]), hand, train=True)) == 1
    with pytest.raises(ValueError, match=r"no labels to learn from: --kd output, feature or hybrid"):
        build_dataset(load_config(None, [*named, "KD.MODE", "none"]), hand, train=True)
    with pytest.raises(ValueError, match=r"folder needs DATA.ROOT.*--data-root"):
        build_dataset(load_config(None, ["DATA.NAME", "folder"]), hand, train=True)


def test_a_student_trains_with_its_teacher_as_the_only_target(tmp_path, capsys):
    write_folder(tmp_path / "images", 3)
    torch.manual_seed(5)
    save_student(tmp_path / "teacher.safetensors", build_student("timm:test_resnet", "mano", "tiny", 64), {})
    small = ["IMAGE_SIZE", "64", "STUDENT.IMAGE_SIZE", "64", "STUDENT.PRETRAINED", "False", "DEVICE", "cpu"]
    small += ["DATA.WORKERS", "0", "TRAIN.BATCH", "2", "TRAIN.LOG_EVERY", "1"]
    student = ["--student", "timm:test_resnet", "--decoder-size", "tiny", "--kd", "hybrid", "--steps", "2"]
    data = [
        "--data",
        "folder",
        "--data-root",
        str(tmp_path / "images"),
        "--teacher",
        str(tmp_path / "teacher.safetensors"),
    ]
    assert distill.main([*student, *data, "--out", str(tmp_path / "run"), *small]) == 0
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in logged if "kd_joints" in line]
    assert steps and all(line["kd_joints"] > 0 and line["joints"] == line["keypoints_2d"] == 0 for line in steps), (
        logged
    )
    scores = json.loads((tmp_path / "run" / "eval" / "scores.json").read_text())
    assert scores["n"] == 0  # nothing is known about these images: nothing is scored


@pytest.mark.parametrize(("side", "left"), [("Left", True), (" LEFT", True), ("right ", False), ("Right", False)])
def test_sides_may_be_written_in_any_case(tmp_path, side, left):
    write_image(tmp_path / "a.jpg", np.zeros((40, 40, 3), np.uint8))
    (tmp_path / "boxes.csv").write_text(f"path,x,y,width,height,side\na.jpg,1,2,3,4,{side}\n")
    (tmp_path / "boxes.json").write_text(json.dumps([{"path": "a.jpg", "box": [1, 2, 3, 4], "side": side}]))
    assert Folder(tmp_path, "boxes.csv").is_left(0) is Folder(tmp_path, "boxes.json").is_left(0) is left


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,x,y\na.jpg,1,2\n", "begins with 'path,x,y', expected 'path,x,y,width,height,side'"),
        ("path,x,y,width,height,side\n", "lists no boxes"),
        ("path,x,y,width,height,side\na.jpg,1,2,3,right\n", "line 2 is 'a.jpg,1,2,3,right', expected path,x,y"),
        ("path,x,y,width,height,side\na.jpg,1,2,3,four,right\n", "line 2 is .*four"),
        ("path,x,y,width,height,side\na.jpg,1,2,3,4,rihgt\n", "box 1 .*side is 'rihgt', expected left or right"),
        ("path,x,y,width,height,side\na.jpg,1,2,0,4,left\n", "box 1 .*is no box"),
        ("path,x,y,width,height,side\na.jpg,nan,2,3,4,left\n", "box 1 .*is no box"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, text, message):
    (tmp_path / "boxes.csv").write_text(text)
    with pytest.raises(ValueError, match=f"boxes.csv.*{message}"):
        Folder(tmp_path)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"path": "a.jpg", "box": [1, 2, 3, 4]}], "record 1 has no 'side'"),
        ([{"path": "a.jpg", "box": 5, "side": "left"}], "record 1 is not"),
        ([{"path": "a.jpg", "box": [1, 2, 3], "side": "left"}], r"\[1.0, 2.0, 3.0\] is no box"),
        ({"path": "a.jpg"}, r"expected '\['"),
    ],
)
def test_a_malformed_record_is_named(tmp_path, records, message):
    (tmp_path / "boxes.json").write_text(json.dumps(records))
    with pytest.raises(ValueError, match=f"boxes.json.*{message}"):
        Folder(tmp_path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        Folder(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no boxes.csv or boxes.json: list the hands .*path,x,y,width"):
        Folder(tmp_path)
    rows = write_folder(tmp_path, 2)
    (tmp_path / rows[1][0]).unlink()
    dataset = Folder(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no image .*image 1.png"):
        dataset[(0, 1)]
    (tmp_path / rows[0][0]).unlink()
    with pytest.raises(FileNotFoundError, match=r"image 0.jpg, the first that .*boxes.csv names"):
        Folder(tmp_path)
    (tmp_path / "boxes.csv").write_bytes(b"\xff\xfe\x00path")
    with pytest.raises(ValueError, match=r"boxes.csv: not a CSV text file"):
        Folder(tmp_path)
