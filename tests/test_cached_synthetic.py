"""Synthetic images that are rendered once and augmented anew."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from fasthamer.camera import project_pixels
from fasthamer.config import load_config
from fasthamer.data.augment import Strength
from fasthamer.data.build import build_dataset
from fasthamer.data.dataset import fingerprint
from fasthamer.data.synthetic.cached import CachedSyntheticDataset
from fasthamer.data.synthetic.dataset import SyntheticDataset
from fasthamer.hand.mano import load_hand
from fasthamer.types import Batch, ManoParams

NOTHING = Strength(scale=0.0, rotation=0.0, rotation_probability=0.0, shift=0.0, colour=0.0)


@pytest.fixture(scope="module")
def hand():
    return load_hand("embedded")


@pytest.fixture(scope="module")
def hands(hand):
    return SyntheticDataset(hand, size=6, seed=5, image_size=64, scale=0.0, shift=0.0)


def test_without_augmentation_items_equal_the_rendered_ones_up_to_jpeg(hands, tmp_path):
    cached = CachedSyntheticDataset(hands, tmp_path, NOTHING)
    for index in range(3):
        rendered, read = hands[(0, index)], cached[(4, index)]
        blocks = [functional.avg_pool2d(item.image.float(), 8) for item in (rendered, read)]
        assert (blocks[0] - blocks[1]).abs().max() < 6  # of 255
        for name in ("keypoints_2d", "joints", "vertices", "global_orient", "hand_pose", "betas"):
            torch.testing.assert_close(getattr(read, name), getattr(rendered, name), atol=2e-5, rtol=0)


def test_the_first_use_and_a_later_one_give_the_same_item(hands, tmp_path):
    first = CachedSyntheticDataset(hands, tmp_path, Strength())[(1, 2)]
    later = CachedSyntheticDataset(hands, tmp_path, Strength())[(1, 2)]
    assert all(torch.equal(*pair) for pair in zip(first, later, strict=True))
    other = CachedSyntheticDataset(hands, tmp_path, Strength())[(2, 2)]
    assert not torch.equal(first.image, other.image)


def test_stored_labels_serve_a_larger_set_too(hand, hands, tmp_path):
    before = CachedSyntheticDataset(hands, tmp_path, NOTHING)[(0, 2)]
    larger = SyntheticDataset(hand, size=9, seed=5, image_size=64, scale=0.0, shift=0.0)
    cached = CachedSyntheticDataset(larger, tmp_path, NOTHING)
    assert all(torch.equal(*pair) for pair in zip(before, cached[(0, 2)], strict=True))
    torch.testing.assert_close(cached[(0, 8)].vertices, larger[(0, 8)].vertices, atol=2e-5, rtol=0)


def test_labels_in_another_form_are_refused(hands, tmp_path):
    np.save(tmp_path / "labels.npy", np.zeros(6))
    with pytest.raises(ValueError, match=r"labels\.npy: labels in another form"):
        CachedSyntheticDataset(hands, tmp_path, NOTHING)[(0, 0)]


def test_labels_of_a_rotated_hand_pose_the_model_and_project_to_its_keypoints(hand, hands, tmp_path):
    cached = CachedSyntheticDataset(hands, tmp_path, Strength(rotation_probability=1.0, shift=0.1))
    for index in range(3):
        item = cached[(0, index)]
        parameters = ManoParams(item.global_orient[None], item.hand_pose[None], item.betas[None])
        vertices, joints = (points[0] for points in hand(parameters))
        wrist = item.joints[0, :3]
        torch.testing.assert_close(vertices - joints[0], item.vertices - wrist, atol=1e-5, rtol=0)
        # The crop is a scaled, shifted image of a camera with the hand's own axes: fit only those.
        seen = project_pixels(item.joints[:, :3].numpy().astype(float), np.eye(3))
        where = item.keypoints_2d[:, :2].numpy()
        columns = np.column_stack([seen.ravel(), np.tile([1, 0], 21), np.tile([0, 1], 21)])
        solution = np.linalg.lstsq(columns, where.ravel(), rcond=None)[0]
        assert np.abs(columns @ solution - where.ravel()).max() < 1e-4


def test_the_folder_of_another_dataset_is_refused(hand, hands, tmp_path):
    CachedSyntheticDataset(hands, tmp_path, NOTHING)
    other = SyntheticDataset(hand, size=6, seed=6, image_size=64, scale=0.0, shift=0.0)
    with pytest.raises(ValueError, match="another set"):
        CachedSyntheticDataset(other, tmp_path, NOTHING)


def test_a_damaged_image_is_named(hands, tmp_path):
    cached = CachedSyntheticDataset(hands, tmp_path, NOTHING)
    cached[(0, 1)]
    image = tmp_path / "00000001.jpg"
    image.write_bytes(image.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"00000001\.jpg"):
        cached[(0, 1)]


def test_evaluation_images_are_drawn_once_and_kept_as_they_are(hand, tmp_path, monkeypatch):
    pairs = ["IMAGE_SIZE", "64", "DATA.SYNTHETIC_EVAL_SIZE", "3", "DATA.SYNTHETIC_FOLDER", str(tmp_path / "images")]
    drawn = build_dataset(load_config("quickstart", [*pairs[:4], "DATA.SYNTHETIC_FOLDER", ""]), hand, train=False)
    plain = [drawn[(0, index)] for index in range(3)]
    first = build_dataset(load_config("quickstart", pairs), hand, train=False)
    assert [*map(same, plain, [first[(0, index)] for index in range(3)])] == [True] * 3
    kept = build_dataset(load_config("quickstart", pairs), hand, train=False)
    assert fingerprint(kept) == fingerprint(drawn)
    monkeypatch.setattr(SyntheticDataset, "draw", None)
    assert [*map(same, plain, [kept[(1, index)] for index in range(3)])] == [True] * 3
    with pytest.raises(IndexError, match="sample 3 of 3"):
        kept[(0, 3)]


def same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(*pair) and pair[0].dtype == pair[1].dtype for pair in zip(one, other, strict=True))
