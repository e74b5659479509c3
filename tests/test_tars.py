"""Tar shards as a dataset: labels, lanes, epochs, and samples that cannot be read."""

import json
import pickle
from itertools import islice

import numpy as np
import pytest
import torch
from miniatures_tars import hand_record, header_offsets, image, write_shards, write_tar

from fasthamer.data.augment import Strength
from fasthamer.data.readers.tars import TarDataset
from fasthamer.types import ManoParams


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    root = tmp_path_factory.mktemp("tars")
    return root, write_shards(root, shards=4, samples=6)


def test_an_item_has_the_labels_of_its_record(shards, mano):
    root, _ = shards
    dataset = TarDataset(root, mano, 224)
    for item in dataset.epoch(0, 0, 1, skipped := []):
        x, y = ((item.keypoints_2d[9, :2] + 0.5) * 224).round().long().tolist()
        assert (item.image[:, y, x] > 200).all()  # the spot on the middle knuckle, in mirrored crops too
        assert item.has_pose == item.has_betas == 1 and item.has_vertices == 0
        assert item.mirrored == float(int(item.index) % 1_000_000 % 3 == 2)
        mano_params = ManoParams(item.global_orient[None], item.hand_pose[None], item.betas[None])
        _, joints = mano(mano_params)  # pose and shape give the joints, mirrored or not
        torch.testing.assert_close(joints[0] - joints[0, 0], item.joints[:, :3] - item.joints[0, :3], atol=2e-6, rtol=0)
    assert not skipped


def test_manos_parameters_are_no_labels_for_the_embedded_hand(shards, embedded):
    item = next(TarDataset(shards[0], embedded, 64).epoch(0, 0, 1, []))
    assert item.has_pose == item.has_betas == 0 and item.joints[:, 3].all() and item.keypoints_2d[:, 2].all()


def test_all_lanes_together_read_each_sample_once_per_epoch(shards, embedded):
    dataset = TarDataset(shards[0], embedded, 32, Strength())
    everything = sorted(shard * 1_000_000 + i for shard in range(4) for i in range(6))
    for lanes in (1, 2, 3, 4, 7):
        for epoch in (0, 5):
            seen = [int(item.index) for lane in range(lanes) for item in dataset.epoch(epoch, lane, lanes, [])]
            assert sorted(seen) == everything, (lanes, epoch)


def test_epochs_differ_and_repeat_exactly(shards, embedded):
    def order(seed, epoch):
        return [int(item.index) for item in TarDataset(shards[0], embedded, 32, seed=seed).epoch(epoch, 0, 1, [])]

    assert order(0, 0) == order(0, 0) != order(0, 1)
    assert order(1, 0) != order(0, 0)
    mixed = np.array(order(0, 0)) // 1_000_000
    assert len(set(mixed[:8].tolist())) > 1  # shards are interleaved


def test_augmentation_is_a_function_of_seed_epoch_and_sample(shards, embedded):
    def items(seed, epoch):
        dataset = TarDataset(shards[0], embedded, 32, Strength(), seed=seed)
        return {int(item.index): item.crop for item in dataset.epoch(epoch, 0, 1, [])}

    one, again, next_epoch, other = items(0, 0), items(0, 0), items(0, 1), items(1, 0)
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert not any(torch.equal(one[key], next_epoch[key]) for key in one)
    assert not any(torch.equal(one[key], other[key]) for key in one)


def test_a_walk_resumes_from_any_place(tmp_path, embedded):
    rng = np.random.default_rng(0)
    files = []
    for number in range(4):  # samples of one, two, one, two hands
        hands = [hand_record(rng, embedded) for _ in range(1 + number % 2)]
        files += [(f"{number}.data.pyd", pickle.dumps(hands)), (f"{number}.jpg", image(hands[0], number))]
    write_tar(tmp_path / "a.tar", files)
    dataset = TarDataset(tmp_path, embedded, 32, Strength())
    walk = list(islice(dataset.walk(0, 1, None, []), 20))
    for stop in range(19):
        place = json.loads(json.dumps(walk[stop][1]))
        rest = walk[stop + 1 : stop + 4]
        again = islice(dataset.walk(0, 1, place, []), len(rest))
        for (item, where), (wanted, there) in zip(again, rest, strict=True):
            assert where == there and torch.equal(item.image, wanted.image) and item.index == wanted.index


def test_damaged_samples_are_skipped_counted_and_named(tmp_path, embedded):
    (keys,) = write_shards(tmp_path, shards=1, samples=5)
    path = tmp_path / "000000.tar"
    offsets, content = header_offsets(path), bytearray(path.read_bytes())
    pyd, jpg = offsets[f"{keys[1]}.data.pyd"] + 512, offsets[f"{keys[3]}.jpg"]
    content[pyd : pyd + 40] = b"\x80" * 40  # not a pickle
    content[jpg : jpg + 100] = b"?" * 100  # the JPEG's header
    path.write_bytes(content)
    items = list(TarDataset(tmp_path, embedded, 32).epoch(0, 0, 1, skipped := []))
    assert sorted(int(item.index) for item in items) == [0, 2, 4]
    assert len(skipped) == 3
    assert f"{path}: {keys[1]}: not a readable pickle" in "\n".join(skipped)
    assert f"{path}: {keys[3]}: no image" in skipped and "no header at byte" in "\n".join(skipped)


def test_a_truncated_jpeg_is_skipped_although_opencv_decodes_it(tmp_path, embedded):
    made = hand_record(np.random.default_rng(0), embedded)
    content = image(made)
    files = [("a.data.pyd", pickle.dumps([made])), ("a.jpg", content[: len(content) // 2])]
    files += [("b.data.pyd", pickle.dumps([made])), ("b.jpg", content)]
    write_tar(tmp_path / "a.tar", files)
    items = list(TarDataset(tmp_path, embedded, 32).epoch(0, 0, 1, skipped := []))
    assert len(items) == 1 and len(skipped) == 1 and "a: damaged image" in skipped[0]


def test_shards_without_anything_readable_are_an_error_not_an_endless_loop(tmp_path, embedded):
    (tmp_path / "a.tar").write_bytes(b"nothing" * 300)
    with pytest.raises(ValueError, match="not one sample can be read"):
        next(TarDataset(tmp_path, embedded, 32).walk(1, 2, None, []))


def test_the_labelled_fraction_is_the_same_in_every_epoch(shards, embedded):
    dataset = TarDataset(shards[0], embedded, 32).partly_labelled(0.5, only=False)

    def labelled(epoch):
        return {int(i.index) for i in dataset.epoch(epoch, 0, 1, []) if i.keypoints_2d[:, 2].any()}

    assert 4 < len(labelled(0)) < 20 and labelled(0) == labelled(1)
    only = TarDataset(shards[0], embedded, 32).partly_labelled(0.5, only=True)
    assert {int(item.index) for item in only.epoch(0, 0, 1, [])} == labelled(0)


def test_the_error_for_a_folder_without_shards_says_what_is_expected(tmp_path, embedded):
    with pytest.raises(FileNotFoundError, match=r"holds no \.tar shards"):
        TarDataset(tmp_path, embedded)
    with pytest.raises(FileNotFoundError, match=r"DATA\.ROOT must be a folder of \.tar shards"):
        TarDataset(tmp_path / "none", embedded)
