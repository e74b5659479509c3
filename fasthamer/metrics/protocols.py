"""The official evaluations: joint definitions, and the order and axes of their files.

All scores are computed in our own order and axes (OpenPose order, x right, y down, metres). They equal the official
numbers, since prediction and truth are converted alike.

- freihand: github.com/lmb-freiburg/freihand, eval.py. Joints are regressed from the posed mesh; joints and vertices are
  aligned separately, each to its own target; F-scores at 5 and 15 mm; AUC from 0 to 50 mm.
- dexycb: github.com/NVlabs/dex-ycb-toolkit, dex_ycb_toolkit/hpe_eval.py. Joints only: absolute, relative to joint 0,
  and after FreiHAND's alignment. Left and right hands, unmirrored; the right ones are also scored alone.
- ho3d: github.com/shreyashampali/ho3d, eval.py; v2 and v3 are scored alike. FreiHAND's scores, and joints after scaling
  the bone from wrist to middle knuckle (MANO joints 0 and 4) to its true length and moving wrist onto wrist.
- hint: github.com/geopavlakos/hamer, eval.py and utils/pose_utils.py (EvaluatorPCK). 2D only, see `pck`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fasthamer.hand.conventions import LEFT_TIPS, MANO_TO_OPENPOSE, TIPS, regressed_joints, tip_vertices
from fasthamer.registry import unknown
from fasthamer.types import N_JOINTS

FINGERTIPS = (4, 8, 12, 16, 20)  # OpenPose order, thumb to pinky
OPENPOSE = tuple(range(N_JOINTS))
MANO = tuple(int(joint) for joint in np.argsort(MANO_TO_OPENPOSE))  # our joint at each position in HO-3D's files


class Protocol(NamedTuple):
    """One official evaluation."""

    joints: str  # definition of its labelled joints: a key of `fasthamer.hand.conventions.TIPS`
    submission: str  # name of the file that its server or script reads
    order: tuple[int, ...] = OPENPOSE  # our joint at each position in its files
    axes: tuple[int, int, int] = (1, 1, 1)  # signs of its x, y, z relative to ours
    per_metre: float = 1.0  # its unit; affects only the 1e-8 that `align_w_scale` adds to norms
    scale_translation: bool = False  # whether joints are also scored after this alignment
    both_hands: bool = False  # whether it has left hands; the right ones are then also scored alone


PROTOCOLS = {
    "freihand": Protocol("freihand", "pred.json"),
    "dexycb": Protocol("dexycb", "results.txt", per_metre=1000.0, both_hands=True),
    "ho3d": Protocol("ho3d", "pred.json", MANO, (1, -1, -1), scale_translation=True),
    "hint": Protocol("hamer", "keypoints.json"),
}


def protocol(name: str) -> Protocol:
    """
    Raises:
        KeyError: no such protocol.
    """
    if name not in PROTOCOLS:
        raise KeyError(unknown("protocol", name, PROTOCOLS))
    return PROTOCOLS[name]


def to_official(points: NDArray, name: str) -> NDArray:
    """Our points in a protocol's axes; joints (N, 21, 3) also in its order, meshes in unchanged order."""
    rules = protocol(name)
    ordered = points[:, rules.order] if points.shape[1] == N_JOINTS else points
    return ordered * np.array(rules.axes)


def from_official(points: NDArray, name: str) -> NDArray:
    """The inverse of `to_official`."""
    rules = protocol(name)
    ordered = points[:, np.argsort(rules.order)] if points.shape[1] == N_JOINTS else points
    return ordered * np.array(rules.axes)


def protocol_joints(
    joints: NDArray,
    vertices: NDArray,
    convention: str,
    regressor: NDArray | None = None,
    left: NDArray | None = None,
) -> NDArray:
    """The 21 joints as a dataset defines them, from a model's joints and vertices.

    Different fingertip definitions alone change PA-MPJPE by up to 1.4 mm, so the protocol determines them.

    Args:
        joints: (N, 21, 3) of the model: kinematic joints, HaMeR's tips.
        vertices: (N, 778, 3), mirrored or not.
        convention: `hamer` keeps the joints; `freihand` regresses the inner ones from the posed vertices, as the
            official code does; any other name of `fasthamer.hand.conventions.TIPS` replaces the tips.
        regressor: (16, 778) joint regressor; `freihand` needs it.
        left: (N,) bool, True for left hands; None: all are right hands.

    Raises:
        ValueError: an unknown convention, or a missing regressor.
    """
    if convention not in TIPS:
        raise ValueError(unknown("joint convention", convention, TIPS))
    if convention == "hamer":
        return np.asarray(joints)
    if convention == "freihand":
        if regressor is None:
            raise ValueError("the freihand joint convention needs the hand model's joint regressor (16, 778)")
        weights, points = (torch.as_tensor(np.asarray(array, np.float64)) for array in (regressor, vertices))
        return regressed_joints(weights, points, tips="freihand").numpy()
    return with_tips(joints, vertices, convention, left)


def with_tips(joints: NDArray, vertices: NDArray, convention: str, left: NDArray | None = None) -> NDArray:
    """Joints (N, 21, 3) with a convention's vertices as fingertips; arguments as `protocol_joints`."""
    moved, vertices = np.array(joints), np.asarray(vertices)
    moved[:, FINGERTIPS] = vertices[:, list(tip_vertices(convention))]
    if left is not None and convention in LEFT_TIPS:
        for joint, vertex in zip(FINGERTIPS, LEFT_TIPS[convention], strict=True):
            moved[left, joint] = vertices[left, vertex]
    return moved
