"""Cached outputs follow augmentation: compared with a fresh pass of an exact teacher, which returns the labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from miniatures_images import SIZE, STRONG, ImageDataset, LabelTeacher, exact_output
from torch.utils.data import default_collate

from fasthamer.data import augment, crop
from fasthamer.data.faults import BadSample
from fasthamer.data.subsets import Views, WithSynthetic
from fasthamer.data.synthetic.dataset import SyntheticDataset
from fasthamer.hand.mano import load_hand
from fasthamer.teachers.cache.cached_teacher import CachedTeacher
from fasthamer.teachers.cache.check import check_images, deviation
from fasthamer.teachers.cache.geometry import crop_motion, move_output
from fasthamer.teachers.cache.manifest import CacheRequest
from fasthamer.types import Batch

OUTPUTS = CacheRequest(maps=False, channels=0)
MAPS = CacheRequest(maps=True, channels=0)


def collated(dataset, keys) -> Batch:
    return Batch(*default_collate([dataset[key] for key in keys]))


def opened(folder, images, wanted=OUTPUTS) -> CachedTeacher:
    cached = CachedTeacher(folder, LabelTeacher(images), images, wanted)
    cached.build(batch=4, workers=0, report=lambda text: None)
    return cached


def test_recalled_answers_equal_a_fresh_pass_of_an_exactly_equivariant_teacher(tmp_path):
    cached = opened(tmp_path, ImageDataset())
    augmented = ImageDataset(strength=STRONG)
    teacher = LabelTeacher(augmented)
    for epoch in (0, 3):
        batch = collated(augmented, [(epoch, index) for index in range(10)])
        teacher.epoch = epoch
        recalled, fresh = cached.recall(batch), teacher(batch.image)
        plain = exact_output([ImageDataset()[(0, index)] for index in range(10)], augmented.hand)
        assert (plain.keypoints_2d - fresh.keypoints_2d).abs().max() > 0.1, "nothing was augmented"
        for name in ("vertices", "joints", "keypoints_2d"):
            torch.testing.assert_close(getattr(recalled, name), getattr(fresh, name), atol=1e-5, rtol=0, msg=name)
        torch.testing.assert_close(recalled.camera, fresh.camera, atol=1e-5, rtol=1e-5)
        for ours, own in zip(recalled.mano, fresh.mano, strict=True):
            torch.testing.assert_close(ours, own, atol=1e-5, rtol=0)


def test_the_vertices_that_are_recalled_are_those_of_the_parameters_that_are_recalled(tmp_path):
    augmented = ImageDataset(strength=STRONG)
    recalled = opened(tmp_path, ImageDataset()).recall(collated(augmented, [(0, 1), (0, 2)]))
    vertices, joints = augmented.hand(recalled.mano)
    torch.testing.assert_close(recalled.vertices, vertices, atol=1e-6, rtol=0)
    torch.testing.assert_close(recalled.joints, joints, atol=1e-6, rtol=0)


def test_a_motion_is_what_was_done_to_the_box():
    """A box half as large enlarges twice; it turns by 30 degrees clockwise, its content the other way."""
    centre = np.array([80.0, 50.0])
    before = torch.from_numpy(crop.crop_affine(centre, 100.0, SIZE))[None]
    after = torch.from_numpy(crop.crop_affine(np.array([90.0, 50.0]), 50.0, SIZE, rotation=30.0))[None]
    motion = crop_motion(before, after, SIZE)
    assert motion.scale.item() == pytest.approx(2)
    cos, sin = math.cos(math.pi / 6), math.sin(math.pi / 6)
    np.testing.assert_allclose(motion.turn[0], [[cos, sin], [-sin, cos]], atol=1e-12)
    # The old centre lies 10 pixels left of the new one: -10 / 50 of the new box, then turned.
    np.testing.assert_allclose(motion.shift[0], [-0.2 * cos, 0.2 * sin], atol=1e-12)
    assert not motion.is_none.item()


def test_mirroring_both_crops_cancels():
    boxes = [(np.array([80.0, 50.0]), 100.0, 0.0), (np.array([85.0, 45.0]), 90.0, 20.0)]
    right, left = (
        crop_motion(*(torch.from_numpy(crop.crop_affine(c, s, SIZE, r, mirror))[None] for c, s, r in boxes), size=SIZE)
        for mirror in (False, True)
    )
    torch.testing.assert_close(right.scale, left.scale)
    torch.testing.assert_close(right.turn, left.turn)


def test_no_motion_changes_nothing():
    images = ImageDataset(3)
    items = [images[(0, index)] for index in range(3)]
    answer, crops = exact_output(items, images.hand), torch.stack([item.crop for item in items])
    motion = crop_motion(crops, crops, SIZE)
    assert motion.is_none.all()
    again = move_output(answer, motion)
    for name in ("vertices", "joints", "keypoints_2d", "camera"):
        torch.testing.assert_close(getattr(again, name), getattr(answer, name), atol=1e-7, rtol=1e-6)


def test_the_deviation_of_a_teacher_that_turns_with_its_image_is_nothing_and_of_another_is_measured(tmp_path):
    cached, augmented = opened(tmp_path, ImageDataset()), ImageDataset(strength=STRONG)
    teacher = LabelTeacher(augmented)
    batch = collated(augmented, [(0, index) for index in range(6)])
    found = deviation(cached, teacher, batch)
    assert found.joints_mm < 0.01 and found.vertices_mm < 0.01 and found.keypoints_px < 0.01
    unaugmented = LabelTeacher(ImageDataset())  # predicts the unaugmented labels for every crop
    found = deviation(cached, unaugmented, batch)
    ours, own = cached.recall(batch), unaugmented(batch.image)
    difference = (ours.joints - ours.joints[:, :1] - own.joints + own.joints[:, :1]).square().sum(-1).sqrt().mean()
    assert found.joints_mm == pytest.approx(1000 * difference.item(), rel=1e-4)
    assert found.joints_mm > 5
    assert found.error_mm == pytest.approx((0, found.joints_mm), abs=0.01)  # the cache is right, the teacher is not
    assert "differ from the teacher's own by" in str(found)
    unknown = batch._replace(joints=batch.joints * 0)
    assert deviation(cached, teacher, unknown).error_mm is None


def test_feature_maps_are_recalled_for_plain_crops_and_refused_for_moved_ones(tmp_path):
    cached = opened(tmp_path, ImageDataset(), MAPS)
    colours = ImageDataset(strength=augment.Strength(0.0, 0.0, 0.0, 0.0, 0.2))
    recalled = cached.recall(collated(colours, [(2, 7), (2, 3)]))
    assert recalled.features.flatten(1).tolist() == [[7.0] * 16, [3.0] * 16]
    with pytest.raises(BadSample, match=r"sample 4: its crop is augmented, but the cache has features of the plain"):
        cached.recall(collated(ImageDataset(strength=STRONG), [(0, 4)]))


def test_what_cannot_be_cached_raises_before_the_teacher_runs():
    plain, augmented = ImageDataset(), ImageDataset(strength=STRONG)
    check_images(plain, augmented, keeps_maps=False)
    check_images(plain, ImageDataset(strength=augment.Strength(0.0, 0.0, 0.0, 0.0, 0.2)), keeps_maps=True)
    with pytest.raises(ValueError, match=r"only for crops that are not turned, scaled or shifted: set AUGMENT.SCALE"):
        check_images(plain, augmented, keeps_maps=True)
    with pytest.raises(ValueError, match="the augmented set has 10 samples, the plain one 9"):
        check_images(ImageDataset(9), augmented, keeps_maps=False)
    with pytest.raises(ValueError, match=r"another image in each epoch .* TEACHER.CACHE_VIEWS 1"):
        mixed = WithSynthetic(ImageDataset(4), ImageDataset(9, seed=1), 0.6)  # type: ignore[arg-type]
        check_images(mixed, mixed, keeps_maps=False)


def test_synthetic_hands_that_are_framed_anew_are_refused_with_the_ways_out():
    hand = load_hand("embedded")
    fixed, moving = (SyntheticDataset(hand, 1, 0, SIZE, scale=scale, shift=0.0) for scale in (0.0, 0.3))
    check_images(fixed, fixed, keeps_maps=True)
    with pytest.raises(ValueError, match=r"framed anew in each epoch.*CACHE_VIEWS 1.*DATA.SYNTHETIC_FOLDER"):
        check_images(fixed, moving, keeps_maps=False)


def test_views_are_the_first_epochs_whatever_the_epoch():
    augmented = ImageDataset(strength=STRONG)
    views = Views(augmented, 3)
    assert len(views) == 30
    for epoch in (0, 5):
        item = views[(epoch, 24)]
        assert item.index.item() == 24
        assert torch.equal(item.image, augmented[(2, 4)].image)
    with pytest.raises(ValueError, match=r"TEACHER.CACHE_VIEWS is 0"):
        Views(augmented, 0)
    with pytest.raises(IndexError, match="sample 30 of 30"):
        views[(0, 30)]
