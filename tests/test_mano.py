"""The hand module against skinning written out in NumPy, and against smplx driven the ordinary way."""

import copy

import numpy as np
import pytest
import smplx
import torch
from scipy.spatial.transform import Rotation

from fasthamer.hand.conventions import MANO_PARENTS, MANO_TO_OPENPOSE
from fasthamer.hand.mano import Hand, load_hand
from fasthamer.hand.mano_files import SHAPES, read_hand_arrays
from fasthamer.types import ManoParams


@pytest.fixture(scope="module")
def arrays():
    return read_hand_arrays("embedded")


@pytest.fixture(scope="module")
def hand():
    return load_hand("embedded")


def parameters(batch, seed=0, spread=0.4):
    rng = np.random.default_rng(seed)
    rotations = Rotation.from_rotvec(rng.normal(0, spread, (batch * 16, 3))).as_matrix().reshape(batch, 16, 3, 3)
    rotations, betas = torch.from_numpy(rotations).float(), torch.from_numpy(rng.normal(size=(batch, 10))).float()
    return ManoParams(rotations[:, :1], rotations[:, 1:], betas)


def skinned(arrays, rotations, betas):
    """One hand, step by step as the MANO paper says: shape, joints, pose corrections, chain, blend."""
    shaped = arrays["v_template"] + arrays["shapedirs"] @ betas
    joints = arrays["J_regressor"] @ shaped
    posed = shaped + arrays["posedirs"] @ (rotations[1:] - np.eye(3)).ravel()
    world = []
    for i, parent in enumerate(MANO_PARENTS):
        step = np.eye(4)
        step[:3, :3] = rotations[i]
        step[:3, 3] = joints[i] - (joints[parent] if i else 0)
        world.append(world[parent] @ step if i else step)
    vertices = np.zeros((778, 3))
    for i, matrix in enumerate(world):
        vertices += arrays["weights"][:, i : i + 1] * ((posed - joints[i]) @ matrix[:3, :3].T + matrix[:3, 3])
    return vertices, np.array([matrix[:3, 3] for matrix in world])


def test_vertices_and_joints_are_those_of_skinning_by_hand(arrays, hand):
    mano = parameters(2)
    vertices, joints = hand(mano)
    for i in range(2):
        rotations = torch.cat((mano.global_orient, mano.hand_pose), 1)[i].double().numpy()
        true_vertices, chain = skinned(arrays, rotations, mano.betas[i].double().numpy())
        np.testing.assert_allclose(vertices[i], true_vertices, atol=2e-6)
        all_joints = np.concatenate((chain, true_vertices[[744, 320, 443, 554, 671]]))
        np.testing.assert_allclose(joints[i], all_joints[list(MANO_TO_OPENPOSE)], atol=2e-6)


def test_rotations_are_absolute_the_mean_pose_is_never_added(arrays, hand):
    assert np.abs(arrays["hands_mean"]).max() > 0.1
    vertices, _ = hand(
        ManoParams(torch.eye(3).expand(1, 1, 3, 3), torch.eye(3).expand(1, 15, 3, 3), torch.zeros(1, 10))
    )
    np.testing.assert_allclose(vertices[0], arrays["v_template"], atol=1e-6)


def test_it_agrees_with_smplx_reading_a_file_itself(arrays, hand, tmp_path, capsys):
    np.savez(tmp_path / "MANO_RIGHT.npz", **arrays)
    layer = smplx.MANOLayer(str(tmp_path), is_rhand=True, use_pca=False, ext="npz")
    mano = parameters(3, seed=1)
    theirs = layer(global_orient=mano.global_orient, hand_pose=mano.hand_pose, betas=mano.betas)
    capsys.readouterr()
    torch.testing.assert_close(hand(mano)[0], theirs.vertices)


def test_nothing_of_the_hand_is_saved_or_trained(hand):
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    model.add_module("hand", hand)
    assert set(model.state_dict()) == {"0.weight", "0.bias"}
    assert not list(hand.parameters())


def test_every_array_follows_to_another_device_or_copy(hand):
    moved = copy.deepcopy(hand).to("meta")
    assert moved.J_regressor.device.type == "meta" and hand.J_regressor.device.type == "cpu"
    assert all(buffer.device.type == "meta" for buffer in moved.buffers())


def test_smplx_warnings_are_not_printed(arrays, capsys):
    Hand(arrays, "embedded")
    assert capsys.readouterr() == ("", "")


def test_half_precision_around_it_costs_no_accuracy(hand):
    mano = parameters(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        vertices, joints = hand(ManoParams(*(value.bfloat16().float() for value in mano)))
    exact, _ = hand(ManoParams(*(value.bfloat16().float() for value in mano)))
    assert vertices.dtype == joints.dtype == torch.float32
    torch.testing.assert_close(vertices, exact)


def test_gradients_reach_every_parameter(hand):
    mano = ManoParams(*(value.requires_grad_() for value in parameters(1)))
    hand(mano)[0].square().sum().backward()
    assert all(value.grad is not None and value.grad.abs().max() > 0 for value in mano)


def test_the_graph_can_be_exported(hand):
    class Flat(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.hand = hand

        def forward(self, orient, pose, betas):
            return self.hand(ManoParams(orient, pose, betas))

    mano = parameters(2)
    program = torch.export.export(Flat(), tuple(mano))
    torch.testing.assert_close(program.module()(*mano)[0], hand(mano)[0])


def test_the_fingerprint_tells_hands_apart_and_forgives_precision(arrays, hand):
    assert (
        Hand({key: value.astype(np.float32) for key, value in arrays.items()}, "other").fingerprint == hand.fingerprint
    )
    changed = {key: arrays[key].copy() for key in SHAPES}
    changed["v_template"][0, 0] += 1e-4
    assert Hand(changed, "other").fingerprint != hand.fingerprint
    assert len(hand.fingerprint) == 12


def test_the_embedded_hand_knows_that_it_is_not_mano(arrays, hand, tmp_path):
    np.savez(tmp_path / "MANO_RIGHT.npz", **arrays)
    other = load_hand(tmp_path / "MANO_RIGHT.npz")
    assert hand.is_embedded and hand.name == "embedded"
    assert not other.is_embedded and other.name == "MANO_RIGHT"
