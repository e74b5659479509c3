"""The records of a check as a page of docs/: machine, command, verdict, tables."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import torch

from fasthamer.benchmark.timing import machine
from fasthamer.distill.training_speed import MEANING, table
from fasthamer.runtime.sessions import BACKENDS
from fasthamer.tools.assets.gpu.record import Check, LeftOut, Record, Speed, Training

PACKAGES = ("timm", "accelerate", "onnxruntime-gpu", "onnxruntime", "tensorrt", "triton")
MEANINGS = """\
- *from the CPU*: the farthest vertex of four synthetic hands from those of the same model on the CPU, in torch and
  fp32, at the batch size that is timed; beside it the limit. Limits are per precision: PyTorch's fp32 without tf32 is
  exact to its own rounding; tf32 and fp16 keep 10 bits of the mantissa, bf16 7; ONNX Runtime and TensorRT compute fp32
  in tf32.
- *median*, *p95*: milliseconds from crops on the GPU to meshes, warmed up, the device synchronised before each reading
  of the clock. *x*: times faster than backend torch in fp32 at the same batch size.
- `onnxruntime` and `tensorrt` take arrays: their times include copies of crops and meshes between GPU and main memory.
- HaMeR and ConvNeXt-L have the true architecture and random weights from a fixed seed, and enlarged read-out layers, so
  that hands depend on features.
- Training: student MobileNetV3-L with the full decoder; the teacher has HaMeR's 32 blocks and random weights. The naive
  loop is in fp32 with PyTorch's defaults (tf32 in convolutions only) and runs the teacher twice; the others train the
  student in TRAIN.PRECISION auto, which is fp16 on a GPU."""


def page(records: Sequence[Record], about: Mapping[str, Any], command: str) -> str:
    """Markdown."""
    wrong = [record for record in records if not record.fits]
    verdict = f"**{len(wrong)} of {len(records)} results are wrong**, marked below." if wrong else "No result is wrong."
    facts = "\n".join(f"- {key}: {value}" for key, value in about.items() if value not in ("", None))
    blocks = [
        "# GPU",
        "Speed of the backends on a GPU and their distance from the CPU, measured by one command without a network:",
        f"    {command}",
        facts,
        verdict,
        "## Models",
        _speeds([record for record in records if isinstance(record, Speed)]),
        "## Training",
        _training([record for record in records if isinstance(record, Training)]),
        "## Detector, whole images, short runs",
        _checks([record for record in records if isinstance(record, Check)]),
        "## Not measured",
        _left_out([record for record in records if isinstance(record, LeftOut)]),
        "## How it is measured",
        MEANINGS,
    ]
    return "\n\n".join(blocks) + "\n"


def about_machine(device: torch.device) -> dict[str, Any]:
    """Device, driver and versions."""
    facts: dict[str, Any] = {**machine(device), "machine": platform.machine()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts["memory"] = f"{properties.total_memory / 1e9:.0f} GB"
        facts["compute capability"] = f"{properties.major}.{properties.minor}"
        facts["driver"] = _driver()
        facts["CUDA"], facts["cuDNN"] = torch.version.cuda, torch.backends.cudnn.version()
    for package in PACKAGES:
        facts[package] = _version(package)
    return facts


def _driver() -> str:
    """NVIDIA's driver; empty where its tool is not at hand."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    command = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip().replace("\n", ", ")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _speeds(rows: Sequence[Speed]) -> str:
    if not rows:
        return "None."
    eager = {(row.model, row.batch): row.median_ms for row in rows if (row.backend, row.precision) == ("torch", "fp32")}
    lines = [
        "| model | batch | backend | precision | median ms | p95 ms | images/s | x | from the CPU, mm | limit | |",
        "|---|---:|---|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    order = {backend: number for number, backend in enumerate(BACKENDS)}
    models = list(dict.fromkeys(row.model for row in rows))
    for row in sorted(rows, key=lambda each: (models.index(each.model), each.batch, order[each.backend])):
        first = eager.get((row.model, row.batch))
        times = f"{row.median_ms:.2f} | {row.p95_ms:.2f} | {1000 * row.batch / row.median_ms:.0f}"
        ratio = f"{first / row.median_ms:.2f}" if first else ""
        lines.append(
            f"| {row.model} | {row.batch} | {row.backend} | {row.precision} | {times} | {ratio} | {row.apart_mm:.3g} "
            f"| {row.limit_mm:g} | {_mark(row)} |"
        )
    return "\n".join(lines)


def _training(records: Sequence[Training]) -> str:
    if not records:
        return "None."
    blocks = [f"```\n{MEANING}\n```"]
    for batch in dict.fromkeys(record.batch for record in records):
        rows = [record.row for record in records if record.batch == batch]
        steps = ", ".join(f"{row.loop} {1000 / row.median_ms:.1f}" for row in rows)
        blocks.append(f"Batch {batch}; steps a second: {steps}.\n\n{table(rows)}")
    return "\n\n".join(blocks)


def _checks(rows: Sequence[Check]) -> str:
    if not rows:
        return "None."
    lines = ["| what | found | limit | |", "|---|---:|---:|---|"]
    lines += [f"| {row.name} | {row.value:.3g} {row.unit} | {row.limit:g} | {_mark(row)} |" for row in rows]
    return "\n".join(lines)


def _left_out(rows: Sequence[LeftOut]) -> str:
    if not rows:
        return "Everything was measured."
    return "\n".join(f"- {row.name}: {row.reason}{'' if row.fits else ' **failed**'}" for row in rows)


def _mark(record: Record) -> str:
    return "" if record.fits else "**wrong**"
