"""Augmentation: HaMeR's distributions, and the same change for image, points and rotations."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from fasthamer.camera import project_pixels
from fasthamer.data import augment, crop
from fasthamer.data.sample import Labels, make_item, without_labels
from fasthamer.hand.mano import load_hand
from fasthamer.types import ManoParams

STRONG = augment.Augmentation(scale=1.2, rotation=37.0, shift=(0.02, -0.01), colour=(0.8, 1.0, 1.2))


@pytest.fixture(scope="module")
def hand():
    return load_hand("embedded")


def pose_of(hand, pose, betas):
    rotations = torch.from_numpy(Rotation.from_rotvec(pose).as_matrix()).float()[None]
    vertices, joints = hand(ManoParams(rotations[:, :1], rotations[:, 1:], torch.from_numpy(betas).float()[None]))
    return vertices[0].numpy().astype(float), joints[0].numpy().astype(float)


def labelled(hand, seed=0, left=False):
    """A hand 60 cm before a camera, with every label, and the camera's intrinsics."""
    rng = np.random.default_rng(seed)
    pose, betas = rng.normal(0, 0.3, (16, 3)), rng.normal(size=10)
    pose[0] = rng.normal(0, 1.5, 3)
    vertices, joints = pose_of(hand, pose, betas)
    shift = np.array([0.02, -0.03, 0.6]) - joints[0]
    vertices, joints = vertices + shift, joints + shift
    if left:
        vertices, joints, pose = crop.mirror_points(vertices), crop.mirror_points(joints), crop.mirror_axis_angle(pose)
    intrinsics = np.array([[500.0, 0, 110], [0, 480, 118], [0, 0, 1]])
    ones = np.ones((21, 1))
    keypoints = np.hstack((project_pixels(joints, intrinsics), ones))
    return Labels(keypoints, np.hstack((joints, ones)), vertices, pose, betas), intrinsics


IMAGE = np.random.default_rng(0).integers(0, 256, (224, 230, 3), dtype=np.uint8)
BOX = crop.Box(np.array([110.0, 110.0]), 150.0)


def test_draws_follow_hamers_distributions():
    rng = np.random.default_rng(0)
    draws = [augment.draw(rng, augment.Strength()) for _ in range(20000)]
    scale, rotation = np.array([d.scale for d in draws]), np.array([d.rotation for d in draws])
    shift, colour = np.array([d.shift for d in draws]), np.array([d.colour for d in draws])
    assert scale.min() == 0.7 and scale.max() == 1.3  # a third of the normal draws are clipped
    assert np.mean((scale == 0.7) | (scale == 1.3)) == pytest.approx(0.317, abs=0.02)
    assert np.mean(rotation == 0) == pytest.approx(0.4, abs=0.02)
    assert np.abs(rotation).max() == 60 and np.std(rotation[rotation != 0]) == pytest.approx(29, abs=1)
    assert np.abs(shift).max() == 0.02
    assert 0.8 <= colour.min() < 0.81 and 1.19 < colour.max() <= 1.2
    assert abs(np.corrcoef(colour.T)[0, 1]) < 0.03  # each channel for itself


def test_the_same_generator_state_gives_the_same_draw():
    one, two = (augment.draw(np.random.default_rng((3, 1, 4)), augment.Strength()) for _ in range(2))
    assert one == two and one != augment.draw(np.random.default_rng((3, 1, 5)), augment.Strength())


def test_colours_are_multiplied_and_clipped():
    image = np.array([[[100, 100, 250], [0, 1, 2]]], np.uint8)
    assert augment.recoloured_planes(image, STRONG).tolist() == [[[80, 0]], [[100, 1]], [[255, 2]]]
    assert augment.recoloured_planes(image, augment.Augmentation()).tolist() == [[[100, 0]], [[100, 1]], [[250, 2]]]


def test_keypoints_in_the_item_are_where_the_image_shows_them(hand):
    labels, _ = labelled(hand)
    image = np.zeros((224, 230, 3), np.uint8)
    y, x = np.mgrid[:224, :230]
    shown = labels.keypoints[12, :2] = [100.3, 120.8]
    image[:] = (255 * np.exp(-((x - shown[0]) ** 2 + (y - shown[1]) ** 2) / 18))[..., None].astype(np.uint8)
    box = crop.keypoint_box(labels.keypoints[:, :2])
    for left in (False, True):
        item = make_item(image, labels, box, 256, 0, STRONG._replace(colour=(1, 1, 1)), left=left)
        weight = item.image[0].double()
        v, u = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
        centre = torch.stack(((weight * u).sum(), (weight * v).sum())) / weight.sum()
        assert ((item.keypoints_2d[12, :2] + 0.5) * 256 - centre).abs().max() < 0.5


def test_turning_in_space_then_projecting_is_turning_the_image(hand):
    labels, _ = labelled(hand)
    centre, side = np.array([110.0, 118.0]), 150.0  # the box is on the optical axis, where both turn about one point
    square = np.array([[500.0, 0, 110], [0, 500.0, 118], [0, 0, 1]])
    keypoints = np.hstack((project_pixels(labels.joints[:, :3], square), np.ones((21, 1))))
    turned = make_item(
        IMAGE, labels._replace(keypoints=keypoints), crop.Box(centre, side), 256, 0, augment.Augmentation(rotation=37)
    )
    projected = project_pixels(turned.joints[:, :3].double().numpy(), square)
    units = (projected - centre) / side
    np.testing.assert_allclose(turned.keypoints_2d[:, :2], units, atol=1e-5)


@pytest.mark.parametrize("left", [False, True])
def test_parameters_points_and_mesh_change_together(hand, left):
    labels, _ = labelled(hand, seed=4, left=left)
    item = make_item(IMAGE, labels, BOX, 256, 3, STRONG, left=left)
    vertices, joints = hand(ManoParams(item.global_orient[None], item.hand_pose[None], item.betas[None]))
    for ours, posed in ((item.vertices, vertices[0]), (item.joints[:, :3], joints[0])):
        torch.testing.assert_close(ours - item.joints[0, :3], posed - joints[0, 0], atol=2e-6, rtol=0)
    assert item.mirrored == float(left) and item.index == 3
    assert torch.equal(item.joints[:, 3], torch.ones(21))


def test_a_left_hand_gives_the_item_of_its_right_twin(hand):
    right, _ = labelled(hand)
    left, _ = labelled(hand, left=True)
    width = IMAGE.shape[1]
    keypoints = right.keypoints * [-1, 1, 1] + [width - 1, 0, 0]
    mirrored_image = np.ascontiguousarray(IMAGE[:, ::-1])
    centre = np.array([100.0, 90.0])
    ours = make_item(
        mirrored_image,
        left._replace(keypoints=keypoints),
        crop.Box(np.array([width - 101.0, 90.0]), 140.0),
        128,
        0,
        left=True,
    )
    twin = make_item(IMAGE, right, crop.Box(centre, 140.0), 128, 0)
    for name in ("image", "keypoints_2d", "joints", "vertices", "global_orient", "hand_pose", "betas"):
        torch.testing.assert_close(getattr(ours, name), getattr(twin, name), atol=1e-5, rtol=0, msg=name)


def test_labels_that_are_not_there_are_zeros_without_confidence():
    item = make_item(IMAGE, Labels(), BOX, 64, 0)
    for name in ("keypoints_2d", "joints", "vertices", "has_vertices", "betas", "has_pose", "has_betas"):
        assert getattr(item, name).abs().sum() == 0, name
    torch.testing.assert_close(item.hand_pose, torch.eye(3).expand(15, 3, 3))
    assert item.image.shape == (3, 64, 64) and item.image.dtype == torch.uint8


def test_the_value_of_a_point_without_confidence_does_not_matter(hand):
    labels, _ = labelled(hand)
    labels.keypoints[3] = labels.joints[3, [0, 1, 3]] = [np.nan, np.inf, 0]
    item = make_item(IMAGE, labels, BOX, 64, 0, STRONG)
    assert item.keypoints_2d[3].tolist() == [0, 0, 0] and item.joints[3].tolist() == [0, 0, 0, 0]
    assert torch.isfinite(item.keypoints_2d).all() and torch.isfinite(item.joints).all()


def test_hiding_labels_keeps_the_image_only(hand):
    labels, _ = labelled(hand)
    item = make_item(IMAGE, labels, BOX, 64, 7, STRONG)
    bare = make_item(IMAGE, Labels(), BOX, 64, 7, STRONG)
    for name in item._fields:
        if name in ("global_orient", "hand_pose"):
            continue  # without has_pose they mean nothing
        assert torch.equal(getattr(without_labels(item), name), getattr(bare, name)), name
