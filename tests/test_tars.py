"""Tar shards in HaMeR's format: labels, filters, and reports of damaged parts."""

import io
import json
import pickle
import tarfile
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from miniatures_tars import hand_record, header_offsets, image, write_shards, write_tar

from fasthamer.data import crop
from fasthamer.data.augment import Strength
from fasthamer.data.readers.tar_members import members
from fasthamer.data.readers.tar_record import Filters, read_record, write_record
from fasthamer.data.readers.tars import TarDataset
from fasthamer.data.sample import Labels
from fasthamer.types import ManoParams


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    root = tmp_path_factory.mktemp("tars")
    return root, write_shards(root, shards=4, samples=6)


def read(*hands, filters=None):
    return read_record(pickle.dumps(list(hands)), "a.tar: key", filters)


def record(seed=0, **changes):
    return hand_record(np.random.default_rng(seed), **changes)


# --- records


def test_a_record_is_read_according_to_hamers_format():
    made = record(seed=3)
    (hand,) = read(made, filters=Filters())
    np.testing.assert_array_equal(hand.labels.keypoints, made["keypoints_2d"])
    np.testing.assert_array_equal(hand.labels.joints, made["keypoints_3d"])
    np.testing.assert_array_equal(hand.labels.pose.ravel(), made["hand_pose"])
    np.testing.assert_array_equal(hand.labels.betas, made["betas"])
    width, height = made["scale"].astype(float) * 200
    assert hand.box[1] == pytest.approx(max(height, width * 256 / 192)) and not hand.left
    assert hand.labels.vertices is None


def test_an_image_of_two_hands_gives_two_hands():
    first, second = read(record(), record(seed=1, left=True))
    assert (first.left, second.left) == (False, True)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_and_old_numpy_names_are_read(protocol):
    data = pickle.dumps([record()], protocol=protocol)
    old = data.replace(b"cnumpy._core.", b"cnumpy.core.") if protocol == 2 else data
    assert len(read_record(old, "x", None)) == 1


def test_keypoints_below_the_confidence_are_unknown():
    points = record()["keypoints_2d"].copy()
    points[:3, 2] = [0.29, 0.31, 0.0]
    (hand,) = read(record(keypoints_2d=points), filters=Filters())
    assert (hand.labels.keypoints[:3, 2] > 0).tolist() == [False, True, False]


@pytest.mark.parametrize(("known", "kept"), [(4, 0), (5, 1)])
def test_hands_with_four_keypoints_or_fewer_are_left_out(known, kept):
    points = record()["keypoints_2d"].copy()
    points[known:, 2] = 0
    assert len(read(record(keypoints_2d=points), filters=Filters())) == kept


@pytest.mark.parametrize(("loss", "kept"), [(30999.0, 1), (31000.0, 0)])
def test_hands_whose_fit_reprojects_badly_are_left_out(loss, kept):
    info = {"fitting_loss": np.array({"reprojection_loss": np.float32(loss)}, dtype=object)}
    assert len(read(record(extra_info=info), filters=Filters())) == kept
    assert len(read(record(extra_info={}), filters=Filters())) == 1  # without a fitting loss


def test_a_fitting_loss_in_brackets_is_one_and_several_are_refused():
    filters = Filters(fitting_loss=5.0)
    assert len(read(record(extra_info={"fitting_loss": {"reprojection_loss": np.array([4.0])}}), filters=filters)) == 1
    with pytest.raises(ValueError, match="hand 0: the fitting loss is not one number"):
        read(record(extra_info={"fitting_loss": {"reprojection_loss": np.ones(2)}}), filters=filters)


@pytest.mark.parametrize(
    "changes", [{"betas": np.array([0, 3.1] + [0] * 8)}, {"has_betas": np.array(0.0)}, {"has_hand_pose": np.array(0.0)}]
)
def test_pose_and_shape_are_labels_together_or_the_shape_is_the_mean(changes):
    (hand,) = read(record(**changes), filters=Filters())
    assert hand.labels.pose is None and hand.labels.betas.tolist() == [0] * 10  # HaMeR's BETAS_REG
    (hand,) = read(record(**changes), filters=Filters(regular_betas=False))
    assert hand.labels.betas is None


def test_shards_packed_by_our_tool_are_not_filtered():
    made = record(betas=np.full(10, 5.0))
    (hand,) = read(made, filters=None)
    assert hand.labels.betas.tolist() == [5.0] * 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keypoints_2d": np.zeros((44, 3))}, r"keypoints_2d is \(44, 3\), expected \(21, 3\)"),
        ({"center": np.array([np.nan, 3])}, "has no box"),
        ({"scale": np.zeros(2)}, "has no box"),
        ({"hand_pose": np.full(48, np.inf)}, "hand_pose holds numbers that are not finite"),
        ({"right": 0.5}, "right: 0.5 is no side"),
        ({"right": np.nan}, "right: nan is no side"),
        ({"right": "yes"}, "right is not an array of numbers"),
    ],
)
def test_a_malformed_record_is_refused_and_named(changes, message):
    with pytest.raises(ValueError, match=rf"a\.tar: key: hand 0.*{message}"):
        read(record(**changes))
    lacking = record()
    del lacking["keypoints_3d"]
    with pytest.raises(ValueError, match="hand 0 has no keypoints_3d"):
        read(lacking)


def test_a_malicious_record_is_refused_without_being_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "harm",)

    with pytest.raises(ValueError, match="refused, since it refers to pathlib"):
        read({"keypoints_2d": Evil()})
    assert not (tmp_path / "harm").exists()


def test_a_written_record_reads_back_to_float32():
    rng = np.random.default_rng(0)
    labels = Labels(
        np.column_stack((rng.normal(100, 30, (21, 2)), np.ones(21))),
        np.column_stack((rng.normal(size=(21, 3)), np.ones(21))),
        rng.normal(size=(778, 3)),
        rng.normal(size=(16, 3)),
        rng.normal(size=10),
    )
    for given in (labels, Labels(), labels._replace(pose=None), labels._replace(joints=None, vertices=None)):
        (hand,) = read_record(write_record(given, crop.Box(np.array([3.5, 9.0]), 123.4), True, "x.jpg"), "x", None)
        assert hand.left and hand.box[1] == pytest.approx(123.4) and hand.box[0].tolist() == [3.5, 9.0]
        for found, wanted in zip(hand.labels, given, strict=True):
            assert (found is None) == (wanted is None)
            if wanted is not None:
                np.testing.assert_array_equal(found, wanted.astype(np.float32))


# --- archives


def names(path, **options):
    skipped: list[str] = []
    return [member["fname"] for member in members(path, skipped, **options)], skipped


def small(path):
    return write_tar(path, [(f"{i}.txt", bytes([i]) * 700) for i in range(6)])


def test_an_undamaged_archive_is_read_completely(tmp_path):
    found = list(members(small(tmp_path / "a.tar"), skipped := []))
    assert [member["fname"] for member in found] == [f"{i}.txt" for i in range(6)] and not skipped
    assert [member["data"] for member in found] == [bytes([i]) * 700 for i in range(6)]


def test_reading_continues_after_a_damaged_header(tmp_path):
    path = small(tmp_path / "a.tar")
    content = bytearray(path.read_bytes())
    begin = header_offsets(path)["2.txt"]
    content[begin + 100 : begin + 300] = bytes(range(200))
    path.write_bytes(content)
    found, skipped = names(path)
    assert found == ["0.txt", "1.txt", "3.txt", "4.txt", "5.txt"]
    assert len(skipped) == 1 and f"{path}: no header at byte {begin}" in skipped[0]


def test_zero_blocks_inside_an_archive_are_reported(tmp_path):
    path = small(tmp_path / "a.tar")
    content = bytearray(path.read_bytes())
    begin = header_offsets(path)["2.txt"]
    content[begin : begin + 1536] = bytes(1536)
    path.write_bytes(content)
    found, skipped = names(path)
    assert found == ["0.txt", "1.txt", "3.txt", "4.txt", "5.txt"]
    assert skipped == [f"{path}: 3 empty blocks before 3.txt"]


@pytest.mark.parametrize(("cut", "message"), [(0, "no end mark"), (200, "no header"), (512 + 100, "3.txt: cut short")])
def test_a_truncated_archive_is_reported(tmp_path, cut, message):
    path = small(tmp_path / "a.tar")
    path.write_bytes(path.read_bytes()[: header_offsets(path)["3.txt"] + cut])
    found, skipped = names(path)
    assert len(found) == 3 and len(skipped) == 1 and str(path) in skipped[0] and message in skipped[0]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_kind_of_archive_and_long_names_are_read_as_tarfile_reads_them(tmp_path, form):
    path, long = tmp_path / "a.tar", "d" * 90 + "/" + "e" * 60 + ".jpg"
    unicode = "\u00e9/x.jpg" if form != tarfile.USTAR_FORMAT else "x.jpg"
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in ((long, b"1" * 512), ("dir", None), (unicode, b"2" * 513), ("b.txt", b"")):
            header = tarfile.TarInfo(name)
            header.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            header.size = len(content or b"")
            archive.addfile(header, io.BytesIO(content or b""))
    skipped: list[str] = []
    found = {member["fname"]: member["data"] for member in members(path, skipped)}
    assert found == {long: b"1" * 512, unicode: b"2" * 513, "b.txt": b""} and not skipped
    with tarfile.open(path) as archive:
        assert [each.name for each in archive if each.isreg()] == list(found)


@pytest.mark.parametrize("content", [b"", b"no archive" * 200])
def test_a_file_that_is_no_archive_is_reported(tmp_path, content):
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    found, skipped = names(path)
    assert not found and len(skipped) == 1 and str(path) in skipped[0]


def test_a_member_above_the_size_limit_is_skipped_and_reported(tmp_path):
    found, skipped = names(small(tmp_path / "a.tar"), largest=100)
    assert not found and len(skipped) == 6 and "0.txt: of 700 bytes" in skipped[0]


# --- the dataset


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


def test_the_box_equals_hamers():
    made = record(scale=np.array([1.2, 0.4], np.float32))
    (hand,) = read(made)
    assert hand.box[1] == pytest.approx(1.2 * 200 * 256 / 192) == pytest.approx(crop.box_side(np.array([240.0, 80.0])))
