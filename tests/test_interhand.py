"""InterHand2.6M: both hands, cameras and joints in three files; rendered and real, and damaged files."""

import json

import numpy as np
import pytest
from miniatures_2d import K, drawn_hands, write_interhand
from miniatures_capture import unreadable

from fasthamer.camera import project_pixels
from fasthamer.config import load_config
from fasthamer.data.build import build_dataset
from fasthamer.data.readers.coco import LARGE
from fasthamer.data.readers.interhand import InterHand
from fasthamer.hand.mano import load_hand


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("interhand")
    return root, write_interhand(root, 6)


@pytest.fixture
def fresh(tmp_path):
    write_interhand(tmp_path, 2)
    return tmp_path


def edited(root, kind, change):
    path = root / "annotations" / "train" / f"InterHand2.6M_train_{kind}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return root


def test_joints_are_metres_in_the_camera_frame_in_openpose_order(drawn):
    root, truth = drawn
    dataset = InterHand(root, "training")
    assert len(dataset) == 8  # six single hands and an image of two
    for index in range(8):
        name, side = dataset.sample_name(index).split(":")
        labels = dataset.labels(index)
        np.testing.assert_allclose(labels.joints[:, :3], truth[name, side], atol=1e-6)
        np.testing.assert_allclose(labels.keypoints[:, :2], project_pixels(truth[name, side], K), atol=1e-3)
        np.testing.assert_allclose(dataset.camera(index), K)
        assert (labels.joints[:, 3] == 1).all() and dataset.is_left(index) == (side == "left")
        assert labels.vertices is labels.pose is labels.betas is None
    assert [dataset.sample_name(index).split(":")[1] for index in (6, 7)] == ["right", "left"]
    assert dataset.image_path(6) == dataset.image_path(7)


def test_projected_joints_lie_on_the_rendered_hand(drawn):
    dataset = InterHand(drawn[0], "train")
    for index, (_, mask, _, _) in enumerate(drawn_hands(6)):
        points = np.rint(dataset.labels(index).keypoints[:, :2]).astype(int)
        assert all(mask[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].any() for x, y in points)


def test_points_and_images_of_left_hands_are_mirrored_alike(drawn):
    dataset = InterHand(drawn[0], "training")
    item, labels = dataset[(0, 1)], dataset.labels(1)
    assert item.mirrored == 1
    np.testing.assert_allclose(item.joints[:, :3], labels.joints[:, :3] * [-1, 1, 1], atol=1e-6)
    affine = item.crop.double().numpy()
    pixels = labels.keypoints[:, :2] @ affine[:, :2].T + affine[:, 2]
    np.testing.assert_allclose(item.keypoints_2d[:, :2], pixels / 256 - 0.5, atol=1e-5)


def test_invalid_joints_are_not_labels_nor_3d_joints_without_a_valid_wrist(fresh):
    def change(content):
        content["annotations"][0]["joint_valid"][4] = [0]  # the right index finger's tip
        content["annotations"][1]["joint_valid"][41] = [0]  # the left wrist
        content["annotations"][2]["joint_valid"][21:38] = [[0]] * 17  # all but four of a left hand

    dataset = InterHand(edited(fresh, "data", change), "training")
    assert [dataset.is_left(index) for index in range(len(dataset))] == [False, True, False]
    first, second = dataset.labels(0), dataset.labels(1)
    assert (
        np.flatnonzero(first.keypoints[:, 2] == 0).tolist() == [8] == np.flatnonzero(first.joints[:, 3] == 0).tolist()
    )
    assert second.keypoints[:, 2].tolist() == [0] + [1] * 20 and second.joints[:, 3].sum() == 0
    assert dataset[(0, 0)].joints[8].abs().sum() == 0


def test_joint_valid_files_that_disagree_are_joined_or_named(fresh):
    edited(fresh, "joint_3d", lambda c: c["0"]["100"]["joint_valid"].__setitem__(4, [0]))  # not measured after all
    labels = InterHand(fresh, "training").labels(0)
    assert labels.keypoints[8, 2] == labels.joints[8, 3] == 0 and labels.joints[:, 3].sum() == 20
    edited(fresh, "joint_3d", lambda c: c["0"]["100"].update(joint_valid=[[0]] * 42))
    with pytest.raises(ValueError, match=r"joint_valid is set in \S+data.json and for no joint in \S+joint_3d.json"):
        InterHand(fresh, "training").raw_sample(0)


def test_it_is_built_by_name_with_its_camera(drawn):
    cfg = load_config(None, ["DATA.NAME", "interhand", "DATA.ROOT", str(drawn[0]), "DATA.EVAL_SPLIT", "train"])
    dataset = build_dataset(cfg, load_hand("embedded"), train=False)
    assert dataset.camera(0).shape == (3, 3) and dataset.info.tips == "hamer"
    assert dataset[(0, 0)].joints[:, 3].sum() == 21


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("data", lambda c: c["annotations"][1].update(joint_valid=[[1]] * 21), r"annotations\[1\]: joint_valid of 21"),
        ("data", lambda c: c["images"][0].pop("frame_idx"), r"images\[0\] has no 'frame_idx'"),
        ("data", lambda c: c["images"][0].update(camera="7"), "camera.json has no camera 7 of capture 0"),
        ("data", lambda c: c["images"][0].update(frame_idx=7), "joint_3d.json has no frame 7 of capture 0"),
        ("data", lambda c: c["annotations"].clear(), "no hand with 5 joints"),
        ("camera", lambda c: c["0"].pop("focal"), "camera.json: a camera without 'focal'"),
        ("camera", lambda c: c["0"]["focal"].update({"400000": [1]}), "camera.json: damaged"),
        ("joint_3d", lambda c: c["0"]["100"].pop("joint_valid"), "frame 100: no world_coord and joint_valid"),
        ("joint_3d", lambda c: c["0"]["100"]["world_coord"].pop(), "frame 100: 41 joints, expected 42"),
        ("joint_3d", lambda c: c["0"]["100"]["world_coord"][3].__setitem__(0, float("nan")), "not finite"),
    ],
)
def test_a_damaged_file_is_named(fresh, kind, change, message):
    with pytest.raises(ValueError, match=message):
        InterHand(edited(fresh, kind, change), "training")[(0, 0)]


def test_the_index_of_a_large_file_is_cached_until_the_file_changes(fresh, tmp_path):
    cache = tmp_path / "indexes"
    InterHand(fresh, "training", cache=str(cache))
    assert not cache.exists()  # a small file is read each time
    data = fresh / "annotations" / "train" / "InterHand2.6M_train_data.json"
    data.write_text(data.read_text() + " " * LARGE)
    first = InterHand(fresh, "training", cache=str(cache))
    assert len(list(cache.iterdir())) == 1
    with unreadable(data):  # reading it again would fail
        again = InterHand(fresh, "training", cache=str(cache))
    for index in range(len(first)):
        assert first.sample_name(index) == again.sample_name(index)
        np.testing.assert_array_equal(first.labels(index).joints, again.labels(index).joints)
    edited(fresh, "data", lambda content: content["annotations"].pop())
    data.write_text(data.read_text() + " " * LARGE)
    assert len(InterHand(fresh, "training", cache=str(cache))) == len(first) - 2


def test_metres_in_place_of_millimetres_are_detected(fresh):
    def shrink(content):
        for frame in content["0"].values():
            frame["world_coord"] = (np.array(frame["world_coord"]) / 1000).tolist()

    def move(content):
        for name, place in content["0"]["campos"].items():
            content["0"]["campos"][name] = (np.array(place) / 1000).tolist()

    edited(fresh, "joint_3d", shrink)
    edited(fresh, "camera", move)
    with pytest.raises(ValueError, match=r"wrist to middle knuckle is .* m, a hand's is about 0.09"):
        InterHand(fresh, "training")[(0, 0)]


def test_swapped_hands_and_flipped_axes_are_detected(tmp_path):
    write_interhand(tmp_path, 8)

    def swap(content):
        for frame in content["0"].values():
            for key in ("world_coord", "joint_valid"):
                frame[key] = frame[key][21:] + frame[key][:21]

    def swap_valid(content):
        for hand in content["annotations"]:
            hand["joint_valid"] = hand["joint_valid"][21:] + hand["joint_valid"][:21]

    def turn(content):
        camera = content["0"]["camrot"]
        for name, rotation in camera.items():
            camera[name] = (np.diag([1, -1, -1]) @ np.array(rotation)).tolist()

    edited(tmp_path, "joint_3d", swap)
    edited(tmp_path, "data", swap_valid)
    with pytest.raises(ValueError, match="left and right are swapped"):
        InterHand(tmp_path, "training")
    edited(tmp_path, "joint_3d", swap)
    edited(tmp_path, "data", swap_valid)
    edited(tmp_path, "camera", turn)
    with pytest.raises(ValueError, match="behind the camera"):
        InterHand(tmp_path, "training")[(0, 0)]


def test_missing_files_are_named(fresh):
    with pytest.raises(FileNotFoundError, match="no folder"):
        InterHand(fresh / "nowhere", "training")
    with pytest.raises(FileNotFoundError, match=r"no InterHand2.6M_test_data.json"):
        InterHand(fresh, "evaluation")
    image = InterHand(fresh, "training").image_path(0)
    image.unlink()
    with pytest.raises(FileNotFoundError, match=f"no image .*{image.name}"):
        InterHand(fresh, "training")[(0, 0)]
    (fresh / "annotations" / "train" / "InterHand2.6M_train_camera.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"train_camera.json is missing"):
        InterHand(fresh, "training")


def test_real_frames_have_their_joints_on_the_hand(shared_data):
    dataset = InterHand(shared_data("interhand"), "evaluation")
    assert [dataset.sample_name(index) for index in range(len(dataset))] == [
        *("image69148.jpg:right", "image69148.jpg:left", "image44669.jpg:right", "image44669.jpg:left"),
        *("image29590.jpg:left", "image2017.jpg:right"),
    ]
    for index in range(6):
        labels, item = dataset.labels(index), dataset[(0, index)]
        assert (labels.keypoints[:, 2] == 1).all() and 0.07 < np.linalg.norm(
            labels.joints[9, :3] - labels.joints[0, :3]
        ) < 0.1
        x, y = ((item.keypoints_2d[1:, :2] + 0.5) * 256).round().long().T
        assert (
            item.image[0, y, x].float().mean() > 1.4 * item.image[0].float().mean()
        )  # hands are bright, the rest is dark
    boxes = {326750: (33.6, 164.9, 185.1, 142.7)}  # annotated: around both hands, with a margin
    low = np.minimum(*(dataset.labels(index).keypoints[:, :2].min(0) for index in (0, 1)))
    high = np.maximum(*(dataset.labels(index).keypoints[:, :2].max(0) for index in (0, 1)))
    x, y, width, height = boxes[326750]
    assert (low > [x, y]).all() and (high < [x + width, y + height]).all()
