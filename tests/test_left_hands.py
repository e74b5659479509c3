"""Left hands: mirrored for the model and mirrored back at the end; and both conventions of MANO's left model."""

import numpy as np
import pytest
import torch
from miniatures_capture import SERIALS, left_arrays, mano, natural_hand, npz_bytes, posed, write_dexycb
from PIL import Image

from fasthamer.data.augment import Strength
from fasthamer.data.crop import mirror_axis_angle, mirror_points
from fasthamer.data.readers.base import mano_vertices
from fasthamer.data.readers.dexycb import DexYCB
from fasthamer.distill.evaluate import predict as predict_set
from fasthamer.files.images import read_image
from fasthamer.hand.left import left_hand, mirror_arrays
from fasthamer.hand.mano import Hand, load_hand
from fasthamer.hand.mano_files import SHAPES, read_hand_arrays
from fasthamer.predict import HandMesh, open_model


@pytest.fixture(scope="module")
def arrays():
    return read_hand_arrays("embedded")


@pytest.fixture(scope="module")
def right(arrays):
    return Hand(arrays, "MANO_RIGHT")


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """A right hand's sequence and, as a left hand's, its mirror image: lossless images, points, parameters."""
    root = write_dexycb(tmp_path_factory.mktemp("twins"), hands={(2, 4): "right", (2, 9): "left"})
    dataset = DexYCB(root, "s0_test", load_hand("embedded"))
    source, target = (root / dataset.frames.folders[i] for i in dataset.frames.sequence[[0, 8]])
    for serial in SERIALS:
        image, label = source / serial / "color_000001.jpg", source / serial / "labels_000001.npz"
        Image.fromarray(read_image(image)[:, ::-1]).save(target / serial / "color_000001.jpg", format="PNG")
        old = np.load(label)
        pose = old["pose_m"].copy()
        pose[0, 1:3] *= -1  # the wrist's rotation; the components of the left model are mirrored themselves
        pose[0, 48] *= -1
        pixels = old["joint_2d"] * [-1, 1] + [639, 0]
        changes = {"pose_m": pose, "joint_3d": old["joint_3d"] * [-1, 1, 1], "joint_2d": pixels}
        (target / serial / "labels_000001.npz").write_bytes(npz_bytes(label, **changes))
    return root


@pytest.fixture(scope="module")
def model():
    return open_model("embedded")


def test_an_item_of_a_left_hand_equals_the_right_hand_of_the_mirrored_image(twins):
    dataset = DexYCB(twins, "s0_test", load_hand("embedded"))
    for camera in range(8):
        one, other = dataset[(0, camera)], dataset[(0, 8 + camera)]
        assert not one.mirrored and other.mirrored
        assert (one.image.int() - other.image.int()).abs().float().mean() < 0.05  # OpenCV's steps of 1/32 pixel
        torch.testing.assert_close(one.keypoints_2d, other.keypoints_2d, atol=2e-5, rtol=0)
        torch.testing.assert_close(one.joints, other.joints, atol=1e-6, rtol=0)


def test_augmentation_treats_both_alike(twins):
    dataset = DexYCB(twins, "s0_test", load_hand("embedded"), strength=Strength(shift=0.0, colour=0.0))
    item = dataset[(4, 8)]
    spread = item.keypoints_2d[:, :2] - item.keypoints_2d[0, :2]
    turned = item.joints[:, :2] - item.joints[0, :2]
    cosine = (spread[1:] * turned[1:]).sum(1) / spread[1:].norm(dim=1) / turned[1:].norm(dim=1)
    assert cosine.median() > 0.9  # points in the crop and in space turn the same way


def test_meshes_and_poses_are_mirrored_alike(twins, right):
    dataset = DexYCB(twins, "s0_test", right)
    for camera in range(8):
        one, other = dataset[(0, camera)], dataset[(0, 8 + camera)]
        torch.testing.assert_close(one.global_orient, other.global_orient, atol=1e-5, rtol=0)
        torch.testing.assert_close(one.hand_pose, other.hand_pose, atol=1e-5, rtol=0)
        # as annotated, a left hand of the same betas is another hand: not mirrored, but of the same size
        assert 1e-3 < (one.vertices - other.vertices).abs().max() < 0.05


def test_a_model_gives_the_mirror_image_through_the_whole_pipeline(twins, model):
    dataset = DexYCB(twins, "s0_test", load_hand("embedded"))
    found = predict_set(model, dataset, batch=16)
    left = found.mirrored > 0
    assert left.tolist() == [False] * 8 + [True] * 8
    as_seen = found.vertices.copy()
    as_seen[left] = mirror_points(as_seen[left])
    np.testing.assert_allclose(as_seen[left], as_seen[~left] * [-1, 1, 1], atol=1e-3)
    assert np.abs(found.vertices[0] - found.vertices[3]).max() > 0.02  # predictions depend on the images


def test_the_python_interface_gives_the_mirror_image(twins, model):
    hands = HandMesh(model, device="cpu")
    dataset = DexYCB(twins, "s0_test", load_hand("embedded"))
    found = []
    for index in (0, 8):
        points = dataset.labels(index).keypoints[:, :2]
        box = [*points.min(0), *points.max(0)]
        found.append(hands(read_image(dataset.image_path(index)), [box], right=not dataset.is_left(index)))
    one, other = found
    np.testing.assert_allclose(other.vertices, one.vertices * [-1, 1, 1], atol=1e-3)
    np.testing.assert_allclose(other.joints, one.joints * [-1, 1, 1], atol=1e-3)
    np.testing.assert_allclose(other.keypoints_2d, one.keypoints_2d * [-1, 1] + [639, 0], atol=1.0)


@pytest.mark.parametrize("shape", ["released", "mirrored"])
@pytest.mark.parametrize("stored", ["", "released", "mirrored"])
def test_mirrored_parameters_give_the_left_models_mesh_in_either_convention(arrays, right, tmp_path, shape, stored):
    """The reference is smplx's layer on the left arrays; the file has either convention or is missing."""
    path = tmp_path / "MANO_LEFT.npz"
    if stored:
        np.savez(path, **left_arrays(arrays, fixed=stored == "mirrored"))
    hand = left_hand(right, path if stored else "", shape)
    reference = mano(left_arrays(arrays, fixed=shape == "mirrored"), right=False)
    rng = np.random.default_rng(0)
    for _ in range(3):
        pose, betas = natural_hand(rng)
        vertices, _ = posed(reference, pose, betas, [0.1, 0.2, 0.3])
        found = mano_vertices(hand, pose.reshape(16, 3), betas, np.array([0.1, 0.2, 0.3]), left=True)
        np.testing.assert_allclose(found, vertices, atol=1e-6)


def test_with_corrected_shapes_a_left_hand_is_the_right_one_mirrored(arrays, right):
    pose, betas = natural_hand(np.random.default_rng(1))
    pose = pose.reshape(16, 3)
    nowhere = np.zeros(3)
    mirrored = mirror_points(mano_vertices(right, mirror_axis_angle(pose), betas, nowhere))
    corrected, released = (left_hand(right, shape=shape) for shape in ("mirrored", "released"))
    np.testing.assert_allclose(mano_vertices(corrected, pose, betas, nowhere, left=True), mirrored, atol=1e-7)
    assert np.abs(mano_vertices(released, pose, betas, nowhere, left=True) - mirrored).max() > 1e-3
    same = mano_vertices(released, pose, np.zeros(10), nowhere, left=True)  # without betas there is no difference
    np.testing.assert_allclose(same, mano_vertices(corrected, pose, np.zeros(10), nowhere, left=True), atol=1e-7)


def test_mirroring_twice_gives_the_hand_back_and_once_follows_the_definition(arrays):
    once = mirror_arrays(arrays)
    for key, expected in left_arrays(arrays, fixed=True).items():
        np.testing.assert_array_equal(once[key], expected, err_msg=key)
    for key in SHAPES:
        np.testing.assert_array_equal(mirror_arrays(once)[key], arrays[key], err_msg=key)


def test_the_error_for_a_wrong_left_hand_file_says_what_is_expected(arrays, right, tmp_path):
    np.savez(tmp_path / "right.npz", **arrays)
    with pytest.raises(ValueError, match=r"this is a right hand; HAND\.LEFT takes MANO_LEFT"):
        left_hand(right, tmp_path / "right.npz")
    other = left_arrays(arrays)
    np.savez(tmp_path / "other.npz", **(other | {"shapedirs": other["shapedirs"] * 1.5}))
    with pytest.raises(ValueError, match="not those of MANO_RIGHT"):
        left_hand(right, tmp_path / "other.npz")
    with pytest.raises(FileNotFoundError, match="MANO_LEFT"):
        left_hand(right, tmp_path / "MANO_LEFT.pkl")
    with pytest.raises(ValueError, match="did you mean 'released'"):
        left_hand(right, shape="relased")
