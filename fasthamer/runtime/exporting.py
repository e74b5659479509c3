"""What tools/export.py does: export, open again, compare with the original."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from fasthamer.runtime.crops import Labelled, image_crops, synthetic_crops
from fasthamer.runtime.deploy import crop_size, inference_graph
from fasthamer.runtime.export import export
from fasthamer.runtime.parity import answers, cost, differences
from fasthamer.runtime.sessions import SUFFIXES, open_session

CALIBRATION_SEED, CHECK_SEED = 1_000_001, 1_000_002  # of synthetic crops; training counts its seeds from 0


class Request(NamedTuple):
    """An export and what it is compared on."""

    path: Path
    precision: str = "fp32"
    with_mesh: bool = True
    images: Path | None = None  # folder to compare on; None: synthetic crops
    calibrate: Path | None = None  # folder to calibrate int8 with; None: synthetic crops
    crops: int = 100  # how many synthetic ones, for either


def export_and_compare(model: nn.Module, request: Request) -> dict[str, Any]:
    """Writes the file and gives the report: its contract, its size, `differences` and `cost` (see `parity`).

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
            calibration = synthetic_crops(graph.hand, request.crops, size, CALIBRATION_SEED).images
        else:
            calibration = image_crops(request.calibrate, size)
    contract = export(graph, request.path, request.precision, request.with_mesh, calibration)
    exported = open_session(request.path, SUFFIXES[request.path.suffix], "auto", "cpu")
    original = open_session(model, "torch")
    truth = synthetic_crops(graph.hand, request.crops, size, CHECK_SEED)
    drawn = answers(original, truth.images), answers(exported, truth.images)
    pair = drawn if compared is None else (answers(original, compared), answers(exported, compared))
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


def _described(truth: Labelled, compared: Any, request: Request) -> str:
    if compared is None:
        return f"{len(truth.images)} synthetic crops"
    return f"{len(compared)} images of {request.images}"
