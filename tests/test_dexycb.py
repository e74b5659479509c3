"""DexYCB's layout: splits, both hands, calibration; wrong or damaged files are in test_dexycb_damaged."""

import itertools
import pickle

import cv2
import numpy as np
import pytest
import torch
from miniatures_capture import (
    DEXYCB_TIPS,
    OPENPOSE,
    SUBJECTS,
    left_arrays,
    mano,
    npz_bytes,
    posed,
    project,
    replaced,
    subject_betas,
    unreadable,
    write_dexycb,
)
from outlines import off_the_hand, outline_error

from fasthamer.config import load_config
from fasthamer.data.augment import Strength
from fasthamer.data.build import build_dataset
from fasthamer.data.crop import mirror_points
from fasthamer.data.readers.base import mano_vertices
from fasthamer.data.readers.dexycb import DexYCB
from fasthamer.data.readers.dexycb_files import frames_of, read_betas, read_extrinsics, read_intrinsics
from fasthamer.files.images import read_image
from fasthamer.files.safe_npz import read_npz
from fasthamer.files.safe_yaml import read_yaml
from fasthamer.hand.mano import Hand, load_hand
from fasthamer.hand.mano_files import read_hand_arrays
from fasthamer.types import ManoParams


@pytest.fixture(scope="module")
def arrays():
    return read_hand_arrays("embedded")


@pytest.fixture(scope="module")
def right(arrays):
    """Replaces the licensed MANO file: the embedded arrays under another name."""
    return Hand(arrays, "MANO_RIGHT")


@pytest.fixture(scope="module")
def test_set(dexycb_root, right):
    return DexYCB(dexycb_root, "s0_test", right)


def sample(dataset, left):
    return next(i for i in range(len(dataset)) if dataset.is_left(i) == left)


def official_samples(setup, split):
    """(subject, sequence, serial) in the toolkit's order, as described in its README."""
    subjects, cameras, numbers = range(10), range(8), range(100)
    if setup == "s0":
        numbers = [i for i in numbers if (i % 5 == 4) == (split != "train")]
        subjects = {"train": subjects, "val": [0, 1], "test": range(2, 10)}[split]
    elif setup == "s1":
        subjects = {"train": [0, 1, 2, 3, 4, 5, 9], "val": [6], "test": [7, 8]}[split]
    elif setup == "s2":
        cameras = {"train": range(6), "val": [6], "test": [7]}[split]
    else:
        kept = {"train": [0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 16, 17, 18], "val": [3, 19], "test": [7, 11, 15]}
        numbers = [i for i in numbers if i // 5 in kept[split]]
    return itertools.product(subjects, numbers, cameras)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A dataset without images in which every seventh sequence shows a hand, of three frames, in the last two."""
    hands = {(s, q): "left" if q % 2 else "right" for s in range(10) for q in range(100) if (s + q) % 7 == 0}
    folder = tmp_path_factory.mktemp("many")
    return write_dexycb(folder, hands=hands, frames=3, images=False), hands


@pytest.mark.parametrize("setup", ["s0", "s1", "s2", "s3"])
def test_splits_and_image_ids_equal_the_toolkits(many, setup):
    folder, hands = many
    for split in ("train", "val", "test"):
        expected, image_id = [], 0
        for subject, number, camera in official_samples(setup, split):
            for time in range(3):
                if (subject, number) in hands and time > 0:
                    expected.append((SUBJECTS[subject], number, camera, time, image_id))
                image_id += 1
        frames = frames_of(folder, f"{setup}_{split}")
        sequences = [frames.folders[i].split("/") for i in frames.sequence]
        numbers = [(int(name.split("_")[1]) - 100000) // 37 for _, name in sequences]
        found = zip([s for s, _ in sequences], numbers, frames.camera, frames.time, frames.image_id, strict=True)
        assert list(found) == expected
        assert [bool(frames.left[i]) for i in frames.sequence] == [number % 2 == 1 for number in numbers]


def test_training_and_evaluation_are_s0(dexycb_root, right):
    config = load_config(None, ["DATA.NAME", "dexycb", "DATA.ROOT", str(dexycb_root)])
    train, test = (build_dataset(config, right, train=train) for train in (True, False))
    assert {train.image_path(i).parts[-4][-2:] for i in range(len(train))} == {"01"} and len(train) == 16
    assert {test.image_path(i).parts[-4][-2:] for i in range(len(test))} == {"03"} and len(test) == 16
    assert train[(0, 0)].has_vertices == 0 and test[(0, 0)].has_vertices == 1  # no loss asks for meshes
    chosen = build_dataset(load_config(None, ["DATA.EVAL_SPLIT", "s0_val", *named(dexycb_root)]), right, train=False)
    assert len(chosen) == 16 and chosen.info.protocol == chosen.info.tips == "dexycb"


def named(dexycb_root):
    return ["DATA.NAME", "dexycb", "DATA.ROOT", str(dexycb_root)]


@pytest.mark.parametrize("left", [False, True])
def test_projected_labels_lie_on_the_rendered_hand(test_set, arrays, left):
    faces = arrays["f"]
    first = sample(test_set, left)
    for index in range(first, first + 8):  # one frame before eight cameras
        labels, image = test_set.labels(index), read_image(test_set.image_path(index))
        assert outline_error(labels.vertices, faces, test_set.camera(index), image) <= 1
        assert off_the_hand(labels.keypoints[:, :2], image).max() < 1.5
        projected = project(labels.joints[:, :3], test_set.camera(index))
        np.testing.assert_allclose(projected, labels.keypoints[:, :2], atol=1e-3)
        item = test_set[(0, index)]
        crop = item.image.numpy().transpose(1, 2, 0)
        assert off_the_hand((item.keypoints_2d[:, :2].numpy() + 0.5) * 256, crop).max() < 2.5
        assert item.mirrored == left


@pytest.mark.parametrize("side", ["right", "left"])
def test_meshes_equal_those_of_the_model_used_for_annotation(test_set, arrays, side):
    """Left hands use the left model as released; the reference is smplx's own layer."""
    index = sample(test_set, side == "left")
    label = np.load(test_set.image_path(index).with_name("labels_000001.npz"))
    model = arrays if side == "right" else left_arrays(arrays)
    pose = label["pose_m"][0].astype(float)
    absolute = [*pose[:3], *(model["hands_mean"] + pose[3:48] @ model["hands_components"])]
    betas = subject_betas(2)
    vertices, joints = posed(mano(model, side == "right"), absolute, betas, pose[48:])
    labels = test_set.labels(index)
    np.testing.assert_allclose(labels.vertices, vertices, atol=1e-6)
    np.testing.assert_allclose(labels.pose.ravel(), absolute, atol=1e-9)
    expected = np.concatenate((joints, vertices[DEXYCB_TIPS[side]]))[OPENPOSE]
    np.testing.assert_allclose(labels.joints[:, :3], expected, atol=1e-6)
    if side == "left":
        other, _ = posed(mano(left_arrays(arrays, fixed=True), False), absolute, betas, pose[48:])
        assert np.abs(other - vertices).max() > 1e-3  # the other convention is another hand


def test_parameters_give_the_labelled_mesh_also_when_augmented(dexycb_root, right):
    dataset = DexYCB(dexycb_root, "s0_test", right, strength=Strength(), seed=3)
    item = dataset[(2, sample(dataset, False))]
    assert item.has_pose == item.has_betas == item.has_vertices == 1
    vertices, joints = right(ManoParams(item.global_orient[None], item.hand_pose[None], item.betas[None]))
    torch.testing.assert_close(vertices[0] - joints[0, 0], item.vertices - item.joints[0, :3], atol=3e-6, rtol=0)


def test_the_betas_of_left_hands_are_not_labels_because_they_give_another_shape(dexycb_root, right):
    dataset = DexYCB(dexycb_root, "s0_test", right, strength=Strength())
    item = dataset[(0, sample(dataset, True))]
    assert item.has_pose == item.has_vertices == 1 and item.has_betas == 0 and item.betas.abs().sum() == 0
    betas = torch.from_numpy(subject_betas(2)).float()[None]
    pose = item.global_orient[None], item.hand_pose[None]
    vertices, joints = dataset.hands[True](ManoParams(*pose, betas))
    torch.testing.assert_close(vertices[0] - joints[0, 0], item.vertices - item.joints[0, :3], atol=3e-6, rtol=0)
    wrong = right(ManoParams(*pose, betas))[0][0]
    assert (wrong - vertices[0]).abs().max() > 1e-3


def test_with_the_embedded_hand_only_joints_and_keypoints_are_labels(dexycb_root):
    item = DexYCB(dexycb_root, "s0_test", load_hand("embedded"))[(0, 0)]
    assert item.has_pose == item.has_betas == item.has_vertices == 0
    assert item.joints[:, 3].sum() == item.keypoints_2d[:, 2].sum() == 21


def test_a_hand_without_all_components_warns_that_poses_cannot_be_read(dexycb_root, arrays):
    six = Hand(arrays | {"hands_components": arrays["hands_components"][:6]}, "hamer")
    with pytest.warns(UserWarning, match="6 of MANO's 45"):
        dataset = DexYCB(dexycb_root, "s0_test", six)
    assert dataset[(0, 0)].has_pose == 0 and dataset[(0, 0)].joints[:, 3].sum() == 21


def test_frames_without_a_hand_are_left_out_but_counted_in_the_image_ids(test_set):
    # ids of s0_test: 8 subjects x 20 sequences x 8 cameras x 2 frames; subject 3's first sequence comes first
    assert [test_set.sample_name(i) for i in range(8)] == [str(2 * camera + 1) for camera in range(8)]
    assert test_set.sample_name(8) == str(16 + 1)


def test_a_label_file_without_a_hand_gives_an_image_without_labels(dexycb_root, test_set):
    path = test_set.image_path(0).with_name("labels_000001.npz")
    none = np.full((1, 21, 3), -1, np.float32)
    with replaced(path, npz_bytes(path, joint_3d=none, joint_2d=none[..., :2])):
        item = test_set[(0, 0)]
    assert item.joints.abs().sum() == item.keypoints_2d.abs().sum() == item.has_pose == item.has_vertices == 0
    assert item.image.any()


def test_the_cached_index_is_used_until_the_data_change(dexycb_root, tmp_path):
    before = frames_of(dexycb_root, "s0_val", str(tmp_path))
    meta = dexycb_root / before.folders[0] / "meta.yml"
    with unreadable(meta):  # reading it again would fail
        again = frames_of(dexycb_root, "s0_val", str(tmp_path))
    assert all(np.array_equal(a, b) for a, b in zip(before, again, strict=True))
    with replaced(meta, meta.read_bytes().replace(b"- right", b"- left")):
        changed = frames_of(dexycb_root, "s0_val", str(tmp_path))
    assert not before.left[0] and changed.left[0]
    for path in tmp_path.glob("*.npz"):
        path.write_bytes(path.read_bytes()[:100])
    assert not frames_of(dexycb_root, "s0_val", str(tmp_path)).left[0]  # a damaged index is rebuilt


def test_a_pickled_dataset_gives_the_same_items(test_set):
    copy = pickle.loads(pickle.dumps(test_set))
    assert all(torch.equal(a, b) for a, b in zip(copy[(0, 3)], test_set[(0, 3)], strict=True))


def test_cameras_of_one_frame_see_the_same_hand(test_set):
    def in_the_world(index):
        pose = test_set.extrinsics(index)
        return test_set.labels(index).joints[:, :3] @ pose[:, :3].T + pose[:, 3]

    for index in range(1, 8):
        np.testing.assert_allclose(in_the_world(index), in_the_world(0), atol=1e-5)


def test_a_real_capture_is_read_and_its_hand_found_in_all_eight_images(shared_data):
    """Another lab's recording in the same layout, poses in the master camera's frame, with the embedded hand."""
    data, hand = shared_data("dexycb_layout") / "data", load_hand("embedded")
    meta = read_yaml(data / "20221001_171108" / "meta.yml")
    extrinsics = read_extrinsics(data, meta["extrinsics"])
    assert set(meta["serials"]) | {"apriltag"} == set(extrinsics) and not read_betas(data, "zeros").any()
    poses = read_npz(data / "20221001_171108" / "pose.npz", {"pose_m": (meta["num_frames"], 1, 51)})["pose_m"]
    pose = poses[50, 0].astype(float)
    absolute = np.vstack((pose[:3], (hand.hands_mean + pose[3:48] @ hand.hands_components).reshape(15, 3)))
    mesh = mano_vertices(hand, absolute, np.zeros(10), pose[48:])
    palm = mesh[hand.layer.lbs_weights[:, 0].numpy() > 0.9]  # stays where it is, whatever the fingers do
    bright = {}
    for serial in meta["serials"]:
        to_master = extrinsics[serial]
        pixels = project((palm - to_master[:, 3]) @ to_master[:, :3], read_intrinsics(data, serial))
        image = cv2.imread(str(data / "20221001_171108" / serial / "color_000050.jpg"), cv2.IMREAD_GRAYSCALE)
        inside = pixels[((pixels > 0) & (pixels < [640, 480])).all(1)].astype(int)
        bright[serial] = np.mean(image[inside[:, 1], inside[:, 0]] > 110) if len(inside) > 20 else 1.0
    assert min(bright.values()) > 0.7, bright  # a bright hand over black cloth


def test_items_of_left_hands_have_the_mirrored_mesh_and_joints(test_set):
    index = sample(test_set, True)
    item, labels = test_set[(0, index)], test_set.labels(index)
    np.testing.assert_allclose(item.vertices, mirror_points(labels.vertices), atol=1e-6)
    np.testing.assert_allclose(item.joints[:, :3], mirror_points(labels.joints[:, :3]), atol=1e-6)
