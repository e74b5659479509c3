"""What a tokenizer trains on: hands from the sampler and from files."""

import numpy as np
import pytest
import torch
from miniatures_capture import write_freihand, write_ho3d
from scipy.spatial.transform import Rotation

from fasthamer.config import load_config
from fasthamer.data.pose_sources import build_poses, poses_of_dataset
from fasthamer.data.poses import HandPoses, gathered, poses_of_file, sampled_poses, split
from fasthamer.data.readers.freihand import FreiHAND
from fasthamer.data.readers.ho3d import HO3D
from fasthamer.hand.mano import load_hand
from fasthamer.hand.procedural import sample_betas, sample_pose
from fasthamer.hand.skinning import Skinning
from fasthamer.types import ManoParams


def config(source, *overrides):
    return load_config(None, ["TOKENIZER.POSES", str(source), "DATA.WORKERS", "0", *overrides])


def rotations(pose):
    """(..., 3) axis-angle to (..., 3, 3), by scipy."""
    pose = np.asarray(pose, float)
    return Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(*pose.shape, 3)


# --- sampled


def test_a_sampled_hand_depends_on_seed_and_number_alone():
    found = sampled_poses(6, seed=3)
    assert found.hand_pose.shape == (6, 15, 3, 3) and found.betas.shape == (6, 10)
    assert found.hand_pose.dtype == found.betas.dtype == torch.float32
    random = np.random.default_rng((3, 4))
    np.testing.assert_allclose(found.hand_pose[4], rotations(sample_pose(random)), atol=1e-6)
    np.testing.assert_allclose(found.betas[4], sample_betas(random), atol=1e-6)
    fewer, others = sampled_poses(3, seed=3), sampled_poses(3, seed=4)
    assert torch.equal(fewer.hand_pose, found.hand_pose[:3])
    assert not torch.isclose(others.betas, fewer.betas).any()


def test_several_processes_draw_the_same_hands_as_one():
    alone, together = sampled_poses(10, 1), sampled_poses(10, 1, workers=2, piece=4)
    assert all(map(torch.equal, alone, together))


def test_a_process_that_starts_from_nothing_reads_the_same_poses(tmp_path, mano):
    """As on macOS and Windows, where function and dataset are sent to a new interpreter."""
    dataset = FreiHAND(write_freihand(tmp_path), "training", mano)
    spawned = poses_of_dataset(dataset, workers=2, piece=4, start_method="spawn")
    assert all(map(torch.equal, poses_of_dataset(dataset), spawned))


def test_a_users_mistake_in_another_process_raises_the_same_error_as_in_this_one(tmp_path, mano):
    root = write_ho3d(tmp_path)
    dataset = HO3D(root, "training", mano)
    path = root / "train" / "ABF10" / "meta" / "0002.pkl"
    path.unlink()
    for workers in (0, 2):
        with pytest.raises(FileNotFoundError, match=r"^\S*0002\.pkl is missing: train\.txt names it$"):
            poses_of_dataset(dataset, workers, piece=1)


@pytest.mark.parametrize("which", ["embedded", "file"])
def test_sampled_hands_make_meshes_of_either_hand(which, request):
    """The file has MANO's form, chumpy objects and all."""
    name = "embedded"
    if which == "file":
        name = request.getfixturevalue("shared_data")("mano") / "SYNTHETIC_MANO_RIGHT_chumpy.pkl"
    hand = load_hand(name)
    assert hand.is_embedded == (which == "embedded")
    train, held_out = build_poses(config("sampled", "TOKENIZER.HANDS", "20"), hand)
    assert (len(train.betas), len(held_out.betas)) == (20, 2)
    params = ManoParams(torch.eye(3).expand(20, 1, 3, 3), *train)
    torch.testing.assert_close(Skinning(hand)(params)[0], hand(params)[0], atol=1e-6, rtol=0)


# --- files


def write(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_every_form_of_a_file_means_the_same_hands(tmp_path):
    random = np.random.default_rng(0)
    pose, betas = random.normal(0, 0.5, (7, 16, 3)), random.normal(size=(7, 10))
    forms = [pose.reshape(7, 48), pose[:, 1:].reshape(7, 45), pose, pose[:, 1:], rotations(pose)]
    forms += [rotations(pose[:, 1:]), rotations(pose).reshape(7, 144).astype(np.float32)]
    for form in forms:
        found = poses_of_file(write(tmp_path / "poses.npz", hand_pose=form, betas=betas))
        np.testing.assert_allclose(found.hand_pose, rotations(pose[:, 1:]), atol=1e-6)
        np.testing.assert_allclose(found.betas, betas, atol=1e-6)


def test_a_file_without_shapes_is_given_sampled_ones(tmp_path):
    path = write(tmp_path / "poses.npz", hand_pose=np.random.default_rng(0).normal(0, 0.3, (300, 45)))
    found = poses_of_file(path)
    assert torch.equal(found.betas, poses_of_file(path).betas)
    assert found.betas.std() == pytest.approx(1, abs=0.1) and found.betas.mean() == pytest.approx(0, abs=0.1)
    assert torch.isclose(found.betas[0], found.betas[1]).sum() == 0


def test_equal_hands_count_once_in_the_order_of_their_first():
    pose = rotations(np.random.default_rng(0).normal(size=(3, 15, 3))).astype(np.float32)[[0, 1, 0, 2, 1]]
    found = gathered(pose, np.zeros((5, 10)))
    np.testing.assert_array_equal(found.hand_pose, pose[[0, 1, 3]])
    other = np.zeros((5, 10))
    other[2] = 1  # the same pose of another hand
    assert len(gathered(pose, other).betas) == 4
    unknown = gathered(pose, np.full((5, 10), np.nan))
    assert len(unknown.betas) == 3 and unknown.betas.isfinite().all()


BAD_FILES = {
    "principal components": ({"hand_pose": np.zeros((4, 6))}, "6 numbers a hand; principal components have to be"),
    "a body": ({"hand_pose": np.zeros((4, 63))}, "63 numbers a hand; expected"),
    "nothing": ({"hand_pose": np.zeros((0, 45))}, r"hand_pose \(0, 45\)"),
    "one hand, no axis": ({"hand_pose": np.zeros(45)}, r"hand_pose \(45,\)"),
    "not numbers": ({"hand_pose": np.full((4, 45), "x")}, r"hand_pose \(4, 45\) of <U1"),
    "NaN": ({"hand_pose": np.full((4, 45), np.nan)}, "hand_pose holds numbers that are not finite"),
    "NaN betas": (
        {"hand_pose": np.zeros((4, 45)), "betas": np.full((4, 10), np.inf)},
        "betas holds numbers that are not finite",
    ),
    "fewer betas": ({"hand_pose": np.zeros((4, 45)), "betas": np.zeros((3, 10))}, "different numbers of hands"),
    "long betas": ({"hand_pose": np.zeros((4, 45)), "betas": np.zeros((4, 11))}, "betas is 4x11, expected Nx10"),
    "other names": ({"pose": np.zeros((4, 45))}, r"has no hand_pose \(but pose\).*expected an \.npz"),
    "degrees": ({"hand_pose": np.full((4, 45), 30.0)}, "turn by 51.96 on average: are these degrees"),
    "no rotations": ({"hand_pose": np.ones((4, 15, 3, 3))}, "hand 0 is not of rotation matrices"),
    "reflections": ({"hand_pose": np.tile(-np.eye(3), (4, 15, 1, 1))}, "hand 0 is not of rotation matrices"),
    "pickled": ({"hand_pose": np.array([{}], dtype=object)}, "pickled objects"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_is_of_no_use_says_why(case, tmp_path):
    arrays, message = BAD_FILES[case]
    path = write(tmp_path / "poses.npz", **arrays)
    with pytest.raises(ValueError, match=message) as caught:
        poses_of_file(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_damaged_or_missing_file_is_named(tmp_path, embedded):
    (tmp_path / "cut.npz").write_bytes(write(tmp_path / "poses.npz", hand_pose=np.zeros((4, 45))).read_bytes()[:200])
    with pytest.raises(ValueError, match=r"cut\.npz: damaged archive"):
        poses_of_file(tmp_path / "cut.npz")
    with pytest.raises(FileNotFoundError, match=r"TOKENIZER\.POSES names .*none\.npz"):
        build_poses(config(tmp_path / "none.npz"), embedded)


# --- held out


@pytest.mark.parametrize("number, held_out", [(2, 1), (25, 2), (1000, 100), (5000, 300)])
def test_no_hand_is_both_learnt_from_and_held_out(number, held_out):
    poses = HandPoses(torch.arange(number), torch.arange(number))
    train, held = split(poses, 300, seed=1)
    assert len(held.betas) == held_out
    assert sorted(train.betas.tolist() + held.betas.tolist()) == list(range(number))
    assert torch.equal(held.hand_pose, held.betas)
    assert torch.equal(split(poses, 300, seed=1)[1].betas, held.betas)


def test_neighbours_in_a_recording_are_held_out_together():
    poses = HandPoses(torch.arange(20000), torch.arange(20000))
    held = split(poses, 1024, seed=1)[1].betas
    begins = (held.diff() > 1).sum() + 1
    assert len(held) == 1024 and 2 <= begins <= 17  # 16 runs of 64; the set's last one is shorter
    assert not torch.equal(held, split(poses, 1024, seed=2)[1].betas)


def test_the_held_out_hands_are_the_same_whatever_the_seed(tmp_path, embedded):
    first, second = (build_poses(config("sampled", "TOKENIZER.HANDS", "9", "SEED", seed), embedded) for seed in "12")
    assert torch.equal(first[1].betas, second[1].betas)
    assert not torch.isclose(first[0].betas, second[0].betas).any()
    path = write(tmp_path / "poses.npz", hand_pose=np.random.default_rng(0).normal(0, 0.3, (50, 45)))
    first, second = (build_poses(config(path, "SEED", seed), embedded) for seed in "12")
    assert all(torch.equal(*both) for one in (0, 1) for both in zip(first[one], second[one], strict=True))
    assert len(first[1].betas) == 5


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["TOKENIZER.POSES", "mocap"], "'mocap', expected sampled, data"),
        (["TOKENIZER.HELD_OUT", "0"], r"HELD_OUT is 0"),
        (["TOKENIZER.HANDS", "1"], r"HANDS is 1"),
    ],
)
def test_settings_out_of_range_raise(overrides, message, embedded):
    with pytest.raises(ValueError, match=message):
        build_poses(config("sampled", *overrides), embedded)


def test_a_single_hand_cannot_be_split(tmp_path, embedded):
    path = write(tmp_path / "poses.npz", hand_pose=np.zeros((3, 45)), betas=np.zeros((3, 10)))
    with pytest.raises(ValueError, match="1 different hand poses"):
        build_poses(config(path), embedded)
