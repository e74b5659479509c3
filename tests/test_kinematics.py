"""One forward kinematics for NumPy and torch, and MANO's tree in one place."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from fasthamer.hand.conventions import MANO_PARENTS
from fasthamer.hand.kinematics import forward_kinematics, rest_bones

ROOT = Path(__file__).parents[1]


def test_a_bent_index_finger_by_hand():
    # All joints lie on the x axis: wrist 0, index base 1, middle joint 3, last joint 6; other joints at the origin.
    joints = np.zeros((16, 3))
    joints[1, 0], joints[2, 0], joints[3, 0] = 1, 3, 6
    rotations = np.tile(np.eye(3), (16, 1, 1))
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # x to y
    rotations[1] = rotations[2] = quarter
    turned, posed = forward_kinematics(rotations, rest_bones(joints))
    # The base turns the bone of length 2 to y; the middle joint turns the bone of length 3 to -x.
    np.testing.assert_array_equal(posed[:4], [[0, 0, 0], [1, 0, 0], [1, 2, 0], [-2, 2, 0]])
    np.testing.assert_array_equal(turned[3], quarter @ quarter)
    np.testing.assert_array_equal(turned[4:], np.tile(np.eye(3), (12, 1, 1)))


def test_every_joint_follows_its_parent_and_torch_agrees_with_numpy():
    rng = np.random.default_rng(0)
    rotations = Rotation.random(2 * 16, random_state=1).as_matrix().reshape(2, 16, 3, 3)
    joints = rng.normal(size=(2, 16, 3))
    turned, posed = forward_kinematics(rotations, rest_bones(joints))
    np.testing.assert_allclose(turned[:, 0], rotations[:, 0])
    np.testing.assert_allclose(posed[:, 0], joints[:, 0])
    for joint, parent in list(enumerate(MANO_PARENTS))[1:]:
        np.testing.assert_allclose(turned[:, joint], turned[:, parent] @ rotations[:, joint])
        bone = (turned[:, parent] @ (joints[:, joint] - joints[:, parent])[..., None])[..., 0]
        np.testing.assert_allclose(posed[:, joint], posed[:, parent] + bone)
    tensors = torch.from_numpy(rotations), torch.from_numpy(joints)
    for ours, theirs in zip(forward_kinematics(tensors[0], rest_bones(tensors[1])), (turned, posed), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-12)


def test_numpy_gives_the_bits_of_one_sum_after_another():
    rotations = Rotation.random(16, random_state=2).as_matrix()
    turned, _ = forward_kinematics(rotations, np.zeros((16, 3)))
    left, right = turned[1], rotations[2]
    products = left[:, :, None] * right
    assert np.array_equal(turned[2], products[:, 0] + products[:, 1] + products[:, 2])


def test_the_tree_stands_in_one_file():
    tree = re.compile(r"-1,\s*0,\s*1,\s*2,\s*0,\s*4,\s*5")
    folders = ("fasthamer", "students", "teachers", "distill", "tools")
    found = [path.name for folder in folders for path in (ROOT / folder).rglob("*.py") if tree.search(path.read_text())]
    assert found == ["conventions.py"]
