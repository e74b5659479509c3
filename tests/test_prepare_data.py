"""tools/prepare_data.py on every kind of dataset: whole ones pass, each damage is one line and exit code 1."""

import functools
import json

import cv2
import numpy as np
import pytest
import torch
from miniatures_2d import write_coco, write_folder, write_hint, write_interhand, write_labelled
from miniatures_capture import npz_bytes, replaced, write_dexycb, write_freihand, write_ho3d
from miniatures_tars import write_shards

from fasthamer.config import load_config
from fasthamer.data.build import build_dataset
from fasthamer.data.check import Report, check, contact_sheet, incomplete
from fasthamer.data.crop import Box
from fasthamer.data.label_checks import item_problems, reprojection, sample_problems, tips_apart
from fasthamer.data.readers.coco import CocoHands
from fasthamer.data.readers.freihand import FreiHAND
from fasthamer.data.sample import Labels, make_item
from fasthamer.data.synthetic.dataset import SyntheticDataset
from fasthamer.data.zoo import DATASETS
from fasthamer.files.images import write_image
from fasthamer.hand.mano import Hand, load_hand
from fasthamer.hand.mano_files import read_hand_arrays
from fasthamer.tools import prepare_data

KEPT_APART = ("DATA.INDEX", "none")


def run(capsys, *arguments):
    """Exit code, printed lines."""
    code = prepare_data.main([*map(str, arguments), *KEPT_APART])
    return code, capsys.readouterr().out.splitlines()


def problems(capsys, *arguments):
    code, lines = run(capsys, "check", *arguments)
    found = [line for line in lines if line.startswith("problem: ")]
    assert code == bool(found) and lines[-1] == f"{len(found)} problem{'' if len(found) == 1 else 's'}"
    return found


WRITERS = {
    "freihand": lambda root: write_freihand(root, count=2),
    "dexycb": lambda root: write_dexycb(root, hands={(0, 0): "right", (2, 4): "left"}),
    "ho3d": write_ho3d,
    "hint": write_hint,
    "coco": lambda root: (write_coco(root, 2), write_coco(root, 2, "annotations/hands_val.json")),
    "interhand": lambda root: (write_interhand(root, 2, "train"), write_interhand(root, 2, "test", seed=1)),
    "folder": write_folder,
    "labelled": write_labelled,
    "tars": lambda root: write_shards(root, shards=2, samples=3),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A function from a dataset's name to a miniature of it, made once; it is not to be changed."""

    @functools.cache
    def root(name):
        folder = tmp_path_factory.mktemp(name)
        WRITERS[name](folder)
        return folder

    return root


@pytest.mark.parametrize("name", WRITERS)
def test_a_whole_set_has_no_problem_and_is_shown(name, written, tmp_path, capsys):
    root = written(name)
    before = sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*"))
    code, lines = run(capsys, "check", "--data", name, "--data-root", root, "--out", tmp_path / "out")
    assert (code, lines[-1]) == (0, "0 problems"), lines
    assert any("hands sampled" in line for line in lines)
    pages = sorted((tmp_path / "out").iterdir())
    assert len(pages) == (1 if name in ("folder", "tars") else 2)
    page = cv2.imread(str(pages[0]))
    assert page.shape[0] > 256 and page.std() > 5
    assert before == sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*"))


def test_every_registered_dataset_is_tried_here():
    assert set(DATASETS) == {*WRITERS, "synthetic", "mix"}


def test_synthetic_hands_and_mixes_are_checked_too(tmp_path, capsys):
    small = ("DATA.SYNTHETIC_SIZE", "3", "DATA.SYNTHETIC_EVAL_SIZE", "3", "IMAGE_SIZE", "64")
    assert problems(capsys, "--data", "synthetic", "--out", tmp_path, *small) == []
    write_coco(tmp_path / "set", 2)
    entries = [{"data": "coco", "root": "set", "weight": 1.0}, {"data": "synthetic", "weight": 2.0}]
    (tmp_path / "mix.yaml").write_text(json.dumps({"DATA": {"MIX": entries}}))
    code, lines = run(
        capsys, "check", "--data", tmp_path / "mix.yaml", "--data-root", tmp_path, "--out", tmp_path, *small
    )
    assert code == 0, lines
    assert any("2 hands (1 right, 1 left) in 2 images" in line for line in lines)
    assert sum("hands sampled" in line for line in lines) == 2


def test_missing_truncated_and_foreign_files_are_one_line_each(tmp_path, capsys):
    write_coco(tmp_path, 4)
    images = tmp_path / "images"
    (images / "000000000001.jpg").unlink()
    whole = (images / "000000000002.jpg").read_bytes()
    (images / "000000000002.jpg").write_bytes(whole[: len(whole) // 2])
    (images / "000000000003.jpg").write_text("<html>quota exceeded</html>")
    found = problems(capsys, "--data", "coco", "--data-root", tmp_path, "--split", "training", "--out", tmp_path / "o")
    for number, what in ((1, "is missing"), (2, "is cut short"), (3, "is no image")):
        (line,) = [line for line in found if f"{number:012d}.jpg" in line and "sample" not in line]
        assert line.endswith(what)
    assert len(found) == 3  # the sampled hands of these images are not named a second time


def test_the_bytes_around_a_file_tell_whether_it_is_whole(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    for kind in ("jpg", "png", "bmp", "webp"):
        path = tmp_path / f"a.{kind}"
        cv2.imwrite(str(path), image)
        assert incomplete(path) is None
    for kind in ("jpg", "png"):
        path = tmp_path / f"a.{kind}"
        path.write_bytes(path.read_bytes()[:-30])
        assert incomplete(path) == "is cut short"
        path.write_bytes(b"")
        assert incomplete(path) == "is empty"
    assert incomplete(tmp_path / "none.jpg") == "is missing"
    assert incomplete(tmp_path) == "cannot be read"


def test_a_label_in_millimetres_is_found_in_place(tmp_path, capsys):
    write_freihand(tmp_path, count=2)
    path = tmp_path / "training_xyz.json"
    path.write_text(json.dumps((1000 * np.array(json.loads(path.read_text()))).tolist()))
    found = problems(capsys, "--data", "freihand", "--data-root", tmp_path, "--split", "training", "--out", tmp_path)
    assert found and all("millimetres" in line for line in found)


def test_keypoints_that_do_not_fit_their_camera_are_found(written, tmp_path, capsys):
    root = written("dexycb")
    (label,) = root.rglob("20200709_100000/836212060125/labels_000001.npz")
    with np.load(label) as stored:
        moved = stored["joint_2d"] + np.float32([3, 4])
    with replaced(label, npz_bytes(label, joint_2d=moved)):
        found = problems(capsys, "--data", "dexycb", "--data-root", root, "--split", "s0_train", "--out", tmp_path)
    (line,) = found
    assert line.endswith("a keypoint lies 5.0 pixels off its projected joint")


def test_a_mesh_that_is_not_the_joints_is_found(tmp_path):
    write_freihand(tmp_path, count=2)
    mano = Hand(read_hand_arrays("embedded"), "MANO_RIGHT")  # stands in for the licensed one
    whole = check(FreiHAND(tmp_path, "training", mano, cache="none"), 8)
    assert whole.problems == []
    assert any(line == "fingertips of joints and mesh: worst 0.00 mm apart" for line in whole.facts)
    path = tmp_path / "training_verts.json"
    first, second = json.loads(path.read_text())
    path.write_text(json.dumps([second, first]))
    found = check(FreiHAND(tmp_path, "training", mano, cache="none"), 8)
    assert len(found.problems) == 8 and all("mm off the labelled one" in line for line in found.problems)


def test_an_image_counts_once_and_is_reported_once_wherever_its_hands_are(tmp_path):
    write_image(tmp_path / "0.jpg", np.zeros((120, 120, 3), np.uint8))
    (tmp_path / "1.jpg").write_bytes((tmp_path / "0.jpg").read_bytes()[:200])
    points = np.concatenate([np.random.default_rng(0).uniform(20, 100, (21, 2)), np.full((21, 1), 2.0)], 1)
    hand = {"category_id": 0, "keypoints": points.ravel().tolist()}
    annotations = [{"id": n, "image_id": n % 2, **hand} for n in range(6)]
    images, categories = [{"id": n, "file_name": f"{n}.jpg"} for n in range(2)], [{"id": 0, "name": "hand"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "train.json").write_text(json.dumps(content))
    report = check(CocoHands(tmp_path, "training"), 8)
    assert report.facts[0] == "6 hands (6 right, 0 left) in 2 images"
    assert [f"{tmp_path / '1.jpg'}" in each for each in report.problems] == [True]


def test_keypoints_in_another_order_are_found_without_depth(embedded, tmp_path, capsys):
    hands = SyntheticDataset(embedded, 30, 64)
    joints = np.array([hands.hand(index).joints for index in range(30)])
    points = 60 * joints[..., :2] / joints[..., 2:]
    points = points - points.mean(1, keepdims=True) + 60
    write_image(tmp_path / "a.jpg", np.zeros((120, 120, 3), np.uint8))
    tip_to_base = [0, *(joint for base in range(1, 21, 4) for joint in range(base + 3, base - 1, -1))]

    def found(points, names=()):
        flat = np.concatenate([points, np.full((30, 21, 1), 2.0)], 2).reshape(30, -1).tolist()
        annotations = [{"id": n, "image_id": 0, "category_id": 0, "keypoints": each} for n, each in enumerate(flat)]
        images, categories = [{"id": 0, "file_name": "a.jpg"}], [{"id": 0, "name": "hand", "keypoints": list(names)}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (tmp_path / "train.json").write_text(json.dumps(content))
        return problems(
            capsys, "--data", "coco", "--data-root", tmp_path, "--split", "training", "--out", tmp_path / "o"
        )

    fingers = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
    names = ["wrist", *(f"{finger}{number}" for finger in fingers for number in (4, 3, 2, 1))]
    assert found(points) == found(points[:, tip_to_base], names) == []
    (line,) = found(points[:, tip_to_base])
    assert "another order than OpenPose's: each finger from tip to base (RHD)" in line


def test_a_damaged_shard_is_named_and_the_rest_counted(tmp_path, capsys):
    write_shards(tmp_path, shards=2, samples=3)
    shard = sorted(tmp_path.glob("*.tar"))[-1]
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    found = problems(capsys, "--data", "tars", "--data-root", tmp_path, "--out", tmp_path / "out")
    assert found and all(shard.name in line for line in found)


def test_a_split_that_cannot_be_opened_is_a_problem_and_the_other_is_still_checked(tmp_path, capsys):
    write_coco(tmp_path, 2)
    (line,) = problems(capsys, "--data", "coco", "--data-root", tmp_path, "--out", tmp_path / "out")
    assert line.startswith("problem: evaluation: ") and "no annotation file fits 'evaluation'" in line
    assert (tmp_path / "out" / "coco-training.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "hnit", "--data-root", "."], "did you mean 'hint'?"),
        (["--data", "hint"], "--data-root is the dataset's"),
        (["--data", "hint", "--data-root", "nowhere"], "no folder nowhere"),
        (["--data", "hint", "--data-root", ".", "--sample", "0"], "0 is less than one"),
        (["--data", "hint", "--data-root", ".", "DATA.RROT", "x"], "did you mean DATA.ROOT"),
        (["--data", "hint", "--data-root", ".", "--mano", "nowhere.pkl"], "nowhere.pkl"),
        ([], "--data"),
    ],
)
def test_the_users_mistakes_are_one_line_and_exit_two(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        prepare_data.main(["check", *arguments])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_packing_writes_shards_that_check_and_goes_on_where_it_stopped(tmp_path, capsys):
    write_coco(tmp_path / "set", 4)
    (tmp_path / "set" / "images" / "000000000001.jpg").unlink()
    command = ("pack", "--data", "coco", "--data-root", tmp_path / "set", "--out", tmp_path / "shards", "--shard", "2")
    code = prepare_data.main([*map(str, command)])
    output = capsys.readouterr()
    assert code == 0 and output.out.splitlines()[-1].startswith("3 hands in 2 shards")
    assert "000000000001.jpg" in output.err
    first = (tmp_path / "shards" / "000000.tar").stat().st_mtime_ns
    assert run(capsys, *command)[0] == 0
    assert (tmp_path / "shards" / "000000.tar").stat().st_mtime_ns == first
    assert problems(capsys, "--data", "tars", "--data-root", tmp_path / "shards", "--out", tmp_path / "out") == []
    other = (*command[:-1], "3")
    assert prepare_data.main([*map(str, other)]) == 1
    assert "pack into another folder" in capsys.readouterr().err


def hand_item(**changes):
    """An item with sensible labels, changed."""
    joints = np.column_stack((np.random.default_rng(0).normal([0, 0, 0.6], 0.03, (21, 3)), np.ones(21)))
    joints[9, :3] = joints[0, :3] + [0, 0.09, 0]
    keypoints = np.column_stack((np.random.default_rng(1).uniform(20, 44, (21, 2)), np.ones(21)))
    labels = Labels(keypoints, joints, betas=np.zeros(10), pose=np.zeros((16, 3)))
    return make_item(np.zeros((64, 64, 3), np.uint8), labels, Box(np.array([32.0, 32.0]), 64.0), 64, 0)._replace(
        **changes
    )


def test_item_problems_are_found_one_by_one():
    assert list(item_problems(hand_item())) == []
    item = hand_item()
    far = item.keypoints_2d.clone()
    far[:, :2] += 2
    stretched = item.joints.clone()
    stretched[:, :3] *= 1000
    mesh = torch.linspace(0, 30, 778 * 3).reshape(778, 3)
    for changes, message in (
        ({"betas": torch.full((10,), 11.0)}, "betas reach 11.0"),
        ({"keypoints_2d": far}, "no labelled keypoint lies in the crop"),
        ({"joints": stretched}, "are these millimetres?"),
        ({"vertices": mesh, "has_vertices": torch.tensor(1.0)}, "the mesh measures"),
        ({"hand_pose": torch.full((15, 3, 3), torch.nan)}, "hand_pose is not finite"),
    ):
        (problem,) = item_problems(hand_item(**changes))
        assert message in problem


def test_boxes_and_keypoints_outside_of_the_image_are_found():
    points = np.column_stack((np.full((21, 2), 50.0), np.ones(21)))
    middle = np.array([50.0, 50.0])
    assert list(sample_problems(Labels(points), Box(middle, 60.0), 100, 80)) == []
    (problem,) = sample_problems(Labels(points), Box(np.array([50.0, 81.0]), 60.0), 100, 80)
    assert problem == "the box's centre (50, 81) lies outside of the 100x80 image"
    (problem,) = sample_problems(Labels(points), Box(middle, 9000.0), 100, 80)
    assert "crop's side is 9000" in problem
    (problem,) = sample_problems(Labels(points + np.array([0, 90, 0])), Box(middle, 60.0), 100, 80)
    assert problem == "all 21 keypoints lie outside of the 100x80 image"
    behind = np.column_stack((np.zeros((21, 2)), np.full(21, -0.4), np.ones(21)))
    (problem,) = sample_problems(Labels(joints=behind), Box(middle, 60.0), 100, 80)
    assert "behind the camera" in problem


def test_reprojection_and_tips_are_measured_in_pixels_and_metres():
    camera = np.array([[100.0, 0, 50], [0, 200.0, 40], [0, 0, 1]])
    joints = np.column_stack((np.zeros((21, 2)), np.full(21, 0.5), np.ones(21)))
    points = np.column_stack((np.full(21, 50.0), np.full(21, 40.0), np.ones(21)))
    assert reprojection(Labels(points, joints), camera) == 0
    joints[7, 0] = 0.02  # 0.02 / 0.5 * 100 = 4 pixels
    assert reprojection(Labels(points, joints), camera) == pytest.approx(4)
    points[7, 2] = 0
    assert reprojection(Labels(points, joints), camera) == 0
    assert reprojection(Labels(points), camera) is None
    vertices = np.tile([0, 0, 0.5], (778, 1))
    vertices[444] = [0, 0.003, 0.504]  # HO-3D's middle fingertip, not HaMeR's
    assert tips_apart(Labels(points, joints, vertices), "hamer") == 0
    assert tips_apart(Labels(points, joints, vertices), "ho3d") == pytest.approx(0.005)


def test_the_page_shows_hands_from_all_over_a_set_however_many_were_sampled():
    report = Report()
    for number in range(1000):
        report.show(hand_item(), f"{number}")
    numbers = [int(caption) for _, caption in report.shown]
    assert len(numbers) <= 8 * 24 and numbers == sorted(numbers) and numbers[0] < 100 and numbers[-1] > 900
    assert contact_sheet(report).shape[1] > contact_sheet(Report(shown=report.shown[:2])).shape[1] > 2 * 256
    assert contact_sheet(Report()) is None


def test_real_images_have_no_problem(shared_data):
    report = check(real("freihand", shared_data("realhand")), 20)
    assert report.problems == [] and len(report.shown) == 20
    assert report.facts[0] == "80 hands (80 right, 0 left) in 80 images"
    report = check(real("interhand", shared_data("interhand")), 20)
    assert report.problems == [] and report.facts[0] == "6 hands (3 right, 3 left) in 4 images"
    report = check(real("coco", shared_data("freihand_2d")), 20)
    assert report.problems == [] and report.facts[0] == "8 hands (8 right, 0 left) in 8 images"


def real(name, root):
    cfg = load_config(None, ["DATA.NAME", name, "DATA.ROOT", str(root), *KEPT_APART])
    return build_dataset(cfg, load_hand("embedded"), train=False)
