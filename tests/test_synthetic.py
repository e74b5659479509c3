"""Synthetic images: the same item for the same key in every process, and labels that match the pixels."""

from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fasthamer.config import load_config
from fasthamer.data.build import build_dataset
from fasthamer.data.crop import BOX_FACTOR, box_side
from fasthamer.data.synthetic.dataset import PlacedHand, SyntheticDataset
from fasthamer.data.synthetic.distribution import DISTRIBUTIONS
from fasthamer.data.synthetic.occluders import add_black_border
from fasthamer.data.synthetic.painting import paint
from fasthamer.data.synthetic.scene import HAND, Scene, build_scene
from fasthamer.data.synthetic.viewpoints import Crop
from fasthamer.hand.mano import load_hand
from fasthamer.render.raster import vertex_normals
from fasthamer.types import Batch, ManoParams

GREEN = (0, 255, 0)


@pytest.fixture(scope="module")
def hand():
    return load_hand("embedded")


@pytest.fixture(scope="module")
def hands(hand):
    return SyntheticDataset(hand, size=64, seed=3, image_size=128)


def assert_same(one: Batch, other: Batch) -> None:
    for name, a, b in zip(Batch._fields, one, other, strict=True):
        assert torch.equal(a, b), name


def test_an_item_is_the_same_whenever_it_is_asked_for(hands):
    first = hands[(1, 5)]
    hands[(0, 2)]
    assert_same(first, hands[(1, 5)])


def test_worker_processes_and_pickled_copies_give_the_same_items(hands):
    keys = [(2, i) for i in range(6)]
    loaded = list(DataLoader(hands, batch_size=None, sampler=keys, num_workers=2))
    copy = pickle.loads(pickle.dumps(hands))
    for key, item in zip(keys, loaded, strict=True):
        assert_same(hands[key], item)
        assert_same(hands[key], copy[key])


class CropNumbers(SyntheticDataset):
    """Records the first random number of each crop."""

    def __init__(self, *arguments, **options) -> None:
        super().__init__(*arguments, **options)
        self.numbers: list[float] = []

    def frame(self, rng: np.random.Generator, joints: np.ndarray) -> Crop:
        self.numbers.append(rng.random())
        return super().frame(np.random.default_rng(0), joints)


def test_the_hand_depends_on_the_index_and_the_crop_independently_on_the_epoch(hand):
    hands = CropNumbers(hand, size=64, seed=3, image_size=64)
    items = [hands[(epoch, 7)] for epoch in range(3)]
    for item in items[1:]:
        for name in ("vertices", "joints", "global_orient", "hand_pose", "betas"):
            assert torch.equal(getattr(item, name), getattr(items[0], name)), name
    of_the_hand = np.random.default_rng((3, 7)).random()  # the first random number of hand 7
    assert len({*hands.numbers, of_the_hand}) == 4  # an epoch's crop repeats neither another's nor the hand's


def test_seeds_epochs_and_indices_all_change_the_image(hand, hands):
    other_seed = SyntheticDataset(hand, size=64, seed=4, image_size=128)
    images = [hands[(0, 0)].image, hands[(1, 0)].image, hands[(0, 1)].image, other_seed[(0, 0)].image]
    for i, a in enumerate(images):
        for b in images[:i]:
            assert (a.float() - b.float()).abs().mean() > 5
    betas = [hands[(0, 0)].betas, hands[(0, 1)].betas, other_seed[(0, 0)].betas]
    assert not any(torch.equal(betas[i], betas[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize("size", [64, 128, 200, 256])
def test_items_have_the_shapes_and_types_of_the_contract(hand, size):
    hands = SyntheticDataset(hand, size=3, seed=1, image_size=size)
    for index in range(3):
        item = hands[(0, index)]
        assert item.image.shape == (3, size, size) and item.image.dtype == torch.uint8
        shapes = {"keypoints_2d": (21, 3), "joints": (21, 4), "vertices": (778, 3), "hand_pose": (15, 3, 3)}
        shapes |= {"global_orient": (1, 3, 3), "betas": (10,), "crop": (2, 3)}
        for name, shape in shapes.items():
            value = getattr(item, name)
            assert value.shape == shape and value.dtype == torch.float32 and value.isfinite().all(), name
        for name in ("has_vertices", "has_pose", "has_betas"):
            assert getattr(item, name) == 1
        assert item.mirrored == 0 and item.index == index
        assert (item.keypoints_2d[:, 2] == 1).all() and (item.joints[:, 3] == 1).all()


def test_parameters_give_the_labelled_vertices_up_to_a_translation(hand, hands):
    for index in range(4):
        item = hands[(0, index)]
        vertices, joints = hand(ManoParams(item.global_orient[None], item.hand_pose[None], item.betas[None]))
        offset = item.vertices[0] - vertices[0, 0]
        torch.testing.assert_close(vertices[0] + offset, item.vertices, atol=1e-5, rtol=0)
        torch.testing.assert_close(joints[0] + offset, item.joints[:, :3], atol=1e-5, rtol=0)


def fitted_camera(item: Batch) -> np.ndarray:
    """Focal length and centre (3,), crop units, that project the joints to the keypoints."""
    joints, keypoints = item.joints[:, :3].double().numpy(), item.keypoints_2d[:, :2].double().numpy()
    rays = joints[:, :2] / joints[:, 2:]
    one, zero = np.ones(21), np.zeros(21)
    rows = np.concatenate([np.stack([rays[:, 0], one, zero], 1), np.stack([rays[:, 1], zero, one], 1)])
    solution, *_ = np.linalg.lstsq(rows, keypoints.T.ravel(), rcond=None)
    np.testing.assert_allclose(rows @ solution, keypoints.T.ravel(), atol=1e-4)  # one camera fits all joints
    return solution


def silhouette(item: Batch, faces: np.ndarray) -> np.ndarray:
    """(S, S) bool, the outline of the labelled mesh, drawn with OpenCV."""
    size = item.image.shape[-1]
    focal, x, y = fitted_camera(item)
    vertices = item.vertices.double().numpy()
    points = (vertices[:, :2] / vertices[:, 2:] * focal + (x, y) + 0.5) * size
    mask = np.zeros((size, size), np.uint8)
    for triangle in np.round(points[faces] * 16).astype(np.int32):
        cv2.fillConvexPoly(mask, triangle, 1, shift=4)
    return mask > 0


class OnGreen(SyntheticDataset):
    """The scenes on a green background, without occluders, camera effects and borders."""

    def scene(self, hand: PlacedHand) -> Scene:
        return build_scene(hand.rng, hand.vertices, hand.joints, self.faces, self.loop)

    def draw(self, hand: PlacedHand, crop: Crop) -> np.ndarray:
        background = np.full((self.image_size, self.image_size, 3), GREEN, np.uint8)
        return paint(hand.rng, self.scene(hand), crop, self.texture, background)


class HandOnGreen(OnGreen):
    """Only the hand, without arm and objects; its wrist is closed by a lid."""

    def scene(self, hand: PlacedHand) -> Scene:
        centre = len(hand.vertices)
        lid = np.stack([np.roll(self.loop, -1), self.loop, np.full(len(self.loop), centre)], axis=1)
        middle = hand.vertices[self.loop].mean(0, keepdims=True)
        vertices, faces = np.concatenate([hand.vertices, middle]), np.concatenate([self.faces, lid])
        material = np.full(len(faces), HAND, np.uint8)
        return Scene(vertices, faces, material, vertex_normals(vertices, faces), np.zeros((centre + 1, 2), np.float32))


def green(item: Batch) -> np.ndarray:
    image = item.image.numpy().astype(int)
    return image[1] - np.maximum(image[0], image[2]) > 40


def grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    """The mask grown by a number of pixels, or shrunk by a negative one."""
    morph = cv2.dilate if pixels > 0 else cv2.erode
    return morph(mask.astype(np.uint8), np.ones((2 * abs(pixels) + 1,) * 2)) > 0


def test_the_labelled_mesh_covers_the_pixels_of_the_hand(hand):
    hands = HandOnGreen(hand, size=16, seed=8, image_size=192)
    for index in range(16):
        item = hands[(0, index)]
        expected, drawn = silhouette(item, hands.faces), ~green(item)
        assert expected.sum() > 400
        assert (drawn & ~grown(expected, 1)).sum() < 0.005 * drawn.sum()
        assert (grown(expected, -1) & ~drawn).sum() < 0.02 * expected.sum()


def test_keypoints_lie_on_the_hand_which_hides_the_background(hand):
    hands = OnGreen(hand, size=24, seed=9, image_size=192)
    for index in range(24):
        item = hands[(0, index)]
        expected, see_through = silhouette(item, hands.faces), green(item)
        assert (grown(expected, -1) & see_through).sum() < 0.02 * expected.sum()
        nearby = grown(expected, 3)
        pixels = np.round((item.keypoints_2d[:, :2].numpy() + 0.5) * 192).astype(int)
        inside = ((pixels >= 0) & (pixels < 192)).all(1)
        assert inside.sum() >= 15
        assert nearby[pixels[inside, 1], pixels[inside, 0]].all()


def test_the_crop_equals_hamers_box_with_its_augmentation(hands):
    for index in range(24):
        keypoints = hands[(0, index)].keypoints_2d[:, :2].double().numpy()
        low, high = keypoints.min(0), keypoints.max(0)
        side = box_side((high - low) * 1000 * BOX_FACTOR) / 1000  # of the unaugmented box, in crop sides
        assert 1 / 1.3 - 1e-6 <= side <= 1 / 0.7 + 1e-6
        assert (np.abs((low + high) / 2) <= 0.02 + 1e-6).all()


def test_beyond_the_source_image_crops_are_black_and_nearly_all_keypoints_stay_inside():
    bordered, lost = 0, 0
    keypoints = np.random.default_rng(1).uniform(40, 90, (21, 2))
    white = np.full((128, 128, 3), 255, np.uint8)
    for seed in range(200):
        image = add_black_border(np.random.default_rng(seed), white, keypoints)
        black = (image == 0).all(-1)
        bordered += black.mean() > 0.02
        lost += black[keypoints[:, 1].astype(int), keypoints[:, 0].astype(int)].mean()
    assert 60 < bordered < 110  # 0.45 of 200
    assert lost < 200 * 0.01
    assert (white == 255).all()


def test_in_life_more_hands_are_raised_and_fewer_hidden_than_in_the_hard_distribution(hand):
    life, hard = (SyntheticDataset(hand, 300, 6, 32, distribution=name) for name in ("life", "hard"))
    raised = []
    for dataset in (life, hard):
        joints = [dataset.hand(index).joints for index in range(300)]
        raised.append(np.mean([each[9, 1] < each[0, 1] for each in joints]))
    assert raised[0] > raised[1] + 0.05
    white, keypoints = np.full((64, 64, 3), 255, np.uint8), np.random.default_rng(1).uniform(20, 45, (21, 2))
    black = [
        np.mean(
            [
                (add_black_border(np.random.default_rng(seed), white, keypoints, shares) == 0).any()
                for seed in range(200)
            ]
        )
        for shares in (DISTRIBUTIONS["life"], DISTRIBUTIONS["hard"])
    ]
    assert black[0] < 0.16 < 0.3 < black[1]


def test_the_split_of_synthetic_hands_is_their_distribution(hand, tmp_path):
    folder = ["DATA.SYNTHETIC_FOLDER", str(tmp_path / "images"), "DATA.SYNTHETIC_SIZE", "2"]
    for split, distribution in (("evaluation", "hard"), ("hard", "hard"), ("life", "life")):
        cfg = load_config(overrides=["DATA.NAME", "synthetic", "DATA.EVAL_SPLIT", split])
        assert build_dataset(cfg, hand, train=False).distribution == distribution
    cached = build_dataset(load_config(overrides=["DATA.NAME", "synthetic", "DATA.SPLIT", "life", *folder]), hand, True)
    assert cached.hands.distribution == "life"
    with pytest.raises(ValueError, match="images of another set"):
        build_dataset(load_config(overrides=["DATA.NAME", "synthetic", *folder]), hand, train=True)
    with pytest.raises(KeyError, match="no distribution of synthetic hands named 'live'; did you mean 'life'"):
        build_dataset(load_config(overrides=["DATA.NAME", "synthetic", "DATA.EVAL_SPLIT", "live"]), hand, train=False)


def test_most_hands_point_up_and_both_sides_are_seen(hands):
    items = [hands[(5, i)] for i in range(40)]
    up = np.array([float(item.joints[9, 1] - item.joints[0, 1]) for item in items]) < 0
    facing = []
    for item in items:
        wrist, index, pinky = (item.joints[k, :3].numpy() for k in (0, 5, 17))
        facing.append(np.cross(index - wrist, pinky - wrist)[2] < 0)
    assert 0.55 < up.mean() < 0.95
    assert 0.3 < np.mean(facing) < 0.85


@pytest.mark.parametrize(("options", "message"), [({"image_size": 8}, "image_size is 8"), ({"size": 0}, "size is 0")])
def test_settings_out_of_range_are_refused(hand, options, message):
    with pytest.raises(ValueError, match=message):
        SyntheticDataset(hand, **{"size": 4, **options})


def test_an_index_out_of_range_is_refused(hands):
    with pytest.raises(IndexError, match="sample 64 of 64"):
        hands[(0, 64)]
