"""HInt from its folders and from HaMeR's lists, rendered and real; and the errors for wrong or damaged files."""

import json

import numpy as np
import pytest
from miniatures_2d import SIZE, drawn_hands, write_hamer_list, write_hint

from fasthamer.config import load_config
from fasthamer.data.augment import Strength
from fasthamer.data.build import build_dataset
from fasthamer.data.readers.hint import HInt, read_hand
from fasthamer.hand.mano import load_hand
from fasthamer.students import build_student, save_student
from fasthamer.tools import eval as evaluation


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("hint")
    write_hint(root, 4)
    write_hamer_list(root)
    return root


@pytest.fixture
def fresh(tmp_path):
    write_hint(tmp_path, 1, ["TEST_newdays_img"])
    return tmp_path


def in_image(item):
    """The item's keypoints (21, 2) in pixels of its image."""
    pixels = (item.keypoints_2d[:, :2].double().numpy() + 0.5) * item.image.shape[-1]
    affine = item.crop.double().numpy()
    return np.linalg.solve(affine[:, :2], (pixels - affine[:, 2]).T).T


def test_keypoints_are_valid_if_they_lie_inside_the_image(tmp_path):
    truth = write_hint(tmp_path)
    dataset = HInt(tmp_path, "TEST_newdays_img")
    cut = 0
    for index in range(len(dataset)):
        points = truth[dataset.image_path(index).with_suffix("")]
        labels = dataset.labels(index)
        np.testing.assert_allclose(labels.keypoints[:, :2], points)
        inside = (points >= 0).all(1) & (points < SIZE).all(1)
        np.testing.assert_array_equal(labels.keypoints[:, 2] == 1, inside)
        cut += (~inside).sum()
        assert labels.joints is labels.vertices is labels.pose is labels.betas is None
    assert cut, "the miniature has to cut some hands at the edge"


def test_visible_and_occluded_keypoints_are_a_partition_of_all(folder):
    every, visible, occluded = (HInt(folder, f"evaluation{kind}") for kind in ("", "_vis", "_occ"))
    for index in range(len(every)):
        hidden = read_hand(every.image_path(index).with_suffix(".json")).occluded
        known = [dataset.labels(index).keypoints[:, 2] > 0 for dataset in (every, visible, occluded)]
        np.testing.assert_array_equal(known[0], known[1] | known[2])
        assert not (known[1] & known[2]).any()
        np.testing.assert_array_equal(known[2], known[0] & hidden)


def test_hamers_list_gives_the_same_labels_as_the_folder(folder):
    for kind in ("all", "vis", "occ"):
        listed, found = HInt(folder, f"TEST_newdays_img_{kind}.npz"), HInt(folder, f"TEST_newdays_img_{kind}")
        assert len(listed) == len(found) == 4
        for index in range(4):
            one, two = listed[(0, index)], found[(0, index)]
            assert listed.sample_name(index) == found.sample_name(index)
            for name in ("image", "keypoints_2d", "crop", "mirrored"):
                np.testing.assert_allclose(getattr(one, name).double(), getattr(two, name).double(), atol=1e-4)


def test_the_crop_is_twice_the_longer_side_of_the_annotated_box(folder):
    dataset = HInt(folder, "evaluation")
    for index in range(len(dataset)):
        (record,) = json.loads(dataset.image_path(index).with_suffix(".json").read_text())
        x1, y1, x2, y2 = record["bbox"][0]
        centre, side, _ = dataset.raw_sample(index).box
        assert side == pytest.approx(2 * max(x2 - x1, y2 - y1))
        np.testing.assert_allclose(centre, [(x1 + x2) / 2, (y1 + y2) / 2])


def test_keypoints_of_left_hands_are_mirrored_with_the_crop(folder):
    dataset = HInt(folder, "evaluation", strength=Strength(), seed=3)
    sides = set()
    for index in range(len(dataset)):
        item, points = dataset[(2, index)], dataset.labels(index).keypoints
        known = points[:, 2] > 0
        np.testing.assert_allclose(in_image(item)[known], points[known, :2], atol=1e-3)
        assert (np.linalg.det(item.crop[:, :2]) < 0) == item.mirrored == dataset.is_left(index)
        sides.add(dataset.is_left(index))
    assert sides == {True, False}


def test_keypoints_lie_on_the_rendered_hand(tmp_path):
    write_hint(tmp_path, 4, ["VAL_ego4d_seq"], off_centre=0.0)
    dataset = HInt(tmp_path, "VAL_ego4d_seq")
    for index, (_, mask, _, _) in enumerate(drawn_hands(4, off_centre=0.0)):
        grown = np.pad(mask, 1)  # within a pixel of it
        near = np.any([grown[1 + y : 241 + y, 1 + x : 321 + x] for y in (-1, 0, 1) for x in (-1, 0, 1)], axis=0)
        x, y = np.rint(dataset.labels(index).keypoints[:, :2]).astype(int).T
        assert near[y, x].all()


def test_training_joins_all_official_folders_and_lists_those_without_images(folder, tmp_path):
    write_hint(tmp_path, 2, ["TRAIN_epick_img", "TRAIN_newdays_img", "TRAIN_ego4d_img", "VAL_epick_img"])
    for path in (tmp_path / "TRAIN_ego4d_img").glob("*.jpg"):
        path.unlink()
    dataset = HInt(tmp_path, "training")
    assert {dataset.image_path(index).parent.name for index in range(4)} == {"TRAIN_epick_img", "TRAIN_newdays_img"}
    assert len(dataset) == 4 and dataset.info.left_out == ("TRAIN_ego4d_img (folders without images)",)


def test_it_is_built_by_name_and_scored_by_pck(folder):
    hand = load_hand("embedded")
    cfg = load_config(None, ["DATA.NAME", "hint", "DATA.ROOT", str(folder), "IMAGE_SIZE", "64"])
    train, held_out = (build_dataset(cfg, hand, train) for train in (True, False))
    assert held_out.info.protocol == "hint" and len(train) == 4
    assert train[(0, 0)].joints.abs().sum() == train[(0, 0)].has_pose == 0
    assert train[(0, 0)].keypoints_2d[:, 2].sum() > 0
    assert not (train[(0, 0)].image == train[(1, 0)].image).all()


def test_evaluating_a_student_gives_pck_and_the_keypoints(folder, tmp_path):
    save_student(tmp_path / "student.safetensors", build_student("timm:test_resnet", "mano", "tiny", 64), {})
    arguments = ["--model", str(tmp_path / "student.safetensors"), "--data", "hint", "--data-root", str(folder)]
    small = ["IMAGE_SIZE", "64", "DATA.WORKERS", "0", "DEVICE", "cpu"]
    for split in ("TEST_newdays_img_occ", "TEST_newdays_img_occ.npz"):
        assert evaluation.main([*arguments, "--split", split, "--out", str(tmp_path / split), *small]) == 0
    one, two = (
        json.loads((tmp_path / split / "scores.json").read_text())
        for split in ("TEST_newdays_img_occ", "TEST_newdays_img_occ.npz")
    )
    assert one["protocol"] == "hint" and one["n"] == 4 and 0 <= one["pck_05"] <= one["pck_15"] <= 1
    assert {key: one[key] for key in one if key.startswith("pck")} == {
        key: two[key] for key in two if key.startswith("pck")
    }
    keypoints = json.loads((tmp_path / "TEST_newdays_img_occ" / "keypoints.json").read_text())
    assert np.shape(keypoints) == (4, 21, 2)


@pytest.mark.parametrize(
    ("split", "kind", "message"),
    [
        ("TEST_newdays", ValueError, "no split 'TEST_newdays': expected training, evaluation"),
        ("TEST_epick_img", FileNotFoundError, "no folder .*TEST_epick_img"),
        ("training", FileNotFoundError, r"no folder TRAIN_\*_img with images"),
        ("TEST_epick_img_all.npz", FileNotFoundError, "no list .*TEST_epick_img_all.npz"),
    ],
)
def test_a_missing_split_is_named_in_the_error(fresh, split, kind, message):
    with pytest.raises(kind, match=message):
        HInt(fresh, split)


def test_an_image_or_annotation_without_its_counterpart_is_named(fresh):
    (image,) = (fresh / "TEST_newdays_img").glob("*.jpg")
    image.rename(image.with_name("other_l.jpg"))
    with pytest.raises(FileNotFoundError, match=r"ND_video0_frame000000_r.jpg is missing, 2 pairs are incomplete"):
        HInt(fresh, "evaluation")


def test_a_file_name_without_a_side_is_refused(fresh):
    for path in (fresh / "TEST_newdays_img").iterdir():
        path.rename(path.with_stem("frame"))
    with pytest.raises(ValueError, match=r"frame.jpg does not name its hand's side"):
        HInt(fresh, "evaluation")


def test_the_error_for_ego4d_without_frames_says_where_to_get_them(tmp_path):
    write_hint(tmp_path, 1, ["TEST_ego4d_img"])
    for path in (tmp_path / "TEST_ego4d_img").glob("*.jpg"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="Ego4D's frames have to be fetched separately"):
        HInt(tmp_path, "TEST_ego4d_img")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"occlusion": None}, "no 'occlusion'"),
        ({"keypoints": [[1.0, 2.0]] * 20}, "not one hand of HInt"),
        ({"keypoints": [[float("nan"), 2.0]] * 21}, "not finite"),
        ({"bbox": [[50, 50, 40, 90]]}, "is empty, expected x1, y1, x2, y2"),
    ],
)
def test_a_damaged_annotation_is_named(fresh, change, message):
    (path,) = (fresh / "TEST_newdays_img").glob("*.json")
    (record,) = json.loads(path.read_text())
    path.write_text(json.dumps([{key: value for key, value in (record | change).items() if value is not None}]))
    with pytest.raises(ValueError, match=f"{path.name}: .*{message}"):
        HInt(fresh, "evaluation")[(0, 0)]


def test_truncated_annotations_and_images_are_named(fresh):
    (path,) = (fresh / "TEST_newdays_img").glob("*.json")
    whole = path.read_text()
    path.write_text(whole[:90])
    with pytest.raises(ValueError, match=path.name):
        HInt(fresh, "evaluation")[(0, 0)]
    path.write_text(whole)
    image = path.with_suffix(".jpg")
    image.write_bytes(image.read_bytes()[:700])
    with pytest.raises(ValueError, match=f"{image.name}: damaged image"):
        HInt(fresh, "evaluation")[(0, 0)]


class _Trap:
    def __reduce__(self):
        return print, ("a pickle was executed",)


def test_a_list_with_pickled_objects_is_refused_unopened(folder, tmp_path, capsys):
    with np.load(folder / "TEST_newdays_img_all.npz") as stored:
        arrays = dict(stored)
    path = tmp_path / "TEST_newdays_img_all.npz"
    np.savez(path, **(arrays | {"imgname": np.array([_Trap()] * 4, dtype=object)}))
    with pytest.raises(ValueError, match=r"TEST_newdays_img_all.npz"):
        HInt(folder, str(path))
    assert capsys.readouterr().out == ""
    np.savez(path, **(arrays | {"right": arrays["right"][:2]}))
    with pytest.raises(ValueError, match="different lengths"):
        HInt(folder, str(path))


def test_the_sides_of_a_list_may_be_numbers_or_names_and_nothing_else(folder, tmp_path):
    with np.load(folder / "TEST_newdays_img_all.npz") as stored:
        arrays = dict(stored)
    path = tmp_path / "TEST_newdays_img_all.npz"
    names = np.where(arrays["right"] > 0, "right", "left")
    np.savez(path, **(arrays | {"right": names}))
    dataset = HInt(folder, str(path))
    assert [dataset.is_left(index) for index in range(len(names))] == (names == "left").tolist()
    np.savez(path, **(arrays | {"right": arrays["right"] + 0.5}))
    with pytest.raises(ValueError, match=r"TEST_newdays_img_all.npz: right: \S+ is no side"):
        HInt(folder, str(path))


def test_the_real_list_of_newdays_has_the_published_counts(shared_data, tmp_path):
    folder = shared_data("hint")
    (tmp_path / "TEST_newdays_img").mkdir()  # without the images
    for kind, keypoints in (("all", 34110), ("occ", 12527), ("vis", 21583)):
        path = tmp_path / f"TEST_newdays_img_{kind}.npz"
        path.symlink_to(folder / path.name)
        dataset = HInt(tmp_path, path.name)
        assert len(dataset) == 1753
        labels = [dataset.labels(index).keypoints for index in range(1753)]
        assert sum((each[:, 2] > 0).sum() for each in labels) == keypoints
    assert dataset.sample_name(1) == "ND_0-A_ctkz_oE_frame003601_l.jpg" and dataset.is_left(1)
    centre, side, _ = dataset.raw_sample(0).box
    assert centre.tolist() == [578.0, 189.5] and side == 2 * 319.0
    # The side in the file name equals the side in the list; folders have only the names.
    assert all(dataset.is_left(index) == dataset.sample_name(index).endswith("_l.jpg") for index in range(1753))
    # Invalid keypoints lie outside the image, whose size is estimated from the valid keypoints of its video.
    with np.load(folder / "TEST_newdays_img_all.npz") as stored:
        names, points = stored["imgname"], stored["hand_keypoints_2d"]
    videos = np.array([name.split("_frame")[0] for name in names])
    assert (points[..., 2] == 0).sum() == 2703
    for video in np.unique(videos):
        its = points[videos == video].reshape(-1, 3)
        counted, others = its[its[:, 2] > 0, :2], its[its[:, 2] == 0, :2]
        assert (counted >= 0).all() and not ((others >= 0) & (others <= counted.max(0))).all(1).any()
    with pytest.raises(FileNotFoundError, match=r"no image .*ND_0-A_ctkz_oE_frame001501_r.jpg"):
        dataset[(0, 0)]
