"""Rotations against SciPy's, at ordinary angles and where formulas break: near zero and near half a turn."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from fasthamer.hand.rotation import axis_angle_to_matrix, matrix_to_axis_angle, matrix_to_rot6d, rot6d_to_matrix


def axes(count, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


ANGLES = [0.0, 1e-12, 1e-7, 1e-5, 1e-4, 1e-3, 0.1, 1.0, 2.0, 3.0, np.pi - 1e-3, np.pi - 1e-6, np.pi]


@pytest.mark.parametrize("angle", ANGLES)
def test_axis_angle_to_matrix_is_scipys(angle):
    vectors = axes(50) * angle
    ours = axis_angle_to_matrix(torch.from_numpy(vectors)).numpy()
    np.testing.assert_allclose(ours, Rotation.from_rotvec(vectors).as_matrix(), atol=1e-12)


@pytest.mark.parametrize("angle", ANGLES)
def test_matrix_to_axis_angle_recovers_the_rotation_at_every_angle(angle):
    matrices = Rotation.from_rotvec(axes(200) * angle).as_matrix()
    ours = matrix_to_axis_angle(torch.from_numpy(matrices)).numpy()
    assert np.linalg.norm(ours, axis=1).max() <= np.pi + 1e-9
    np.testing.assert_allclose(Rotation.from_rotvec(ours).as_matrix(), matrices, atol=1e-9)
    if angle < np.pi:
        np.testing.assert_allclose(ours, axes(200) * angle, atol=1e-7)


def test_half_turns_about_the_coordinate_axes_are_recovered_in_single_precision():
    vectors = torch.eye(3) * torch.pi
    torch.testing.assert_close(matrix_to_axis_angle(axis_angle_to_matrix(vectors)).abs(), vectors, atol=1e-5, rtol=0)


def test_gradients_are_finite_and_right_at_zero():
    zero = torch.zeros(1, 3, dtype=torch.double, requires_grad=True)
    jacobian = torch.autograd.functional.jacobian(axis_angle_to_matrix, zero)[0, ..., 0, :]  # (3, 3, 3)
    # the derivative of a small rotation about z is [[0, -1, 0], [1, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(jacobian[..., 2], [[0, -1, 0], [1, 0, 0], [0, 0, 0]], atol=1e-12)
    some = torch.tensor([[0.3, -0.2, 0.5]], dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(axis_angle_to_matrix, some)
    assert torch.autograd.gradcheck(lambda v: matrix_to_axis_angle(axis_angle_to_matrix(v)), some)


def test_six_numbers_become_the_first_two_columns_as_in_hamer():
    x = torch.randn(7, 16, 6, generator=torch.Generator().manual_seed(0))
    matrices = rot6d_to_matrix(x)
    columns = x.reshape(-1, 2, 3).permute(0, 2, 1)  # HaMeR's own reading of the 96 numbers: (112, 3, 2)
    first = torch.nn.functional.normalize(columns[:, :, 0])
    torch.testing.assert_close(matrices.reshape(-1, 3, 3)[:, :, 0], first)
    residual = columns[:, :, 1] - matrices.reshape(-1, 3, 3)[:, :, 1] * (
        (matrices.reshape(-1, 3, 3)[:, :, 1] * columns[:, :, 1]).sum(1, keepdim=True)
    )
    assert torch.linalg.cross(residual, first).abs().max() < 1e-5  # a2 lies in the plane of the first two columns
    eye = torch.eye(3).expand_as(matrices)
    torch.testing.assert_close(matrices @ matrices.transpose(-1, -2), eye, atol=1e-5, rtol=0)
    assert (torch.linalg.det(matrices) > 0.99).all()


def test_six_numbers_and_matrices_are_inverse():
    matrices = torch.from_numpy(Rotation.random(30, random_state=1).as_matrix())
    torch.testing.assert_close(rot6d_to_matrix(matrix_to_rot6d(matrices)), matrices)


def test_hamers_degenerate_initial_wrist_gives_finite_numbers():
    wrist = torch.tensor([1.0, 0, 0, -1, 0, 1.5e-7])  # the first six of the published mean parameters
    assert torch.isfinite(rot6d_to_matrix(wrist)).all()
