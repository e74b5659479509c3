"""MANO's parameters for a mesh that has none, such as a token decoder's: the nearest posed hand, by least squares."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fasthamer.hand.conventions import MANO_PARENTS
from fasthamer.hand.kinematics import forward_kinematics, rest_bones
from fasthamer.hand.mano import Hand
from fasthamer.hand.rotation import (
    axis_angle_to_matrix,
    matrix_to_axis_angle,
    matrix_to_rot6d,
    nearest_rotation,
    rot6d_to_matrix,
)
from fasthamer.types import N_BETAS, N_HAND_JOINTS, N_VERTICES, ManoParams

CHUNK = 8  # hands at once: the derivatives of more fall out of a CPU's cache
POSE_SPREAD = 0.7  # radians, standard deviation of each angle about the mean pose
# Of each step: how many vertices count as one measurement. At last 40, as errors of neighbours are correlated; at first
# few, since the residual is not noise yet.
CORRELATED = (0.1, 0.1, 0.1, 40.0, 40.0, 40.0)
FLOOR = (
    1e-8  # m^2, the least variance of a measurement; a parameter that no vertex constrains stays at the prior's mean
)

_ANGLES = 3 * (1 + N_HAND_JOINTS)


class MeshFit(NamedTuple):
    """`hand(mano)` translated by `translation` is the mesh, up to `residual_mm`. B = batch."""

    mano: ManoParams
    translation: Tensor  # (B, 3) metres
    residual_mm: Tensor  # (B,) mean distance between vertices


@torch.no_grad()
def fit_mano(vertices: Tensor, hand: Hand) -> MeshFit:
    """The parameters of the hand whose mesh is nearest, for a batch of right hands; no gradient, no randomness.

    Each bone's rotation is initialised from its own skin (Kabsch 1976). Gauss-Newton steps over all rotations and
    betas follow, with the priors betas ~ N(0, 1) and angles ~ N(mean pose, `POSE_SPREAD`). The priors' weight follows
    the residual's variance: they do not bias an exact mesh of this hand and regularise a noisy one.

    Args:
        vertices: (B, 778, 3) metres, any origin and orientation; vertex order as the hand's.

    Raises:
        ValueError: another shape, a coordinate that is not finite, or a hand of more than a metre (the message names
            the hand).
    """
    _check(vertices)
    chain = MeshFitter(hand)
    parts = [chain.fit(part) for part in vertices.to(hand.layer.v_template).split(CHUNK)]
    mano = ManoParams(*(torch.cat(each) for each in zip(*parts, strict=True)))
    posed = chain.pose(torch.cat(mano[:2], 1), mano.betas).vertices.mT  # as hand(mano), which takes no empty batch
    translation = (vertices.to(posed) - posed).mean(1)
    distances = (posed + translation[:, None] - vertices.to(posed)).norm(dim=2)  # (B, 778)
    return MeshFit(mano, translation, 1000 * distances.mean(1))


def mirror_fit(fit: MeshFit, which: Tensor | None = None) -> MeshFit:
    """A right hand's parameters to those of its mirror image about x = 0, a left hand, and back.

    The left hand's are for MANO_LEFT with the sign of its shape directions corrected: see `fasthamer.hand.left`.

    Args:
        which: (B,) bool, the hands to mirror; None is all.
    """
    orient, pose, betas = fit.mano
    which = torch.ones_like(fit.residual_mm, dtype=torch.bool) if which is None else which.to(fit.residual_mm.device)
    flip = torch.ones_like(fit.translation)
    flip[which, 0] = -1
    turned = (flip[:, :, None] * flip[:, None])[:, None]  # (B, 1, 3, 3) of the entries of a rotation matrix
    return fit._replace(mano=ManoParams(orient * turned, pose * turned, betas), translation=fit.translation * flip)


class _Posed(NamedTuple):
    """A posed hand and what its derivatives need. Coordinates come before vertices; V = 778."""

    vertices: Tensor  # (B, 3, V)
    rest: Tensor  # (B, 3, V) before skinning
    joints: Tensor  # (B, 16, 3)
    turned: Tensor  # (B, 16, 3, 3) each joint's absolute rotation
    before: Tensor  # (B, 16, 3, 3) its parent's
    shift: Tensor  # (B, 16, 3) translation of a joint's skin after its rotation
    skin: Tensor  # (B, 3, 3, V) each vertex's blended rotation


class MeshFitter:
    """Linear blend skinning of one hand, its derivatives, and Gauss-Newton steps with them.

    With R_k the absolute rotation of joint k, J_k its position at rest and p its parent, a vertex is
    sum_k w_k R_k rest + sum_k v_k (R_p - R_k) J_k, where v_k is the summed weight of joint k and its descendants.
    """

    def __init__(self, hand: Hand) -> None:
        layer = hand.layer
        self.template = layer.v_template.T  # (3, V)
        self.shapes = layer.shapedirs.permute(2, 1, 0).contiguous()  # (10, 3, V)
        correctives = layer.posedirs.unflatten(1, (-1, 3)).mT  # (135, 3, V)
        self.correctives = correctives.reshape(N_HAND_JOINTS, 9, -1)
        self.joints = layer.J_regressor @ layer.v_template  # (16, 3)
        self.joint_shapes = (self.shapes @ layer.J_regressor.T).permute(2, 1, 0)  # (16, 3, 10)
        self.weights = layer.lbs_weights.T.contiguous()  # (16, V)
        descends = torch.eye(16)  # 1 where the column's joint is the row's or a descendant
        for joint in range(15, 0, -1):
            descends[MANO_PARENTS[joint]] += descends[joint]
        self.descends = descends.to(self.template)
        self.subtree_weights = self.descends @ self.weights  # (16, V)
        self.eye = torch.eye(3).to(self.template)
        self.cross = torch.linalg.cross(self.eye[:, None], self.eye[None], dim=-1).mT  # [a] @ u = axis a x u
        self.mean = axis_angle_to_matrix(torch.as_tensor(hand.hands_mean).to(self.template).unflatten(0, (-1, 3)))

    def fit(self, vertices: Tensor) -> ManoParams:
        """The parameters of meshes (B, 778, 3); B may be 0."""
        target = vertices.mT - vertices.mT.mean(2, keepdim=True)
        local, betas = self.start(target), target.new_zeros(len(target), N_BETAS)
        for correlated in CORRELATED:
            local, betas = self.step(local, betas, target, correlated)
        return ManoParams(local[:, :1], local[:, 1:], betas)

    def start(self, target: Tensor) -> Tensor:
        """(B, 3, V) to each joint's rotation relative to its parent (B, 16, 3, 3), from its own skin alone."""
        share = self.weights / self.weights.sum(1, keepdim=True).clamp(min=1e-6)
        rest = self.template - (share @ self.template.T)[..., None]  # (16, 3, V)
        spread = target[:, None] @ (rest * share[:, None]).mT  # (B, 16, 3, 3)
        turned = nearest_rotation(spread)
        return torch.cat((turned[:, :1], turned[:, MANO_PARENTS[1:]].mT @ turned[:, 1:]), 1)

    def step(self, local: Tensor, betas: Tensor, target: Tensor, correlated: float) -> tuple[Tensor, Tensor]:
        """Better rotations (B, 16, 3, 3) and betas (B, 10) for the centred target (B, 3, V): one Gauss-Newton step."""
        posed = self.pose(local, betas)
        jacobian = self.jacobian(posed)
        jacobian -= jacobian.mean(3, keepdim=True)  # the best translation accompanies every change
        jacobian = jacobian.flatten(2)
        error = (target - posed.vertices + posed.vertices.mean(2, keepdim=True)).flatten(1)
        variance = correlated * error.square().mean(1, keepdim=True) + FLOOR  # (B, 1)

        away = matrix_to_axis_angle(local[:, 1:] @ self.mean.mT)  # in the parent's frame
        away = (posed.before[:, 1:] @ away[..., None]).flatten(1)
        prior = torch.cat((betas.new_zeros(len(betas), 3), away / POSE_SPREAD**2, betas), 1)
        stiffness = torch.full_like(prior, 1 / POSE_SPREAD**2)
        stiffness[:, :3], stiffness[:, _ANGLES:] = 0, 1
        normal = jacobian @ jacobian.mT + torch.diag_embed(variance * stiffness)
        change = torch.linalg.solve(normal, (jacobian @ error[..., None]).squeeze(2) - variance * prior)

        turn = axis_angle_to_matrix(change[:, :_ANGLES].unflatten(1, (-1, 3)))
        local = posed.before.mT @ turn @ posed.before @ local
        return rot6d_to_matrix(matrix_to_rot6d(local)), betas + change[:, _ANGLES:]  # rounding would add up

    def pose(self, local: Tensor, betas: Tensor) -> _Posed:
        """Rotations (B, 16, 3, 3) relative to the parent and betas (B, 10) to a mesh without translation."""
        joints = self.joints + (self.joint_shapes @ betas[:, None, :, None]).squeeze(3)
        turned, posed = forward_kinematics(local, rest_bones(joints))
        before = torch.cat((self.eye.expand_as(local[:, :1]), turned[:, MANO_PARENTS[1:]]), 1)
        bent = (local[:, 1:] - self.eye).flatten(1)  # (B, 135)
        offsets = betas @ self.shapes.flatten(1) + bent @ self.correctives.flatten(0, 1)
        rest = self.template + offsets.unflatten(1, (3, -1))
        shift = posed - (turned @ joints[..., None]).squeeze(3)
        skin = (turned.flatten(2).mT @ self.weights).unflatten(1, (3, 3))
        vertices = (skin * rest[:, None]).sum(2) + shift.mT @ self.weights
        return _Posed(vertices, rest, posed, turned, before, shift, skin)

    def jacobian(self, posed: _Posed) -> Tensor:
        """(B, 48 + 10, 3, V): for each joint a turn about the axes of the mesh's frame, then betas."""
        _, rest, joints, turned, before, shift, skin = posed
        by_joint = (turned.flatten(1, 2) @ rest).unflatten(1, (16, 3)) + shift[..., None]
        by_joint *= self.weights[:, None]  # their sum is the vertex
        arms = (self.descends @ by_joint.flatten(2)).unflatten(2, (3, -1)) - joints[..., None] * self.subtree_weights[
            :, None
        ]
        turning = (self.cross.flatten(0, 1) @ arms).reshape(len(rest), _ANGLES, 3, N_VERTICES)
        sliding = torch.einsum("njcd,jdb->nbcj", before - turned, self.joint_shapes) @ self.subtree_weights
        jacobian = torch.cat((turning, sliding), 1)

        # Before skinning: correctives follow the rotations relative to the parent, shapes the betas.
        spin = before[:, 1:, None].mT @ self.cross @ turned[:, 1:, None]  # (B, 15, 3, 3, 3)
        bending = torch.einsum("njak,jkm->njam", spin.flatten(3), self.correctives)
        bending = bending.reshape(len(rest), _ANGLES - 3, 3, N_VERTICES)
        for c in range(3):
            for d in range(3):
                blended = skin[:, None, c, d]
                jacobian[:, 3:_ANGLES, c].addcmul_(blended, bending[:, :, d])
                jacobian[:, _ANGLES:, c].addcmul_(blended, self.shapes[:, d])
        return jacobian


def _check(vertices: Tensor) -> None:
    if vertices.ndim != 3 or vertices.shape[1:] != (N_VERTICES, 3):
        raise ValueError(f"vertices have shape {tuple(vertices.shape)}; expected (B, {N_VERTICES}, 3), metres")
    spans = (vertices.amax(1) - vertices.amin(1)).amax(1)  # (B,) not finite where a coordinate is not
    for hand, span in enumerate(spans.tolist()):
        if not span < 1.0:
            what = f"spans {span:.4g} metres" if span < float("inf") else "has a vertex that is not finite"
            raise ValueError(f"hand {hand} {what}: fit_mano takes finite vertices in metres")
