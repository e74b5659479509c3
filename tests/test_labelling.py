"""Labelling a folder of images: what is written, what is left out, going on after an interruption."""

import json

import numpy as np
import pytest
import torch
from miniatures_images import exact_output

from fasthamer.config import load_config
from fasthamer.data.build import build_dataset
from fasthamer.data.readers.labelled_files import ABOUT, SHAPES
from fasthamer.data.sample import Labels, make_item
from fasthamer.detect.boxes import hand_boxes
from fasthamer.detect.detections import Detections
from fasthamer.distill.labelling import held_out_images, label
from fasthamer.files.images import write_image
from fasthamer.files.safe_npz import read_npz
from fasthamer.hand.rotation import axis_angle_to_matrix
from fasthamer.teachers.labellers import Labelling, MeshLabeller
from fasthamer.tools import prepare_data
from fasthamer.types import ManoParams, View


def hand_at(x, y, seed=0):
    """(21, 2) pixels around a place."""
    return np.random.default_rng(seed).uniform(-8, 8, (21, 2)) + np.array([x, y])


def detector(image):
    """As many hands as the first pixel's red value, the second of two a left one."""
    points = np.stack([hand_at(20 + 30 * i, 25, i) for i in range(image[0, 0, 0])]) if image[0, 0, 0] else None
    if points is None:
        return Detections(np.zeros((0, 4)), np.zeros(0, bool), np.zeros(0), np.zeros((0, 21, 2)))
    boxes = np.concatenate((points.min(1), points.max(1)), 1)
    return Detections(boxes, np.arange(len(points)) == 0, np.full(len(points), 0.9), points)


class Points:
    """Labels with the detector's landmarks; refuses hands of images whose green value is 9; fails after `calls`."""

    hand = None

    def __init__(self, calls=100):
        self.calls, self.seen = calls, 0

    @staticmethod
    def views(image, found):
        return [
            (points, right, image[0, 0, 1] == 9) for points, right in zip(found.landmarks, found.right, strict=True)
        ]

    def __call__(self, views):
        self.seen += len(views)
        if self.seen > self.calls:
            raise KeyboardInterrupt
        return ["in doubt" if doubtful else self.labels(points, right) for points, right, doubtful in views]

    @staticmethod
    def labels(points, right):
        certain = np.linspace(0, 1, 21)[:, None]
        return Labelling(bool(right), np.hstack((points, certain)), np.hstack((points / 500, points[:, :1], certain)))


def write_images(folder):
    """Seven images with 1, 2, 0, 1, 1, 1 hands and a damaged one; the fourth one's hand is in doubt."""
    for number, (hands, green) in enumerate([(1, 0), (2, 0), (0, 0), (1, 9), (1, 0), (1, 0)]):
        image = np.zeros((50, 80, 3), np.uint8)
        image[0, 0] = hands, green, 0
        write_image(folder / ("b" if number == 1 else "a") / f"{number}.png", image)
    (folder / "c.jpg").write_bytes(b"\xff\xd8nothing")
    (folder / "notes.txt").write_text("no image")
    (folder / "held.txt").write_text("b/1.png\na/5.png\n")
    return folder


ABOUT_IT = {"teacher": "test"}


def labelled(tmp_path, labeller=None, out="out", **changes):
    folder = tmp_path / "images"
    if not folder.exists():
        write_images(folder)
    arguments = {"hold_out": str(folder / "held.txt"), "batch": 2, "part": 3} | changes
    return label(folder, tmp_path / out, labeller or Points(), detector, ABOUT_IT, **arguments)


def test_every_hand_is_written_in_the_order_of_the_paths_and_the_rest_is_named(tmp_path):
    done = labelled(tmp_path)
    assert (done.images, done.hands, done.held_out) == (7, 5, 3)
    names = [line.split(": ")[0] for line in done.left_out]
    assert names == ["a/2.png", "a/3.png", "c.jpg"]
    assert done.left_out[0].endswith("no hand found") and done.left_out[1].endswith("in doubt")
    assert "cannot be read" in done.left_out[2]
    tables = [read_npz(path, SHAPES, ("pose", "betas")) for path in sorted((tmp_path / "out").glob("*.npz"))]
    names = [name for table in tables for name in table["names"].tolist()]
    assert names == [b"a/0.png", b"a/4.png", b"a/5.png", b"b/1.png", b"b/1.png"]
    keypoints = np.concatenate([table["keypoints"] for table in tables])
    np.testing.assert_allclose(keypoints[4, :, :2], hand_at(50, 25, 1), rtol=1e-6)
    assert [bool(each) for table in tables for each in table["right"]] == [True, True, True, True, False]
    assert [bool(each) for table in tables for each in table["held_out"]] == [False, False, True, True, True]


def test_an_interrupted_run_goes_on_and_ends_with_the_same_files(tmp_path):
    labelled(tmp_path, out="whole")
    with pytest.raises(KeyboardInterrupt):
        labelled(tmp_path, Points(calls=2), out="parts")
    before = json.loads((tmp_path / "parts" / ABOUT).read_text())
    assert not before["complete"] and list(before["parts"]) == ["000000.npz"]
    rest = Points()
    labelled(tmp_path, rest, out="parts")
    assert rest.seen == 4  # those of a/4, a/5 and b/1, not of the first part again
    for name in ("000000.npz", "000001.npz", "000002.npz"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert json.loads((tmp_path / "parts" / ABOUT).read_text()) == json.loads((tmp_path / "whole" / ABOUT).read_text())


def test_other_settings_and_other_files_are_not_mixed_in(tmp_path):
    labelled(tmp_path)
    with pytest.raises(ValueError, match="part 3, now 2: write into another folder"):
        labelled(tmp_path, part=2)
    write_image(tmp_path / "images" / "new.png", np.zeros((50, 80, 3), np.uint8))
    with pytest.raises(ValueError, match="images 7, now 8"):
        labelled(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        labelled(tmp_path, out="full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]


def test_a_folder_without_hands_is_one_error(tmp_path):
    write_image(tmp_path / "images" / "1.png", np.zeros((50, 80, 3), np.uint8))
    with pytest.raises(ValueError, match=r"not one hand of .*images was labelled; the first image: 1.png: no hand"):
        labelled(tmp_path, hold_out="0")
    with pytest.raises(FileNotFoundError, match="no images"):
        label(tmp_path / "out", tmp_path / "other", Points(), detector, ABOUT_IT)


def test_a_share_is_held_out_by_the_hash_of_a_path_and_a_list_by_its_lines(tmp_path):
    names = [f"{number}.jpg" for number in range(2000)]
    chosen = held_out_images(names, "0.1")
    assert 150 < len(chosen) < 250
    assert held_out_images(names[::2], "0.1") == chosen & set(names[::2])  # whatever else is there
    assert held_out_images(names, "0") == set()
    for wrong in ("1", "-0.5", "nan"):
        with pytest.raises(ValueError, match="0 or more and less than 1"):
            held_out_images(names, wrong)
    with pytest.raises(FileNotFoundError, match="neither a share"):
        held_out_images(names, str(tmp_path / "none.txt"))
    (tmp_path / "list.txt").write_text("7.jpg\nother.jpg\n")
    with pytest.raises(ValueError, match=r"other.jpg is no image"):
        held_out_images(names, str(tmp_path / "list.txt"))


class Exact:
    """A teacher whose output is that of given items, whatever it sees."""

    image_size, view = 64, View()

    def __init__(self, items, hand, shape):
        self.items, self.hand, self.box_shape = items, hand, shape

    def __call__(self, image):
        return exact_output(self.items, self.hand)


@pytest.mark.parametrize("shape", ["hamer", "square", "upright"])
def test_labels_of_a_perfect_teacher_are_the_labels_of_the_image(embedded, shape):
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)
    labels, right = [], np.array([True, False])
    for is_right in right:
        sign = np.array([1.0 if is_right else -1.0, 1, 1])
        pose, betas = rng.normal(0, 0.4, (16, 3)), rng.normal(0, 1, 10)
        rotations = axis_angle_to_matrix(torch.from_numpy(pose).float())[None]
        mano = ManoParams(rotations[:, :1], rotations[:, 1:], torch.from_numpy(betas).float()[None])
        vertices, joints = (each[0].numpy() * sign for each in embedded(mano))
        points = joints[:, :2] * 300 + (80, 60)
        own = pose * (np.ones(3) if is_right else np.array([1, -1, -1]))
        certain = (np.column_stack((each, np.ones(21))) for each in (points, joints))
        labels.append(Labels(*certain, vertices, own, betas))
    landmarks = np.stack([each.keypoints[:, :2] for each in labels])
    found = Detections(np.concatenate((landmarks.min(1), landmarks.max(1)), 1), right, np.ones(2), landmarks)
    boxes = hand_boxes(found, shape)
    items = [
        make_item(image, each, box, 64, 0, left=not is_right)
        for each, box, is_right in zip(labels, boxes, right, strict=True)
    ]
    labeller = MeshLabeller(Exact(items, embedded, shape), torch.device("cpu"))
    for found_labels, wanted, is_right in zip(labeller(labeller.views(image, found)), labels, right, strict=True):
        assert found_labels.right == is_right
        np.testing.assert_allclose(found_labels.keypoints, wanted.keypoints, atol=1e-3)
        # A hand is turned about MANO's origin, its labels about the camera's: they agree from the wrist.
        wrists = found_labels.joints[0, :3], wanted.joints[0, :3]
        np.testing.assert_allclose(found_labels.joints[:, :3] - wrists[0], wanted.joints[:, :3] - wrists[1], atol=1e-5)
        np.testing.assert_allclose(found_labels.vertices - wrists[0], wanted.vertices - wrists[1], atol=1e-5)
        matrices = [axis_angle_to_matrix(torch.from_numpy(each)) for each in (found_labels.pose, wanted.pose)]
        torch.testing.assert_close(*matrices, atol=1e-5, rtol=0)
        np.testing.assert_allclose(found_labels.betas, wanted.betas, atol=1e-6)


def test_an_output_that_is_not_finite_is_left_out_with_the_reason(embedded):
    image, points = np.zeros((60, 60, 3), np.uint8), hand_at(30, 30)[None]
    found = Detections(np.array([[22.0, 22, 38, 38]]), np.array([True]), np.ones(1), points)
    keypoints = np.column_stack((points[0], np.ones(21)))
    item = make_item(image, Labels(keypoints), hand_boxes(found, "square")[0], 64, 0)
    labeller = MeshLabeller(Exact([item._replace(betas=torch.full((10,), torch.nan))], embedded, "square"), "cpu")
    assert labeller(labeller.views(image, found)) == ["the teacher's output is not finite"]


def test_the_command_labels_with_the_embedded_teacher_and_the_result_is_checked_and_opened(tmp_path, embedded, capsys):
    pytest.importorskip("onnxruntime", reason="the detector needs the extra [export]")
    from fasthamer.data.synthetic.dataset import SyntheticDataset

    rendered = SyntheticDataset(embedded, 8, 5, 256, scale=0.0, shift=0.0)
    for index in range(3):
        write_image(tmp_path / "images" / f"{index}.png", rendered[(0, index)].image.permute(1, 2, 0).numpy())
    where = ["--out", str(tmp_path / "out"), "DATA.WORKERS", "0", "DEVICE", "cpu"]
    code = prepare_data.main(["label", str(tmp_path / "images"), "--teacher", "embedded", "--hold-out", "0", *where])
    printed = capsys.readouterr().out
    assert code == 0 and "hands of 3 images labelled" in printed, printed
    about = json.loads((tmp_path / "out" / ABOUT).read_text())
    assert about["settings"]["hand"] == embedded.fingerprint and len(about["settings"]["teacher_file"]) == 16
    cfg = load_config(None, ["DATA.NAME", "labelled", "DATA.ROOT", str(tmp_path / "out"), "DATA.EVAL_SPLIT", "all"])
    items = build_dataset(cfg, embedded, train=False)
    assert len(items) == sum(part["hands"] for part in about["parts"].values())
    item = items[(0, 0)]
    assert item.has_pose == item.has_betas == item.has_vertices == 1 and item.joints[:, 3].all()
    mano = ManoParams(item.global_orient[None], item.hand_pose[None], item.betas[None])
    apart = embedded(mano)[0][0] - item.vertices
    assert float((apart - apart.mean(0)).abs().max()) < 2e-4  # vertices are stored in half precision
    assert (
        prepare_data.main(
            [
                "check",
                "--data",
                "labelled",
                "--data-root",
                str(tmp_path / "out"),
                "--split",
                "all",
                "--out",
                str(tmp_path / "check"),
            ]
        )
        == 0
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--teacher", "embedded"], "no folder nowhere"),
        (["{}", "--teacher", "embeded"], "did you mean"),
        (["{}", "--teacher", "hamer"], "needs its checkpoint"),
        (["{}", "--teacher", "embedded", "--tiles", "0"], "less than one"),
        (["{}", "--teacher", "embedded", "--hold-out", "most"], "neither a share"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.delenv("FASTHAMER_HAMER_CKPT", raising=False)
    write_image(tmp_path / "images" / "1.png", np.zeros((50, 80, 3), np.uint8))
    given = ["label", *(each.format(tmp_path / "images") for each in arguments), "--out", str(tmp_path / "out")]
    try:
        code = prepare_data.main(given)
    except SystemExit as stopped:
        code = stopped.code
    assert code in (1, 2) and message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
