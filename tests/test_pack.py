"""Packing: shards read back with the labels that went in, whole or not at all, and packing goes on where it stopped."""

import json

import cv2
import numpy as np
import pytest
import torch
from miniatures_capture import write_freihand

from fasthamer.camera import project_pixels
from fasthamer.data import augment, crop, pack
from fasthamer.data.crop import Box
from fasthamer.data.dataset import DatasetInfo
from fasthamer.data.readers.base import ImageDataset, RawSample
from fasthamer.data.readers.freihand import FreiHAND
from fasthamer.data.readers.tars import TarDataset, find_shards
from fasthamer.data.sample import Labels
from fasthamer.hand.mano import load_hand


@pytest.fixture(scope="module")
def freihand(tmp_path_factory, mano):
    root = tmp_path_factory.mktemp("freihand")
    write_freihand(root, count=2, evaluation=1)
    return FreiHAND(root, "training", mano, 96)  # 2 hands before 4 backgrounds


def items(folder, hand, size=96):
    return {int(item.index): item for item in TarDataset(folder, hand, size).epoch(0, 0, 1, [])}


def assert_same(found, wanted, image_tolerance=0):
    for name, one, other in zip(found._fields, found, wanted, strict=True):
        if name in ("index", "crop"):
            continue
        tolerance = image_tolerance if name == "image" else 1e-5
        assert (one.float() - other.float()).abs().max() <= tolerance, name


def test_packed_hands_are_read_back_with_the_same_labels_and_pixels(tmp_path, freihand, mano):
    lines: list[str] = []
    packed = pack.pack(freihand, tmp_path / "out", "freihand", embedded=False, shard=3, say=lines.append)
    assert (packed.hands, packed.shards, packed.skipped) == (8, 3, []) and len(lines) == 3
    found = items(tmp_path / "out", mano)
    assert len(found) == 8
    for index, item in found.items():
        assert_same(item, freihand[(0, index // 1_000_000 * 3 + index % 1_000_000)])
        assert item.has_vertices == item.has_pose == item.has_betas == 1


def test_manos_labels_are_none_for_the_embedded_hand(tmp_path, freihand):
    pack.pack(freihand, tmp_path, "freihand", embedded=False, say=lambda text: None)
    item = items(tmp_path, load_hand("embedded"))[0]
    assert item.has_vertices == item.has_pose == item.has_betas == 0 and item.joints[:, 3].all()


class Painted(ImageDataset):
    """Images with a spot at each keypoint, from raw samples."""

    info = DatasetInfo("Painted")

    def __init__(self, hands, size=128):
        super().__init__(size)
        self.hands = hands

    def __len__(self):
        return len(self.hands)

    def raw_sample(self, index):
        return self.hands[index]


def painted(path, width, height, centre, side, seed=0, left=False):
    rng = np.random.default_rng(seed)
    points = centre + rng.uniform(-0.25, 0.25, (21, 2)) * side
    image = np.full((height, width, 3), 40, np.uint8)
    for x, y in points:
        cv2.circle(image, (round(x * 16), round(y * 16)), round(side * 0.4), (230, 230, 230), -1, cv2.LINE_AA, shift=4)
    cv2.imwrite(str(path), image)
    joints = np.column_stack((rng.normal(0, 0.04, (21, 3)) + np.array([0, 0, 0.6]), np.ones(21)))
    labels = Labels(np.column_stack((points, np.ones(21))), joints)
    return RawSample(path, labels, Box(np.asarray(centre, float), float(side)), left)


@pytest.mark.parametrize(
    ("width", "height", "centre", "side", "limit"),
    [(640, 480, (300, 250), 120, 240), (2000, 1500, (900, 700), 1000, 768), (640, 480, (20, 460), 120, 240)],
)
def test_images_are_cut_to_what_augmentation_reaches(tmp_path, width, height, centre, side, limit):
    hands = [painted(tmp_path / f"{left}.png", width, height, centre, side, left=left) for left in (False, True)]
    dataset = Painted(hands)
    pack.pack(dataset, tmp_path / "out", "painted", embedded=False, say=lambda text: None)
    found = items(tmp_path / "out", load_hand("embedded"), 128)
    for index in (0, 1):
        content, moved = pack.packed_hand(hands[index])
        assert max(cv2.imdecode(np.frombuffer(content, np.uint8), 1).shape) <= limit
        wanted = dataset[(0, index)]
        torch.testing.assert_close(found[index].keypoints_2d, wanted.keypoints_2d, atol=1e-5, rtol=0)
        torch.testing.assert_close(found[index].joints, wanted.joints)
        assert found[index].mirrored == float(index)
        difference = (found[index].image.float() - wanted.image.float()).abs()
        assert difference.mean() < 3, "another part of the image, or shifted"
        assert moved.box[1] <= side


@pytest.mark.parametrize(("width", "height"), [(900, 700), (3000, 2000)])
def test_keypoints_stay_on_what_they_mark_when_an_image_is_cut_and_shrunk(tmp_path, width, height):
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    shown, radius = np.array([width * 0.45, height * 0.55]), width / 60
    spot = 255 * np.exp(-((x - shown[0]) ** 2 + (y - shown[1]) ** 2) / (2 * radius**2))
    cv2.imwrite(str(tmp_path / "a.png"), np.repeat(spot[..., None], 3, -1).astype(np.uint8))
    keypoints = np.column_stack((np.tile(shown, (21, 1)), np.ones(21)))
    hand = RawSample(tmp_path / "a.png", Labels(keypoints), Box(shown + 30, width / 2.6))
    content, moved = pack.packed_hand(hand)
    image = cv2.imdecode(np.frombuffer(content, np.uint8), 0).astype(float)
    image[image < 8] = 0  # what JPEG made of black
    assert max(image.shape) <= 768 and image.shape[1] < width
    v, u = np.mgrid[: image.shape[0], : image.shape[1]]
    centre = np.array([(image * u).sum(), (image * v).sum()]) / image.sum()
    np.testing.assert_allclose(moved.labels.keypoints[0, :2], centre, atol=0.05)


def test_what_augmentation_reaches_is_never_cut_off():
    rng = np.random.default_rng(0)
    for _ in range(2000):
        change = augment.draw(rng, augment.Strength())
        centre, side = augment.move_box(np.zeros(2), 1.0, change)
        back = crop.invert(crop.crop_affine(centre, side, 1, change.rotation))
        corners = crop.transform(back, np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]]))
        assert np.abs(corners).max() <= pack.REACH


def test_an_interrupted_packing_goes_on_and_gives_the_same_shards(tmp_path, freihand, mano):
    def stop(text):
        if "000001" in text:
            raise KeyboardInterrupt

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    pack.pack(freihand, whole, "freihand", embedded=False, shard=3, say=lambda text: None)
    with pytest.raises(KeyboardInterrupt):
        pack.pack(freihand, parts, "freihand", embedded=False, shard=3, say=stop)
    with pytest.raises(ValueError, match="only half packed"):
        TarDataset(parts, mano)
    before = {path.name: path.stat().st_mtime_ns for path in find_shards(parts)}
    assert list(before) == ["000000.tar", "000001.tar"]
    lines: list[str] = []
    assert pack.pack(freihand, parts, "freihand", embedded=False, shard=3, say=lines.append).hands == 8
    assert len(lines) == 1 and all((parts / name).stat().st_mtime_ns == then for name, then in before.items())
    for path in find_shards(whole):
        assert path.read_bytes() == (parts / path.name).read_bytes()
    assert sorted(path.name for path in parts.iterdir()) == [*(f"{i:06d}.tar" for i in range(3)), "pack.json"]


def test_a_folder_of_other_shards_is_never_written_into(tmp_path, freihand, mano):
    pack.pack(freihand, tmp_path / "a", "freihand", embedded=False, say=lambda text: None)
    with pytest.raises(ValueError, match="was packed with data freihand, now hint"):
        pack.pack(freihand, tmp_path / "a", "hint", embedded=False)
    other = FreiHAND(freihand.root, "training", mano, 96, cropping=crop.Cropping("square"))
    with pytest.raises(ValueError, match="was packed with crops_and_labels "):
        pack.pack(other, tmp_path / "a", "freihand", embedded=False)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "000000.tar").touch()
    with pytest.raises(ValueError, match="holds other shards"):
        pack.pack(freihand, tmp_path / "b", "freihand", embedded=False)


def test_unreadable_hands_are_skipped_counted_and_named(tmp_path):
    hands = [painted(tmp_path / f"{i}.jpg", 200, 200, (100, 100), 90, i) for i in range(4)]
    (tmp_path / "2.jpg").write_bytes((tmp_path / "2.jpg").read_bytes()[:900])
    (tmp_path / "3.jpg").unlink()
    packed = pack.pack(Painted(hands), tmp_path / "out", "painted", embedded=False, say=lambda text: None)
    assert packed.hands == 2 and len(packed.skipped) == 2
    assert "hand 2: " in packed.skipped[0] and "2.jpg" in packed.skipped[0] and "3.jpg" in packed.skipped[1]
    about = json.loads((tmp_path / "out" / "pack.json").read_text())
    assert about["shards"]["000000.tar"] == {"hands": 2, "skipped": packed.skipped} and about["complete"]
    with pytest.raises(ValueError, match=r"not one hand of painted could be read, the first: hand 0: .*2\.jpg"):
        pack.pack(Painted(hands[2:]), tmp_path / "none", "painted", embedded=False, say=lambda text: None)


def test_a_shard_that_reads_back_otherwise_is_an_error_and_leaves_nothing(tmp_path):
    """A box of one pixel: tars hold no smaller one than two."""
    hand = painted(tmp_path / "0.jpg", 200, 200, (100, 100), 90)._replace(box=Box(np.array([100.0, 100.0]), 1.0))
    with pytest.raises(ValueError, match="reads back with other labels"):
        pack.pack(Painted([hand]), tmp_path / "out", "painted", embedded=False)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["pack.json"]


def test_only_image_datasets_are_packed(tmp_path):
    with pytest.raises(ValueError, match="only sets of images"):
        pack.pack(object(), tmp_path / "out", "synthetic", embedded=True)
    assert not (tmp_path / "out").exists()


def test_joints_of_packed_hands_project_where_the_cameras_say(tmp_path, freihand, mano):
    pack.pack(freihand, tmp_path, "freihand", embedded=False, say=lambda text: None)
    for index, item in items(tmp_path, mano).items():
        pixels = project_pixels(item.joints[:, :3].double().numpy(), freihand.camera(index))
        there = crop.transform(item.crop.double().numpy(), pixels)
        np.testing.assert_allclose(there / 96 - 0.5, item.keypoints_2d[:, :2], atol=1e-4)
