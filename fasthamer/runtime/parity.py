"""Export, open the file again, compare with the original: differences on crops, and what they cost in accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fasthamer.metrics.points import aligned_distances
from fasthamer.runtime.calibration import LabelledCrops, image_crops, synthetic_crops
from fasthamer.runtime.deploy import crop_size, inference_graph
from fasthamer.runtime.export import export
from fasthamer.runtime.session import Session
from fasthamer.runtime.sessions import SUFFIXES, open_session

CHUNK = 8  # crops in a pass
MM = 1000.0
CALIBRATION_SEED, CHECK_SEED = 1_000_001, 1_000_002  # of synthetic crops; training counts its seeds from 0

Outputs = Mapping[str, NDArray]  # by the names of `fasthamer.runtime.contract.OUTPUTS`


class ExportRequest(NamedTuple):
    """An export and what it is compared on."""

    path: Path
    precision: str = "fp32"
    with_mesh: bool = True
    images: Path | None = None  # folder of images to compare on; None: synthetic crops
    calibrate: Path | None = None  # folder of images to calibrate int8 with; None: synthetic crops
    crops: int = 100  # how many synthetic ones, for either


def export_and_compare(model: nn.Module, request: ExportRequest) -> dict[str, Any]:
    """Writes the file and returns a report: its contract, its size, `differences` and `cost`.

    Args:
        model: a student or teacher in eval mode, on the CPU.

    Raises:
        ValueError, FileNotFoundError, ImportError: as `export` and `image_crops`.
    """
    if request.crops < 1:
        raise ValueError(f"--crops {request.crops}: at least 1")
    graph = inference_graph(model)
    size = crop_size(graph)
    compared = None if request.images is None else image_crops(request.images, size)
    calibration = None
    if request.precision == "int8":
        if request.calibrate is None:
            calibration = synthetic_crops(graph.hand, request.crops, size, CALIBRATION_SEED, graph.box_shape).images
        else:
            calibration = image_crops(request.calibrate, size)
    contract = export(graph, request.path, request.precision, request.with_mesh, calibration)
    exported = open_session(request.path, SUFFIXES[request.path.suffix], "auto", "cpu")
    original = open_session(model, "torch")
    truth = synthetic_crops(graph.hand, request.crops, size, CHECK_SEED, graph.box_shape)
    drawn = run_session(original, truth.images), run_session(exported, truth.images)
    pair = drawn if compared is None else (run_session(original, compared), run_session(exported, compared))
    return {
        "file": request.path.name,
        "bytes": exported.size_bytes,
        "precision": contract.precision,
        "outputs": list(contract.outputs),
        "hand": f"{contract.hand_name} ({contract.hand})",
        "compared_on": _described(truth, compared, request),
        "differences": differences(*pair),
        "cost": cost(*drawn, truth),
    }


def summary(report: dict[str, Any]) -> str:
    """The report in a few lines."""
    lines = [f"{report['file']}: {report['precision']}, {report['bytes'] / 1e6:.1f} MB, hand {report['hand']}"]
    lines.append(f"compared with the training graph in torch, fp32, on {report['compared_on']}:")
    lines += [f"  {name:28s} {value:.3g}" for name, value in report["differences"].items()]
    if report["cost"]:
        lines.append("on synthetic crops, whose truth is known:")
        lines += [f"  {name:28s} {value:.3f}" for name, value in report["cost"].items()]
    return "\n".join(lines)


def run_session(session: Session, crops: NDArray[np.uint8]) -> dict[str, NDArray]:
    """A session's outputs for any number of crops (N, 3, S, S)."""
    parts = [session(crops[start : start + CHUNK]) for start in range(0, len(crops), CHUNK)]
    return {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in parts[0]}


def differences(original: Outputs, exported: Outputs) -> dict[str, float]:
    """Mean and largest distances of points, largest angle of rotations, largest differences of betas and camera.

    Outputs that the export does not have are left out.
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


def cost(original: Outputs, exported: Outputs, truth: LabelledCrops) -> dict[str, float]:
    """PA-MPJPE and PA-MPVPE (mm) of both, and their differences; empty for an export without mesh."""
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


def _described(truth: LabelledCrops, compared: Any, request: ExportRequest) -> str:
    if compared is None:
        return f"{len(truth.images)} synthetic crops"
    return f"{len(compared)} images of {request.images}"
