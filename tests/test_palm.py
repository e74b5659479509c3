"""The palm as a frame of reference, and joints read off a mesh."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from tiny_tokenizers import meshes

from fasthamer.hand.conventions import regressed_joints, tip_vertices
from fasthamer.hand.mano import Hand, load_hand
from fasthamer.hand.mano_files import read_hand_arrays
from fasthamer.hand.palm import PalmFrame
from fasthamer.hand.posed_joints import joints_of_vertices
from fasthamer.hand.rotation import random_rotations


@pytest.fixture(scope="module")
def hand():
    return load_hand("embedded")


@pytest.fixture(scope="module")
def posed(hand):
    return meshes(hand, 24)


def test_the_rotation_is_the_one_that_scipy_finds_for_the_weighted_palm(hand, posed):
    vertices = posed[0] + 0.004 * torch.randn(
        posed[0].shape, generator=torch.Generator().manual_seed(1)
    )  # no fit is exact
    placed = PalmFrame(hand)(vertices)
    weights = hand.layer.lbs_weights[:, 0].double().numpy()
    template = hand.layer.v_template.double().numpy()
    template = template - np.average(template, axis=0, weights=weights)
    for mesh, rotation in zip(vertices.double().numpy(), placed.rotation, strict=True):
        centred = mesh - np.average(mesh, axis=0, weights=weights)
        expected, _ = Rotation.align_vectors(centred, template, weights=weights)
        np.testing.assert_allclose(rotation, expected.as_matrix(), atol=2e-6)


def test_what_is_apart_is_the_mesh_again_when_put_together(hand, posed):
    vertices = posed[0] + torch.tensor([0.1, -0.2, 0.7])
    upright, rotation, wrist = PalmFrame(hand)(vertices)
    torch.testing.assert_close(upright @ rotation.mT + wrist[:, None], vertices, atol=1e-6, rtol=0)
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(24, 3, 3), atol=1e-5, rtol=0)
    assert (torch.linalg.det(rotation) > 0.99).all()
    torch.testing.assert_close(hand.J_regressor[0] @ upright, torch.zeros(24, 3), atol=1e-6, rtol=0)


def test_a_hand_is_upright_however_it_was_turned_and_wherever_it_was(hand, posed):
    frame, vertices = PalmFrame(hand), posed[0]
    turns = random_rotations(24, torch.Generator().manual_seed(2))
    shifts = torch.randn(24, 1, 3, generator=torch.Generator().manual_seed(3))
    here, there = frame(vertices), frame(vertices @ turns.mT + shifts)
    torch.testing.assert_close(there.vertices, here.vertices, atol=2e-6, rtol=0)
    torch.testing.assert_close(there.rotation, turns @ here.rotation, atol=2e-5, rtol=0)


def test_the_unposed_hand_is_upright_as_it_is(hand):
    template = hand.layer.v_template
    placed = PalmFrame(hand)(template[None])
    torch.testing.assert_close(placed.rotation[0], torch.eye(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(placed.vertices[0], template - hand.J_regressor[0] @ template, atol=2e-6, rtol=0)


def test_a_mirrored_mesh_is_turned_and_never_reflected(hand, posed):
    rotation = PalmFrame(hand)(posed[0] * torch.tensor([-1.0, 1.0, 1.0])).rotation
    assert (torch.linalg.det(rotation) > 0.99).all()


def test_the_frame_adds_nothing_to_a_state_dict(hand):
    assert not PalmFrame(hand).state_dict()


def test_joints_of_a_mesh_are_those_of_the_kinematic_chain(hand, posed):
    vertices, joints = posed
    off = 1000 * (joints_of_vertices(hand) @ vertices - joints).norm(dim=2)
    assert off.mean() < 0.05 and off.max() < 0.4, off.amax(0)
    regressed = regressed_joints(hand.J_regressor, vertices, "hamer")  # meant for the unposed mesh
    assert 1000 * (regressed - joints).norm(dim=2).max() > 1


def test_joints_move_with_the_mesh_and_tips_are_vertices(hand, posed):
    rows = joints_of_vertices(hand)
    assert rows.shape == (21, 778)
    torch.testing.assert_close(rows.sum(1), torch.ones(21), atol=1e-5, rtol=0)
    for joint, tip in zip((4, 8, 12, 16, 20), tip_vertices("hamer"), strict=True):
        assert torch.equal(rows[joint], torch.eye(778)[tip])
    again = joints_of_vertices(load_hand("embedded"))
    assert torch.equal(again, rows)


def test_another_hand_has_joints_of_its_own():
    arrays = read_hand_arrays("embedded")
    for key in ("v_template", "shapedirs", "posedirs"):
        arrays[key] = arrays[key] * 1.2
    large = Hand(arrays, "MANO_RIGHT")
    vertices, joints = meshes(large, 4, seed=5)
    assert 1000 * (joints_of_vertices(large) @ vertices - joints).norm(dim=2).max() < 0.4
