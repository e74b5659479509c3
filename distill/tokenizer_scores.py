"""Scores of a tokenizer: reconstruction errors in millimetres, use of its codes, and an image."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasthamer.metrics.alignment import procrustes
from fasthamer.render.overlay import MESH_COLOURS, sheet, turned_view
from fasthamer.students.tokenhand.codebook import perplexity
from fasthamer.students.tokenhand.tokenizer import Tokenizer

CHUNK = 64  # meshes at a time
MM = 1000.0
PALM_AHEAD = (2, 0, 1)  # axes as which an upright hand shows its palm, fingers up


@torch.no_grad()
def reconstruct(tokenizer: Tokenizer, vertices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Meshes (N, 778, 3) in the encoder's frame, their reconstructions (N, 778, 3), and the codes (N, M)."""
    tokenizer.eval()
    parts = [tokenizer(chunk) for chunk in vertices.split(CHUNK)]
    placed, found = (torch.cat([part[number] for part in parts]) for number in (0, 1))
    return placed, found, torch.cat([part[2].indices for part in parts])


def score_tokenizer(tokenizer: Tokenizer, vertices: Tensor) -> dict[str, Any]:
    """Errors on held-out meshes (N, 778, 3), wrist on wrist and Procrustes-aligned, and which codes they use.

    Returns:
        `mpvpe_mm`, `pa_mpvpe_mm` and their 95th percentiles over hands; `codes_used`, `codes_used_share`,
        `perplexity`; `n`.
    """
    placed, found, indices = reconstruct(tokenizer, vertices)
    truth, guess = placed.cpu().numpy(), found.cpu().numpy()
    scores: dict[str, Any] = {}
    for name, moved in (("mpvpe", guess), ("pa_mpvpe", procrustes(guess, truth))):
        errors = MM * np.linalg.norm(moved - truth, axis=2).mean(1)  # (N,)
        scores |= {f"{name}_mm": float(errors.mean()), f"{name}_mm_p95": float(np.percentile(errors, 95))}
    counts = torch.bincount(indices.flatten().cpu(), minlength=tokenizer.spec.codes).float()
    used = int((counts > 0).sum())
    return scores | {
        "codes_used": used,
        "codes_used_share": used / len(counts),
        "perplexity": float(perplexity(counts)),
        "n": len(vertices),
    }


def reconstructions(tokenizer: Tokenizer, vertices: Tensor, faces: NDArray, rows: int = 6) -> NDArray[np.uint8]:
    """Meshes beside their reconstructions, from two sides; from the smallest error to the largest.

    Args:
        vertices: (N, 778, 3) held-out meshes.
        faces: (1538, 3).
    """
    placed, found, _ = reconstruct(tokenizer, vertices)
    errors = MM * (placed - found).norm(dim=2).mean(1)
    chosen = errors.argsort()[torch.linspace(0, len(errors) - 1, rows).long()]
    images, captions = [], []
    for sample in chosen.tolist():
        views = [
            turned_view(meshes[sample].cpu().numpy()[:, PALM_AHEAD], faces, angle, colour=MESH_COLOURS[colour])
            for angle in (0, 150)
            for meshes, colour in ((placed, "truth"), (found, "prediction"))
        ]
        images.append(views)
        captions.append(["", f"{errors[sample]:.1f} mm", "", ""])
    return sheet(images, ["original", "from tokens", "original, turned", "from tokens, turned"], captions)
