"""Joint orders and fingertips, against numbers written down from the datasets' own code."""

import numpy as np
import pytest
import torch

from fasthamer.hand.conventions import (
    MANO_PARENTS,
    MANO_TO_OPENPOSE,
    OPENPOSE_BONES,
    TIPS,
    openpose_joints,
    regressed_joints,
)

FINGERS = "TIMRP"


def test_openpose_order_puts_each_finger_from_base_to_tip():
    mano = ["W"] + [f"{finger}{i}" for finger in "IMPRT" for i in (1, 2, 3)] + [f"{finger}4" for finger in FINGERS]
    expected = ["W"] + [f"{finger}{i}" for finger in FINGERS for i in (1, 2, 3, 4)]
    assert [mano[i] for i in MANO_TO_OPENPOSE] == expected


def test_bones_follow_manos_kinematic_tree():
    place = {mano: openpose for openpose, mano in enumerate(MANO_TO_OPENPOSE)}
    tree = {(place[parent], place[child]) for child, parent in enumerate(MANO_PARENTS) if parent >= 0}
    assert tree <= set(OPENPOSE_BONES)
    assert set(OPENPOSE_BONES) - tree == {(i - 1, i) for i in (4, 8, 12, 16, 20)}  # the rest ends in fingertips


@pytest.mark.parametrize("tips", TIPS)
def test_joints_and_tips_come_from_where_the_convention_says(tips):
    vertices = torch.arange(778.0).repeat(3, 1).T[None]
    joints = -torch.arange(16.0).repeat(3, 1).T[None]
    found = openpose_joints(joints, vertices, tips)[0, :, 0]
    assert found[[4, 8, 12, 16, 20]].tolist() == list(TIPS[tips])
    assert found[[0, 1, 5, 9, 13, 17]].tolist() == [0, -13, -1, -4, -10, -7]


def test_regressed_joints_are_the_regressor_times_the_mesh():
    rng = np.random.default_rng(0)
    regressor, vertices = rng.random((16, 778)), rng.random((2, 778, 3))
    ours = regressed_joints(torch.from_numpy(regressor), torch.from_numpy(vertices), "freihand")
    np.testing.assert_allclose(ours[1, 9], regressor[4] @ vertices[1])
    np.testing.assert_allclose(ours[1, 16], vertices[1, 555])


def test_an_unknown_convention_lists_the_known_ones():
    with pytest.raises(ValueError, match="freihand"):
        openpose_joints(torch.zeros(1, 16, 3), torch.zeros(1, 778, 3), "smplx")
