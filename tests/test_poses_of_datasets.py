"""What a tokenizer trains on: hands from the annotations of every dataset, without opening an image."""

import json
import pickle
from contextlib import ExitStack

import numpy as np
import pytest
import torch
from miniatures_2d import write_interhand
from miniatures_capture import replaced, write_freihand, write_ho3d
from miniatures_tars import hand_record, write_tar
from scipy.spatial.transform import Rotation

from fasthamer.config import load_config
from fasthamer.data.pose_sources import build_poses, poses_of_dataset
from fasthamer.data.poses import HandPoses
from fasthamer.data.readers.dexycb import DexYCB
from fasthamer.data.readers.freihand import FreiHAND
from fasthamer.data.readers.ho3d import HO3D
from fasthamer.data.readers.interhand import InterHand
from fasthamer.data.readers.tar_members import members
from fasthamer.data.readers.tars import TarDataset
from fasthamer.data.streams import Indexed, Mix
from fasthamer.data.subsets import LabelledOnly, PartlyLabelled, WithSynthetic
from fasthamer.data.synthetic.dataset import SyntheticDataset
from fasthamer.hand.skinning import Skinning
from fasthamer.types import ManoParams

BROKEN = b"\xff\xd8\xff no image"


def config(**data):
    overrides = [text for key, value in data.items() for text in (f"DATA.{key}", str(value))]
    return load_config(None, ["TOKENIZER.POSES", "data", "DATA.WORKERS", "0", *overrides])


def rows(found):
    """A set of hands, to compare whatever their order, to four digits."""
    together = np.hstack((found.hand_pose.flatten(1), found.betas))
    return {tuple(row) for row in np.round(together, 4).tolist()}


def labels_of(dataset):
    """The poses among a set's items: what training sees, images and all."""
    items = [dataset[(0, index)] for index in range(len(dataset))]
    items = [item for item in items if item.has_pose]
    return HandPoses(torch.stack([item.hand_pose for item in items]), torch.stack([item.betas for item in items]))


def break_images(*folders):
    for folder in folders:
        for path in [*folder.rglob("*.jpg"), *folder.rglob("*.png")]:
            path.write_bytes(BROKEN)


def spread(points):
    """(B, N, N) distances within point sets (B, 778, 3), of every 20th point: no matter where and how they lie."""
    points = torch.as_tensor(np.asarray(points), dtype=torch.float64)[:, ::20]
    return torch.cdist(points, points)


def test_freihands_poses_make_its_own_meshes_and_broken_images_do_not_matter(tmp_path, mano):
    root = write_freihand(tmp_path)
    vertices = json.loads((root / "training_verts.json").read_text())  # by smplx, of the whole MANO parameters
    break_images(root)
    train, held_out = build_poses(config(NAME="freihand", ROOT=root), mano)
    found = HandPoses(*(torch.cat(part) for part in zip(train, held_out, strict=True)))
    assert len(found.betas) == 3 and len(held_out.betas) == 1  # three hands before four backgrounds each
    mesh = Skinning(mano)(ManoParams(torch.eye(3).expand(3, 1, 3, 3), *found))[0]
    error = (spread(mesh)[:, None] - spread(vertices)[None]).abs().amax((2, 3))  # (found, written)
    assert (error.min(1).values < 1e-5).all() and error.argmin(1).sort().values.tolist() == [0, 1, 2]


def test_freihand_without_mano_raises_an_error_with_the_remedy(tmp_path, embedded):
    root = write_freihand(tmp_path, count=2)
    with pytest.raises(ValueError, match=r"no hand poses: .* freihand and dexycb for MANO, .*MANO_RIGHT\.pkl"):
        build_poses(config(NAME="freihand", ROOT=root), embedded)


def test_real_freihand_files_without_mano_parameters_hold_no_poses(shared_data, mano):
    dataset = FreiHAND(shared_data("freihand_mini"), "training", mano)
    with pytest.raises(ValueError, match="holds no hand poses"):
        poses_of_dataset(dataset)


def test_dexycb_gives_each_moment_once_and_left_hands_mirrored(dexycb_root, mano):
    dataset = DexYCB(dexycb_root, "s0_train", mano, meshes=False)
    seen = labels_of(dataset)
    lefts = [index for index in range(len(dataset)) if dataset.is_left(index)]
    assert lefts and len(lefts) < len(dataset)
    with ExitStack() as stack:
        for index in range(len(dataset)):
            stack.enter_context(replaced(dataset.image_path(index), BROKEN))
        found = poses_of_dataset(dataset)
    moments = {tuple(np.round(pose, 4).ravel().tolist()) for pose in seen.hand_pose.numpy()}
    assert {tuple(np.round(pose, 4).ravel().tolist()) for pose in found.hand_pose.numpy()} == moments
    assert len(found.betas) == len(moments) < len(dataset) / 4
    rights = [dataset.labels(index).betas for index in range(len(dataset)) if index not in lefts]
    own = [bool(np.isclose(betas, rights, atol=1e-5).all(1).any()) for betas in found.betas.numpy()]
    assert (
        sorted(own) == [False, True] and found.betas.isfinite().all()
    )  # a left hand's belong to another model: sampled


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_ho3ds_poses_serve_any_hand_but_its_shapes_only_mano(version, tmp_path, mano, embedded):
    root = write_ho3d(tmp_path, version)
    seen = labels_of(HO3D(root, "training", mano, meshes=False))
    break_images(root)
    found = poses_of_dataset(HO3D(root, "training", mano))
    assert len(found.betas) == 2 and rows(found) == rows(seen)  # the second of three frames is not annotated
    other = poses_of_dataset(HO3D(root, "training", embedded))
    assert torch.equal(other.hand_pose, found.hand_pose) and not torch.isclose(other.betas, found.betas).any()
    with pytest.raises(ValueError, match="holds no hand poses"):
        poses_of_dataset(HO3D(root, "evaluation", mano))


def write_records(root, records):
    """Shards of two samples each, whose images nobody can decode."""
    for shard in range(0, len(records), 2):
        files = []
        for number, record in enumerate(records[shard : shard + 2], shard):
            files += [(f"{number:04d}.jpg", BROKEN), (f"{number:04d}.data.pyd", record)]
        write_tar(root / f"{shard // 2:06d}.tar", files)
    return root


@pytest.fixture
def records():
    rng = np.random.default_rng(0)
    return [hand_record(rng, left=number == 1) for number in range(5)]


def test_shards_are_read_without_their_images_and_left_hands_mirrored(tmp_path, records, mano, embedded):
    root = write_records(tmp_path, [pickle.dumps([record]) for record in records])
    expected = np.stack([record["hand_pose"].reshape(16, 3)[1:] for record in records])
    expected[1] *= [1, -1, -1]
    found = poses_of_dataset(TarDataset(root, mano))
    matrices = Rotation.from_rotvec(expected.reshape(-1, 3)).as_matrix()
    np.testing.assert_allclose(found.hand_pose.flatten(0, 1), matrices, atol=1e-6)
    np.testing.assert_allclose(found.betas, [record["betas"] for record in records], atol=1e-6)
    other = poses_of_dataset(TarDataset(root, embedded))  # MANO's rotations serve it, MANO's shapes do not
    assert torch.equal(other.hand_pose, found.hand_pose) and not torch.isclose(other.betas, found.betas).any()
    content = {file["fname"]: file["data"] for file in members(root / "000000.tar", [], (".jpg",))}
    assert content["0000.jpg"] == b"" and len(content["0000.data.pyd"]) > 1000


def test_filters_labels_and_damage_count_for_poses_as_in_training(tmp_path, records, mano):
    records[0]["has_hand_pose"] = np.array(0.0)
    records[2]["betas"] = np.full(10, 4.0, np.float32)  # beyond HaMeR's filter, and so is no label
    content = [pickle.dumps([record]) for record in records]
    content[3] = b"cos\nsystem\n(S'true'\ntR."
    tars = TarDataset(write_records(tmp_path, content), mano)
    with pytest.warns(UserWarning, match=r"1 samples or places could not be read, the first: \S*000001\.tar: 0003"):
        found = poses_of_dataset(tars)
    np.testing.assert_allclose(found.betas, [records[1]["betas"], records[4]["betas"]], atol=1e-6)
    half = TarDataset(tmp_path, mano, seed=2).partly_labelled(0.5, only=False)
    labelled = [half._is_labelled(sample) for shard in range(3) for sample in half.samples(shard, [])]
    assert labelled == [True, False, False, False, True]
    np.testing.assert_allclose(poses_of_dataset(half).betas, [records[4]["betas"]], atol=1e-6)


def test_sets_within_sets_are_found_and_only_labelled_samples_count(tmp_path, mano, embedded):
    images = HO3D(write_ho3d(tmp_path / "ho3d"), "training", mano)
    records = [pickle.dumps([hand_record(np.random.default_rng(7))])]
    tars = TarDataset(write_records(tmp_path / "tars", records), mano)
    drawn = SyntheticDataset(mano, 3, image_size=32)
    whole, shards, synthetic = (rows(poses_of_dataset(each)) for each in (images, tars, drawn))
    assert (len(whole), len(shards), len(synthetic)) == (2, 1, 3)
    assert synthetic == rows(labels_of(drawn))
    first = rows(poses_of_dataset(PartlyLabelled(images, np.array([0, 1]))))
    assert len(first) == 1 and first < whole
    assert rows(poses_of_dataset(LabelledOnly(images, np.array([2])))) == whole - first
    assert rows(poses_of_dataset(WithSynthetic(images, drawn, 0.5))) == whole | synthetic
    mix = Mix([Indexed(images, 0, "x"), tars], [0.9, 0.1], 0)
    assert rows(poses_of_dataset(mix)) == whole | shards


def test_a_set_named_by_the_config_is_read_as_training_would(tmp_path, embedded):
    root = write_ho3d(tmp_path)
    whole = poses_of_dataset(HO3D(root, "training", embedded))
    train, held_out = build_poses(config(NAME="ho3d", ROOT=root), embedded)
    assert rows(train) | rows(held_out) == rows(whole) and len(held_out.betas) == 1
    with pytest.raises(FileNotFoundError, match=r"train\.txt is missing"):
        build_poses(config(NAME="ho3d", ROOT=tmp_path / "none"), embedded)
    with pytest.raises(KeyError, match="did you mean 'ho3d'"):
        build_poses(config(NAME="ho3", ROOT=root), embedded)


def test_a_set_of_joints_alone_holds_no_poses(tmp_path):
    write_interhand(tmp_path, count=2)
    with pytest.raises(ValueError, match="holds no hand poses"):
        poses_of_dataset(InterHand(tmp_path, "training"))
