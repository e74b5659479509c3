"""The dataset of a teacher's labels: splits, points and meshes, folders that move, damage."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from test_labelling import hand_at

from fasthamer.data.crop import hand_box
from fasthamer.data.readers.labelled import Labelled
from fasthamer.data.readers.labelled_files import LabelledHand, write_about, write_part
from fasthamer.files.images import write_image

HAND = SimpleNamespace(fingerprint="0123456789ab", name="mine")
NAMES = ("a/1.png", "a/2.png", "b.png")


def hand(number, meshes):
    rng = np.random.default_rng(number)
    points, joints = hand_at(30, 30, number), rng.normal(0, 0.05, (21, 3))
    certain = np.linspace(0, 1, 21)
    extra = (rng.normal(0, 0.05, (778, 3)), rng.normal(0, 1, (16, 3)), rng.normal(0, 1, 10)) if meshes else ()
    box = np.concatenate((points.min(0), points.max(0)))
    columns = np.column_stack((points, certain)), np.column_stack((joints, certain))
    return LabelledHand(NAMES[number % 3], number == 2, number % 2 == 0, 0.9, box, *columns, *extra)


def write_labels(folder, meshes=True, **changes):
    """Three images and four hands in three files, of which one holds no hand; image b.png is for evaluation."""
    for name in NAMES:
        write_image(folder / "images" / name, np.full((60, 70, 3), 90, np.uint8))
    out = folder / "out"
    hands = [hand(number, meshes) for number in range(4)]
    for number, part in enumerate((hands[:3], [], hands[3:])):
        write_part(out / f"{number:06d}.npz", part)
    about = {
        "images": ["../images", "/nowhere/images"],
        "settings": {"teacher": "test", "hand": HAND.fingerprint if meshes else None},
        "complete": True,
        "parts": {
            f"{number:06d}.npz": {"hands": len(part), "left_out": ["x.png: no hand found"]}
            for number, part in enumerate((hands[:3], [], hands[3:]))
        },
    }
    write_about(out, about | changes)
    return out, hands


def test_labels_read_back_and_splits_are_apart(tmp_path):
    out, hands = write_labels(tmp_path)
    everything = Labelled(out, "all", HAND)
    assert len(everything) == 4 and everything.info.left_out == (
        "3 images or hands, each with its reason in labels.json",
    )
    assert everything.info.meshes and everything.info.poses
    for index, wanted in enumerate(hands):
        labels, sample = everything.labels(index), everything.raw_sample(index)
        np.testing.assert_allclose(labels.keypoints, wanted.keypoints, rtol=1e-6)
        np.testing.assert_allclose(labels.joints[:, :3], wanted.joints[:, :3] + [0, 0, 1], rtol=1e-6)
        np.testing.assert_allclose(labels.joints[:, 3], wanted.joints[:, 3], rtol=1e-6)
        np.testing.assert_allclose(
            labels.vertices, wanted.vertices + np.array([0, 0, 1]), atol=6.2e-5
        )  # half precision
        np.testing.assert_allclose(labels.pose, wanted.pose, rtol=1e-6)
        np.testing.assert_allclose(labels.betas, wanted.betas, rtol=1e-6)
        assert sample.left == (not wanted.right) and sample.path == out / "../images" / wanted.name
        around = hand_box(np.column_stack((wanted.keypoints[:, :2], np.ones(21))))  # whatever their confidence
        assert sample.box.side == pytest.approx(around.side, rel=1e-5)
    assert [Labelled(out, "training", HAND).sample_name(index) for index in range(3)] == [
        "a/1.png:right",
        "a/2.png:left",
        "a/1.png:left",
    ]
    (only,) = (Labelled(out, "evaluation", HAND).sample_name(index) for index in range(1))
    assert only == "b.png:right"
    item = everything[(0, 3)]
    assert item.mirrored == 1 and item.keypoints_2d[0, 2] == item.joints[0, 3] == 0 and item.joints[20, 3] == 1


def test_points_alone_fit_any_hand_and_meshes_only_their_own(tmp_path):
    other = SimpleNamespace(fingerprint="ba9876543210", name="other")
    points, _ = write_labels(tmp_path / "points", meshes=False)
    flat = Labelled(points, "all", other)
    assert not flat.info.meshes and not flat.info.poses
    assert flat[(0, 0)].has_vertices == flat[(0, 0)].has_pose == flat[(0, 0)].has_betas == 0
    meshes, _ = write_labels(tmp_path / "meshes")
    with pytest.raises(ValueError, match=r"hand model 0123456789ab, this run has other \(ba9876543210\): give --mano"):
        Labelled(meshes, "all", other)
    (meshes / "000000.vertices.npy").unlink()
    assert Labelled(meshes, "all", HAND, meshes=False)[(0, 0)].has_vertices == 0  # not needed, not opened
    with pytest.raises(FileNotFoundError, match=r"vertices.npy is missing"):
        Labelled(meshes, "all", HAND)


def test_images_are_found_where_both_folders_moved_and_by_an_edited_entry(tmp_path):
    write_labels(tmp_path / "old")
    shutil.move(tmp_path / "old", tmp_path / "new")
    assert Labelled(tmp_path / "new" / "out", "all", HAND)[(0, 0)].image.float().mean() > 0
    shutil.move(tmp_path / "new" / "images", tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="put the path of the images first in the list `images`"):
        Labelled(tmp_path / "new" / "out", "all", HAND)
    path = tmp_path / "new" / "out" / "labels.json"
    about = json.loads(path.read_text())
    path.write_text(json.dumps(about | {"images": [str(tmp_path / "elsewhere"), *about["images"]]}))
    assert Labelled(tmp_path / "new" / "out", "all", HAND).image_path(0) == tmp_path / "elsewhere" / "a" / "1.png"
    shutil.rmtree(tmp_path / "elsewhere" / "a")
    with pytest.raises(FileNotFoundError, match="the first that was labelled"):
        Labelled(tmp_path / "new" / "out", "all", HAND)


def test_what_is_incomplete_or_damaged_is_one_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no labels.json: make it with tools/prepare_data.py label"):
        Labelled(tmp_path, "all", HAND)
    out, _ = write_labels(tmp_path / "1", complete=False)
    with pytest.raises(ValueError, match="incomplete: run the command that began them again"):
        Labelled(out, "all", HAND)
    out, hands = write_labels(tmp_path / "2")
    with pytest.raises(ValueError, match="no split 'test': choose training, evaluation, all"):
        Labelled(out, "test", HAND)
    write_part(out / "000002.npz", [hands[3]._replace(vertices=None, pose=None, betas=None)])
    with pytest.raises(ValueError, match="holds other labels than"):
        Labelled(out, "all", HAND)
    (out / "000002.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match="damaged archive"):
        Labelled(out, "all", HAND)
    (out / "labels.json").write_text("{}")
    with pytest.raises(ValueError, match="damaged: label the images again"):
        Labelled(out, "all", HAND)
    out, hands = write_labels(tmp_path / "3")
    for number, part in enumerate((hands[:1], [], hands[3:])):
        write_part(out / f"{number:06d}.npz", part)
    with pytest.raises(ValueError, match="--hold-out chooses images"):
        Labelled(out, "evaluation", HAND)


@pytest.mark.parametrize("damage", ["short", "pickle", "shape"])
def test_damaged_vertices_are_one_error(tmp_path, damage):
    out, _ = write_labels(tmp_path)
    file = out / "000000.vertices.npy"
    if damage == "short":
        file.write_bytes(file.read_bytes()[:5000])
    else:
        np.save(
            file, np.array([{}], object) if damage == "pickle" else np.zeros((2, 778, 3), np.float16), allow_pickle=True
        )
    with pytest.raises(ValueError, match=r"000000.vertices.npy: (damaged|does not fit)"):
        Labelled(out, "all", HAND)
    values = np.zeros((3, 778, 3), np.float16)
    values[1, 0, 0] = np.nan
    np.save(file, values)
    with pytest.raises(ValueError, match="vertices of hand 1 are not finite"):
        Labelled(out, "all", HAND)[(0, 1)]
