"""Rotations as matrices, axis-angle vectors and HaMeR's six numbers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def rot6d_to_matrix(x: Tensor) -> Tensor:
    """Two stacked 3-vectors to a rotation: Gram-Schmidt, the results are the first two columns.

    Args:
        x: (..., 6); x[:3] becomes the first column, x[3:] the second (HaMeR's layout; Zhou et al. 2019).

    Returns:
        (..., 3, 3)
    """
    a1, a2 = x[..., :3], x[..., 3:]
    b1 = F.normalize(a1, dim=-1)
    b2 = F.normalize(a2 - (b1 * a2).sum(-1, keepdim=True) * b1, dim=-1)
    return torch.stack((b1, b2, torch.linalg.cross(b1, b2, dim=-1)), dim=-1)


def matrix_to_rot6d(matrix: Tensor) -> Tensor:
    """(..., 3, 3) to (..., 6): the first two columns, one after the other."""
    return torch.cat((matrix[..., 0], matrix[..., 1]), dim=-1)


def axis_angle_to_matrix(axis_angle: Tensor) -> Tensor:
    """Rodrigues' formula with finite value and gradient at zero.

    Args:
        axis_angle: (..., 3) direction of the axis times the angle in radians.

    Returns:
        (..., 3, 3)
    """
    squared = axis_angle.square().sum(-1)[..., None, None]
    small = squared < 1e-8
    safe = torch.where(small, torch.ones_like(squared), squared)  # keeps sqrt's gradient finite in the unused branch
    angle = safe.sqrt()
    # sin(a)/a and (1 - cos(a))/a^2; the second as half-angle sine, which loses no digits at small angles
    first = torch.where(small, 1 - squared / 6, angle.sin() / angle)
    second = torch.where(small, 0.5 - squared / 24, 2 * (angle / 2).sin().square() / safe)
    cross = _cross_matrix(axis_angle)
    identity = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    return identity + first * cross + second * (cross @ cross)


def matrix_to_axis_angle(matrix: Tensor) -> Tensor:
    """The inverse of `axis_angle_to_matrix`, for angles in [0, pi]; precise near 0 and near pi.

    Args:
        matrix: (..., 3, 3) rotations.

    Returns:
        (..., 3); at exactly pi one of the two equivalent axes.
    """
    quaternion = _matrix_to_quaternion(matrix)
    vector, real = quaternion[..., 1:], quaternion[..., :1]
    length = vector.norm(dim=-1, keepdim=True)
    half = torch.atan2(length, real)
    tiny = length < 1e-7
    scale = torch.where(tiny, 2 / real.clamp(min=0.5), 2 * half / length.clamp(min=1e-7))
    return vector * scale


def _cross_matrix(v: Tensor) -> Tensor:
    """(..., 3) to (..., 3, 3) such that the product with u is the cross product of v and u."""
    x, y, z = v.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), dim=-1).unflatten(-1, (3, 3))


def _matrix_to_quaternion(m: Tensor) -> Tensor:
    """(..., 3, 3) to (..., 4), real part first and not negative.

    Each row of `products` is the quaternion times four times one of its own entries: the row of the largest entry
    divides by a number that is at least 1, so no digits are lost at any angle (Shepperd 1978).
    """
    d0, d1, d2 = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    rx, ry, rz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, xz, yz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    products = torch.stack(
        (
            torch.stack((1 + d0 + d1 + d2, rx, ry, rz), dim=-1),
            torch.stack((rx, 1 + d0 - d1 - d2, xy, xz), dim=-1),
            torch.stack((ry, xy, 1 - d0 + d1 - d2, yz), dim=-1),
            torch.stack((rz, xz, yz, 1 - d0 - d1 + d2), dim=-1),
        ),
        dim=-2,
    )
    best = products.diagonal(dim1=-2, dim2=-1).argmax(-1)[..., None, None].expand(*m.shape[:-2], 1, 4)
    quaternion = F.normalize(products.gather(-2, best).squeeze(-2), dim=-1)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def nearest_rotation(matrix: Tensor) -> Tensor:
    """The rotation nearest to any (..., 3, 3), such as a mean of rotations: U V^T of its SVD, never a reflection."""
    u, _, vt = torch.linalg.svd(matrix)
    u = torch.cat((u[..., :2], u[..., 2:] * torch.linalg.det(u @ vt)[..., None, None]), -1)
    return u @ vt


def random_rotations(number: int, generator: torch.Generator) -> Tensor:
    """(number, 3, 3), each orientation as likely as any: quaternions uniform on the sphere (Shoemake 1992)."""
    real, *vector = F.normalize(torch.randn(number, 4, generator=generator), dim=-1).unbind(-1)
    axis = torch.stack(vector, dim=-1)
    cross = _cross_matrix(axis)
    return torch.eye(3) + 2 * (real[:, None, None] * cross + cross @ cross)
