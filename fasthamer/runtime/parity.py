"""How far an exported model is from the model it was made of: differences on crops, and what they cost in accuracy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fasthamer.metrics.points import aligned_distances
from fasthamer.runtime.crops import Labelled
from fasthamer.runtime.sessions import Session

CHUNK = 8  # crops in a pass
MM = 1000.0

Found = Mapping[str, NDArray]


def answers(session: Session, crops: NDArray[np.uint8]) -> dict[str, NDArray]:
    """A session's outputs for any number of crops (N, 3, S, S)."""
    parts = [session(crops[start : start + CHUNK]) for start in range(0, len(crops), CHUNK)]
    return {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in parts[0]}


def differences(original: Found, exported: Found) -> dict[str, float]:
    """Mean and largest distances of points, largest angle of rotations, largest differences of betas and camera.

    What the export does not give is left out.
    """
    found: dict[str, float] = {}
    for name, unit in (("vertices", "mm"), ("joints", "mm"), ("keypoints_2d", "crop_widths")):
        if name in exported:
            apart = np.linalg.norm(original[name] - exported[name], axis=-1) * (MM if unit == "mm" else 1)
            found |= {f"{name}_{unit}_mean": float(apart.mean()), f"{name}_{unit}_max": float(apart.max())}
    if "hand_pose" in exported:
        angles = [_degrees(original[name], exported[name]) for name in ("global_orient", "hand_pose")]
        found["rotations_degrees_max"] = float(max(each.max() for each in angles))
    for name in ("betas", "camera"):
        if name in exported:
            found[f"{name}_max"] = float(np.abs(original[name] - exported[name]).max())
    return found


def cost(original: Found, exported: Found, truth: Labelled) -> dict[str, float]:
    """PA-MPJPE and PA-MPVPE (mm) of both, and what the export loses; empty for an export without mesh."""
    if "vertices" not in exported:
        return {}
    found: dict[str, float] = {}
    for score, name in (("pa_mpjpe", "joints"), ("pa_mpvpe", "vertices")):
        before, after = (
            MM * float(aligned_distances(each[name], getattr(truth, name)).mean()) for each in (original, exported)
        )
        found |= {f"{score}_mm_original": before, f"{score}_mm_exported": after, f"{score}_mm_cost": after - before}
    return found


def _degrees(first: NDArray, second: NDArray) -> NDArray:
    """Angles between rotations (..., 3, 3); from the chord, which keeps its digits at small angles."""
    chord = np.linalg.norm(first.astype(np.float64) - second.astype(np.float64), axis=(-2, -1))
    return np.degrees(2 * np.arcsin(np.clip(chord / np.sqrt(8), 0, 1)))
