"""Principal components of a teacher's features: most of a wide map in a few channels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fasthamer.files.atomic import replacing
from fasthamer.files.safe_npz import read_npz

FITTED_ON = 256  # images, evenly spread over the set: 49,152 cells of HaMeR's map


class Components(NamedTuple):
    """Features f are stored as z = basis (f - mean), K numbers instead of C, and restored as mean + basis^T z."""

    mean: Tensor  # (C,)
    basis: Tensor  # (K, C), orthonormal rows

    def compress(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to (B, K, h, w)."""
        mean, basis = self.to(features.device)
        return torch.einsum("kc,bchw->bkhw", basis, features - mean[:, None, None])

    def expand(self, kept: Tensor) -> Tensor:
        """(B, K, h, w) to (B, C, h, w), the least-squares reconstruction."""
        mean, basis = self.to(kept.device)
        return torch.einsum("kc,bkhw->bchw", basis, kept) + mean[:, None, None]

    def to(self, device: torch.device) -> Components:
        return Components(self.mean.to(device), self.basis.to(device))


def fit_components(maps: Iterable[Tensor], kept: int) -> tuple[Components, float]:
    """The directions in which features vary most.

    Args:
        maps: batches of (B, C, h, w).
        kept: K, from 1 to C.

    Returns:
        The components, and the share of the variance that they explain.

    Raises:
        ValueError: more components than channels.
    """
    count, total, products = 0, torch.zeros(()), torch.zeros(())
    for features in maps:
        cells = features.transpose(0, 1).flatten(1).double().cpu()  # (C, cells)
        if kept > len(cells):
            raise ValueError(f"TEACHER.CACHE_CHANNELS is {kept}: this teacher's features have {len(cells)} channels")
        count, total, products = count + cells.shape[1], total + cells.sum(1), products + cells @ cells.T
    mean = total / count
    values, vectors = torch.linalg.eigh(products / count - torch.outer(mean, mean))  # ascending
    explained = values[-kept:].sum() / values.sum().clamp(min=1e-30)
    return Components(mean.float(), vectors[:, -kept:].T.flip(0).float().contiguous()), float(explained)


def save_components(path: Path, components: Components) -> None:
    with replacing(path) as draft:
        np.savez(draft, mean=components.mean.numpy(), basis=components.basis.numpy())


def load_components(path: Path, fingerprint: str) -> Components:
    """The components of a file.

    Raises:
        ValueError: missing, or with another fingerprint.
    """
    if not path.is_file() or components_fingerprint(path) != fingerprint:
        raise ValueError(f"{path}: missing, damaged or of another teacher cache; remove the folder or name another")
    arrays = read_npz(path, {"mean": (None,), "basis": (None, None)})
    return Components(torch.from_numpy(arrays["mean"]), torch.from_numpy(arrays["basis"]))


def components_fingerprint(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
