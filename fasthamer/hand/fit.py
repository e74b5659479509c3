"""MANO's parameters for a mesh that has none, such as a token decoder's: the nearest posed hand, by least squares."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fasthamer.hand.conventions import MANO_PARENTS
from fasthamer.hand.mano import Hand
from fasthamer.hand.rotation import axis_angle_to_matrix, matrix_to_axis_angle, matrix_to_rot6d, rot6d_to_matrix
from fasthamer.types import N_BETAS, N_HAND_JOINTS, N_VERTICES, ManoParams

STEPS = 5
POSE_SPREAD = 0.7  # radians from the mean pose, standard deviation of each angle
ALIKE = 40.0  # vertices that err together: so many count as one measurement
FLOOR = 1e-10  # m^2: the least variance a mesh is trusted with; keeps what no vertex tells at the mean


class MeshFit(NamedTuple):
    """`hand(mano)` moved by `translation` is the mesh, but for `residual_mm`. B = batch."""

    mano: ManoParams
    translation: Tensor  # (B, 3) metres
    residual_mm: Tensor  # (B,) mean distance of vertices


@torch.no_grad()
def fit_mano(vertices: Tensor, hand: Hand) -> MeshFit:
    """The hand's parameters whose mesh is nearest, for a batch of right hands; the same every time.

    Each bone's skin gives its rotation for a start (Kabsch 1976). Then `STEPS` Gauss-Newton steps over all rotations
    and betas, with betas ~ N(0, 1) and angles ~ N(mean pose, `POSE_SPREAD`) as priors. Both weigh as much as the
    residual's own variance says: a mesh of MANO is met exactly, on a noisy one they keep parameters sane.

    Args:
        vertices: (B, 778, 3) metres, any origin and orientation, the hand's numbering.

    Raises:
        ValueError: another shape, or a coordinate that is not finite (the message names the hand).
    """
    _check(vertices)
    target = vertices.to(hand.layer.v_template).mT  # (B, 3, 778)
    centre = target.mean(2)
    target = target - centre[..., None]
    chain = _Chain(hand)
    local, betas = chain.start(target)
    for _ in range(STEPS):
        local, betas = chain.step(local, betas, target)
    mano = ManoParams(local[:, :1], local[:, 1:], betas)
    found = hand(mano)[0]
    translation = centre - found.mean(1)
    apart = (found + translation[:, None] - vertices.to(found)).norm(dim=2)
    return MeshFit(mano, translation, 1000 * apart.mean(1))


class _Chain:
    """Linear blend skinning with its derivatives, coordinates before vertices. V = 778.

    With R_j the rotation of joint j in the mesh's frame and J_j its place in the rest pose, skinning is
    x = sum_j w_j R_j s + sum_k w'_k (R_parent(k) - R_k) J_k, where w' sums the weights over k and all behind it.
    """

    def __init__(self, hand: Hand) -> None:
        layer = hand.layer
        self.template = layer.v_template.T  # (3, V)
        self.shapes = layer.shapedirs.permute(2, 1, 0).contiguous()  # (10, 3, V)
        self.correctives = layer.posedirs.unflatten(1, (-1, 3)).mT.reshape(N_HAND_JOINTS, 9, 3 * N_VERTICES)
        self.weights = layer.lbs_weights.T  # (16, V)
        self.joints = layer.J_regressor @ layer.v_template  # (16, 3)
        self.joint_shapes = torch.einsum("jv,bcv->jcb", layer.J_regressor, self.shapes)  # (16, 3, 10)
        self.mean = axis_angle_to_matrix(torch.as_tensor(hand.hands_mean).to(self.template).reshape(-1, 3))
        behind = torch.eye(16)  # 1 where the column's joint is the row's or comes after it
        for joint in range(15, 0, -1):
            behind[MANO_PARENTS[joint]] += behind[joint]
        self.behind = behind.to(self.template)
        self.heavier = self.behind @ self.weights  # (16, V)

    def start(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Rotations relative to the parent (B, 16, 3, 3), each bone's skin alone, and betas (B, 10) of the mean."""
        share = self.weights / self.weights.sum(1, keepdim=True).clamp(min=1e-6)
        rest = self.template - (share @ self.template.T)[..., None]  # (16, 3, V)
        covariance = torch.einsum("bcv,jdv->bjcd", target, rest * share[:, None])
        u, _, vt = torch.linalg.svd(covariance)
        u = torch.cat((u[..., :2], u[..., 2:] * torch.linalg.det(u @ vt)[..., None, None]), -1)
        world = u @ vt
        local = torch.cat((world[:, :1], world[:, MANO_PARENTS[1:]].mT @ world[:, 1:]), 1)
        return local, target.new_zeros(len(target), N_BETAS)

    def step(self, local: Tensor, betas: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """One Gauss-Newton step; the translation follows as the mean."""
        count = len(local)
        world = [local[:, 0]]
        for joint in range(1, 16):
            world.append(world[MANO_PARENTS[joint]] @ local[:, joint])
        turned = torch.stack(world, 1)  # (B, 16, 3, 3)
        before = torch.cat((torch.eye(3).to(local).expand(count, 1, 3, 3), turned[:, MANO_PARENTS[1:]]), 1)

        bent = (local[:, 1:] - torch.eye(3).to(local)).flatten(2)  # (B, 15, 9)
        rest = self.template + (betas @ self.shapes.flatten(1)).unflatten(1, (3, -1))
        rest = rest + (bent.flatten(1) @ self.correctives.flatten(0, 1)).unflatten(1, (3, -1))
        joints = self.joints + torch.einsum("jcb,nb->njc", self.joint_shapes, betas)
        hinge = before - turned
        shift = self.behind.T @ torch.einsum("njcd,njd->njc", hinge, joints)  # (B, 16, 3)
        skin = torch.einsum("jv,njcd->ncdv", self.weights, turned)  # (B, 3, 3, V)
        found = (skin * rest[:, None]).sum(2) + shift.mT @ self.weights
        places = (turned @ joints[..., None])[..., 0] + shift

        # Each joint turns by a small angle about the mesh's axes, then betas.
        jacobian = rest.new_zeros(count, 58, 3, rest.shape[2])
        by_bone = self.weights[:, None] * (turned @ rest[:, None] + shift[..., None])  # (B, 16, 3, V)
        arms = (self.behind @ by_bone.flatten(2)).unflatten(2, (3, -1)) - places[..., None] * self.heavier[:, None]
        turning = jacobian[:, :48].unflatten(1, (16, 3))
        for x, y, z in _CYCLIC:
            turning[:, :, x, z], turning[:, :, x, y] = arms[:, :, y], -arms[:, :, z]
        spin = torch.einsum("njdc,ade,njef->njacf", before[:, 1:], _CROSS.to(local), turned[:, 1:])
        inner = (spin.flatten(3) @ self.correctives).flatten(1, 2).unflatten(2, (3, -1))  # (B, 45, 3, V)
        sliding = torch.einsum("njcd,jdb->nbcj", hinge, self.joint_shapes)
        jacobian[:, 48:].copy_(sliding @ self.heavier)
        for c in range(3):
            for d in range(3):
                jacobian[:, 3:48, c] += skin[:, None, c, d] * inner[:, :, d]
                jacobian[:, 48:, c] += skin[:, None, c, d] * self.shapes[:, d]
        mean = jacobian.mean(3)
        jacobian = jacobian.flatten(2)

        error = target - found
        error = (error - error.mean(2, keepdim=True)).flatten(1)  # (B, 3 V)
        variance = ALIKE * error.square().mean(1, keepdim=True) + FLOOR  # (B, 1)
        away = matrix_to_axis_angle(local[:, 1:] @ self.mean.mT)  # in the parent's frame
        away = (before[:, 1:] @ away[..., None])[..., 0].flatten(1) / POSE_SPREAD**2
        pull = torch.cat((away.new_zeros(count, 3), away, betas), 1)
        stiff = torch.full_like(pull[:1], 1 / POSE_SPREAD**2)
        stiff[:, :3], stiff[:, 48:] = 0, 1
        normal = jacobian @ jacobian.mT - N_VERTICES * mean @ mean.mT + torch.diag_embed(variance * stiff)
        slope = (jacobian @ error[..., None])[..., 0] - variance * pull
        move = torch.linalg.solve(normal, slope)
        turn = before.mT @ axis_angle_to_matrix(move[:, :48].unflatten(1, (16, 3))) @ before
        return rot6d_to_matrix(matrix_to_rot6d(turn @ local)), betas + move[:, 48:]


_CYCLIC = ((0, 1, 2), (1, 2, 0), (2, 0, 1))
_CROSS = torch.zeros(3, 3, 3)  # e_a x u = _CROSS[a] @ u
for _a, _b, _c in _CYCLIC:
    _CROSS[_a, _c, _b], _CROSS[_a, _b, _c] = 1, -1


def _check(vertices: Tensor) -> None:
    if vertices.ndim != 3 or vertices.shape[1:] != (N_VERTICES, 3):
        raise ValueError(f"vertices have shape {tuple(vertices.shape)}; expected (B, {N_VERTICES}, 3), metres")
    good = vertices.isfinite().flatten(1).all(1)
    if not good.all():
        raise ValueError(f"hand {int(good.int().argmin())} has a vertex that is not finite: nothing can be fitted to it")
