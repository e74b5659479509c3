"""Hand poses without images, sampled or read from a file: for tokenizers and for the adversarial loss."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from fasthamer.data.parallel import Numbers, in_pieces
from fasthamer.files.safe_npz import read_npz
from fasthamer.hand.procedural import sample_betas, sample_pose
from fasthamer.types import N_BETAS, N_HAND_JOINTS

PIECE = 256  # hands that a process samples or reads at a time
RUN = 64  # neighbouring rows that are held out together: in recordings neighbours are similar
_WIDTHS = {45: 3, 48: 3, 135: 9, 144: 9}  # numbers a hand, without and with the wrist: numbers a joint
_FORM = "an .npz with hand_pose (N, 48) or (N, 45), absolute axis-angles, or (N, 15, 3, 3), and betas (N, 10)"


class HandPoses(NamedTuple):
    """The articulation and shape of N right hands, as tensors."""

    hand_pose: Tensor  # (N, 15, 3, 3) float32, absolute rotations, MANO's joint order
    betas: Tensor  # (N, 10) float32


def sampled_poses(number: int, seed: int, workers: int = 0, piece: int = PIECE) -> HandPoses:
    """Poses of the procedural sampler; pose i is a pure function of (seed, i). A process samples `piece` at a time."""
    drawn = in_pieces(partial(_sampled, seed), np.arange(number), piece, workers, "sampling hands")
    hand_pose, betas = (np.concatenate(column) for column in zip(*drawn, strict=True))
    return _tensors(hand_pose, betas)


def drawn_poses(randoms: Iterable[np.random.Generator]) -> HandPoses:
    """A pose of the procedural sampler from each generator; the generators may all be the same object."""
    return _tensors(*_draw(randoms))


def poses_of_file(path: str | Path) -> HandPoses:
    """Every different pose of a file, see `read_poses`; betas are sampled if the file has none.

    Raises:
        FileNotFoundError, ValueError: no such file, or not those arrays.
    """
    hand_pose, betas = read_poses(path)
    return gathered(hand_pose, np.full((len(hand_pose), N_BETAS), np.nan) if betas is None else betas)


def read_poses(path: str | Path) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Rotations (N, 15, 3, 3) and betas (N, 10) of a file, unchanged.

    Args:
        path: `.npz` of `hand_pose`, absolute axis-angles (N, 45), or (N, 48) whose first three numbers, the wrist, are
            dropped; or as many rotation matrices; and `betas` (N, 10), None if it has none.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not those arrays, numbers that are not finite or no rotations, or no hands at all.
    """
    try:
        found = read_npz(Path(path), {"hand_pose": None, "betas": (None, N_BETAS)}, optional=("betas",))
    except ValueError as error:
        raise ValueError(f"{error}; expected {_FORM}") from None
    pose, betas = found["hand_pose"], found.get("betas")
    if pose.dtype.kind != "f" or pose.ndim < 2 or not len(pose) or (betas is not None and betas.dtype.kind != "f"):
        raise ValueError(f"{path}: hand_pose {pose.shape} of {pose.dtype}, expected {_FORM}")
    width = pose[0].size
    if width not in _WIDTHS:
        few = "; principal components have to be turned into angles first" if width < 45 else ""
        raise ValueError(f"{path}: hand_pose {pose.shape} has {width} numbers a hand{few}; expected {_FORM}")
    if betas is not None and len(betas) != len(pose):
        raise ValueError(f"{path}: hand_pose {pose.shape} and betas {betas.shape} are of different numbers of hands")
    joints = pose.reshape(len(pose), -1, _WIDTHS[width])[:, -N_HAND_JOINTS:]
    return _rotations(joints, str(path)), None if betas is None else betas.astype(np.float32)


def gathered(hand_pose: NDArray, betas: NDArray) -> HandPoses:
    """Every different pose once, in order: datasets repeat a pose for several cameras or backgrounds.

    Args:
        hand_pose: (N, 15, 3, 3) rotations.
        betas: (N, 10), NaN where unknown: these are sampled.
    """
    rows = np.hstack((hand_pose.reshape(len(hand_pose), -1), betas)).astype(np.float32)
    first: dict[bytes, int] = {}
    for number, hand in enumerate(rows):
        first.setdefault(hand.tobytes(), number)
    rows = rows[list(first.values())]
    for row in np.flatnonzero(np.isnan(rows[:, -1])).tolist():
        rows[row, -N_BETAS:] = sample_betas(np.random.default_rng(row))
    return _tensors(rows[:, :-N_BETAS].reshape(-1, N_HAND_JOINTS, 3, 3), rows[:, -N_BETAS:])


def split(poses: HandPoses, held_out: int, seed: int) -> tuple[HandPoses, HandPoses]:
    """Rows to train on and `held_out` others, at most a tenth, in blocks of neighbours.

    Raises:
        ValueError: too few rows.
    """
    number = len(poses.betas)
    if number < 2:
        raise ValueError(f"{number} different hand poses: one is held out and the others are trained on")
    held_out = min(held_out, tenth(number))
    run = min(RUN, max(1, held_out // 16))
    begins = run * np.random.default_rng(seed).permutation(-(-number // run))
    rows = (begins[:, None] + np.arange(run)).ravel()
    chosen = np.zeros(number, bool)
    chosen[rows[rows < number][:held_out]] = True
    mask = torch.from_numpy(chosen)
    return HandPoses(*(part[~mask] for part in poses)), HandPoses(*(part[mask] for part in poses))


def tenth(number: int) -> int:
    """The most rows of `number` that may be held out: a tenth, at least one."""
    return max(1, number // 10)


def _sampled(seed: int, numbers: Numbers) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return _draw(np.random.default_rng((seed, int(number))) for number in numbers)


def _draw(randoms: Iterable[np.random.Generator]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    hands = [(sample_pose(random), sample_betas(random)) for random in randoms]
    pose, betas = (np.stack(column) for column in zip(*hands, strict=True))
    return _rotations(pose, "sampler"), betas.astype(np.float32)


def _rotations(joints: NDArray, where: str) -> NDArray[np.float32]:
    """(N, 15, 3, 3) float32 of axis-angles (N, 15, 3) or of matrices (N, 15, 9), which are checked."""
    if joints.shape[-1] == 9:
        matrices = joints.reshape(-1, N_HAND_JOINTS, 3, 3).astype(np.float64)
        off = np.abs(matrices @ matrices.swapaxes(-1, -2) - np.eye(3)).max((1, 2, 3))
        bad = np.flatnonzero((off > 1e-3) | (np.linalg.det(matrices) < 0).any(1))
        if len(bad):
            raise ValueError(f"{where}: hand_pose of hand {bad[0]} is not of rotation matrices")
        return matrices.astype(np.float32)
    angle = float(np.linalg.norm(joints, axis=-1).mean())
    if angle > np.pi:
        raise ValueError(f"{where}: joints of hand_pose turn by {angle:.4g} on average: are these degrees?")
    flat = np.asarray(joints, np.float64).reshape(-1, 3)
    return Rotation.from_rotvec(flat).as_matrix().astype(np.float32).reshape(-1, N_HAND_JOINTS, 3, 3)


def _tensors(hand_pose: NDArray, betas: NDArray) -> HandPoses:
    return HandPoses(torch.from_numpy(np.ascontiguousarray(hand_pose)), torch.from_numpy(np.ascontiguousarray(betas)))
