"""Writes a benchmark's rows as JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fasthamer.benchmark.group import COLUMNS
from fasthamer.benchmark.heads import STAGE as HEAD_STAGE
from fasthamer.benchmark.passes import IMAGE_SIZE, JPEG_QUALITY, PARTS
from fasthamer.benchmark.plot import Point, tradeoff
from fasthamer.benchmark.run import Report
from fasthamer.files.atomic import write_text
from fasthamer.files.images import write_image
from fasthamer.render.figure import pixels

BUSY = 3  # times the median; a 95th percentile above it shows that other processes ran on the machine
IMAGE = "tradeoff.png"
TITLES = {
    "median_ms": "median ms",
    "p95_ms": "p95 ms",
    "ratio_to_teacher": "x teacher",
    "ratio_to_eager": "x eager",
    "params_m": "params M",
    "gflops": "GFLOPs/image",
    "file_mb": "file MB",
    "peak_mb": "peak MB",
    "peak_fraction": "of peak",
    "arithmetic_ms": "arithmetic ms",
    "weights_ms": "weights ms",
    "bound": "bound by",
    "relative_error": "relative error",
}
_TEXT = ("model", "decoder", "backend", "precision", "stage", "bound")
_MODEL = (
    *("model", "decoder", "backend", "precision", "median_ms", "p95_ms", "fps", "ratio_to_teacher", "ratio_to_eager"),
    *("params_m", "gflops", "file_mb", "peak_mb", "peak_fraction", "bound"),
)
_FASTEST = tuple(column for column in _MODEL if column not in ("p95_ms", "peak_mb"))
_HEAD = ("model", "decoder", "backend", "precision", "median_ms", "p95_ms", "ratio_to_eager", "relative_error")
_BOUND = (
    *("model", "decoder", "backend", "precision", "stage", "median_ms", "arithmetic_ms", "weights_ms"),
    *("peak_fraction", "bound", "ratio_to_teacher"),
)
_IMAGE_COLUMNS = ("stage", "model", "decoder", "backend", "precision", "median_ms", "p95_ms", "fps", "ratio_to_teacher")
_MEANINGS = {  # of the columns, printed below the tables that have them
    "median_ms": "*median*, *p95*: milliseconds a batch, of calls in interleaved blocks.",
    "fps": "*fps*: batch / median.",
    "ratio_to_teacher": "*x teacher*: times faster than the teacher's training graph in torch and fp32, the median "
    "over rounds of each round's ratio.",
    "ratio_to_eager": "*x eager*: the same against the model's own training graph in torch and fp32.",
    "gflops": "*GFLOPs*: of the graph that runs (a folded one has fewer), 2 per multiply-add.",
    "peak_mb": "*peak MB*: in torch, weights and the largest total of activations in a pass; of an exported graph, "
    "the memory of a separate process that runs it.",
    "peak_fraction": "*of peak*: the rate of these operations, as a share of that of the best square matrix product "
    "in the same precision (in fp32 where that is faster) on the same threads, measured in the same rounds.",
    "bound": "*bound by*: the largest of three parts of the median. *Arithmetic*: operations at that peak. *Weights*: "
    "reading every weight once at the rate of a matrix-vector product over as many bytes. *Overhead*: the rest "
    "beyond the larger of these two: starting kernels, kernels that run below the peak (depthwise convolutions, "
    "normalisation), activations.",
    "relative_error": "*relative error*: the largest difference of any number that the decoder regresses, over the "
    "largest of them.",
}
_IMAGE_MEANING = (
    f"*decode*: JPEG files of {IMAGE_SIZE[1]}x{IMAGE_SIZE[0]} pixels, quality {JPEG_QUALITY}, one for each hand; "
    "*crop*: cut from an image, onto the device; *whole*: from a decoded image to meshes in main memory; *frame*: from "
    "one JPEG file to all its hands in the camera's frame; its fps counts images."
)
_IMAGE_STAGES = ("decode", "crop", "whole", "frame")


def write(folder: str | Path, report: Report, machine: Mapping, command: str = "", points: Sequence[Point] = ()) -> str:
    """Writes `benchmark.json` (rows, each with the machine), `.csv`, `.md`, and the image if there are points.

    Returns:
        The Markdown.
    """
    folder = Path(folder)
    rows = [{key: _rounded(value) for key, value in row.items()} for row in report.rows]
    write_text(
        folder / "benchmark.json", json.dumps([{**row, "machine": dict(machine)} for row in rows], indent=1) + "\n"
    )
    table = io.StringIO()
    writer = csv.DictWriter(table, [*COLUMNS, *machine])
    writer.writeheader()
    writer.writerows({**row, **machine} for row in rows)
    write_text(folder / "benchmark.csv", table.getvalue())
    if points:
        chart = tradeoff(points, str(machine.get("gpu", machine.get("cpu", ""))))
        write_image(folder / IMAGE, pixels(chart))
    text = markdown(report, machine, command, bool(points))
    write_text(folder / "benchmark.md", text)
    return text


def markdown(report: Report, machine: Mapping, command: str = "", image: bool = False) -> str:
    """Machine, command, peaks, tables, the meaning of their columns, and the settings that could not be timed."""
    about = [f"{value} threads" if key == "threads" else str(value) for key, value in machine.items()]
    blocks = [", ".join(about) + "."]
    blocks += [f"    {command}"] if command else []
    blocks += [_peaks(report)] if report.peaks else []
    busy = sum(row["p95_ms"] > BUSY * row["median_ms"] for row in report.rows)
    if busy:
        blocks.append(
            f"The machine was busy: in {busy} of {len(report.rows)} rows p95 is over {BUSY} times the median."
        )
    blocks += [f"![accuracy against speed]({IMAGE})"] if image else []
    for batch in dict.fromkeys(row["batch"] for row in report.rows):
        rows = [row for row in report.rows if row["batch"] == batch]
        fastest = _fastest(rows)
        blocks += [f"**Fastest backend, batch {batch}**", _table(fastest, _FASTEST)] if fastest else []
        for title, columns, stages in (
            (f"Crop to mesh, batch {batch}", _MODEL, ("model",)),
            (f"Parts, batch {batch}", _BOUND, PARTS),
            (f"HaMeR's decoder alone, batch {batch}", _HEAD, (HEAD_STAGE,)),
            (f"From the image, {_hands(batch)}", _IMAGE_COLUMNS, _IMAGE_STAGES),
        ):
            chosen = [row for row in rows if row["stage"] in stages]
            blocks += [f"**{title}**", _table(chosen, columns)] if chosen else []
    meanings = [text for column, text in _MEANINGS.items() if any(row[column] is not None for row in report.rows)]
    meanings += [_IMAGE_MEANING] if any(row["stage"] in _IMAGE_STAGES for row in report.rows) else []
    blocks.append("\n".join(textwrap.fill(f"- {text}", 120, subsequent_indent="  ") for text in meanings))
    if report.left_out:
        blocks.append("Not timed:\n\n" + "\n".join(_not_timed(report)))
    return "\n\n".join(block.strip("\n") for block in blocks) + "\n"


def _fastest(rows: Sequence[Mapping]) -> list[Mapping]:
    """The fastest row of each model and precision, crop to mesh; empty if only one backend was timed."""
    timed = [row for row in rows if row["stage"] == "model"]
    best: dict[tuple, Mapping] = {}
    for row in timed:
        key = row["model"], row["decoder"], row["precision"]
        best[key] = min(best.get(key, row), row, key=lambda each: each["median_ms"])
    return list(best.values()) if len({row["backend"] for row in timed}) > 1 else []


def _not_timed(report: Report) -> list[str]:
    """One line for each reason; models with the same reason share it."""
    timed = dict.fromkeys(f"{row['model']} {row['decoder']}" for row in report.rows if row["decoder"])
    models: dict[tuple[str, str], list[str]] = {}  # by reason and setting
    for note in report.left_out:
        models.setdefault((note.reason, note.setting), []).append(note.model)
    settings: dict[tuple[str, tuple[str, ...]], list[str]] = {}  # by reason and models
    for (reason, setting), without in models.items():
        settings.setdefault((reason, tuple(without)), []).append(setting)
    lines = []
    for (reason, names), chosen in settings.items():
        others = [name for name in timed if name not in names]
        every = f"all but {', '.join(others)}" if others else "all models"
        lines.append(f"- {every if len(others) < len(names) else ', '.join(names)}: {', '.join(chosen)}: {reason}")
    return lines


def _hands(batch: int) -> str:
    return f"{batch} hand{'s' if batch > 1 else ''}"


def _peaks(report: Report) -> str:
    """The measured peaks of the machine: medians over the groups."""
    products, reads = (
        {key: np.median([getattr(peaks, field)[key] for peaks in report.peaks]) for key in getattr(first, field)}
        for first in report.peaks[:1]
        for field in ("gflops", "read_gbs")
    )
    rates = ", ".join(f"{precision} {rate:.0f} GFLOP/s" for precision, rate in products.items())
    reading = ", ".join(f"{rate:.1f} GB/s of {size} MB" for size, rate in reads.items())
    return f"Measured peaks: square matrix products {rates}; reading weights {reading}."


def _table(rows: Sequence[Mapping], columns: Sequence[str]) -> str:
    columns = [column for column in columns if any(row[column] is not None for row in rows)]
    lines = ["| " + " | ".join(TITLES.get(column, column) for column in columns) + " |"]
    lines.append("|" + "|".join("---" if column in _TEXT else "---:" for column in columns) + "|")
    for row in rows:
        random = " (random weights)" if row["weights"] == "random" else ""
        named = {**row, "model": f"{row['model']}{random}"}
        lines.append("| " + " | ".join(_cell(column, named[column]) for column in columns) + " |")
    return "\n".join(lines)


def _cell(column: str, value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    if column == "relative_error":
        return f"{value:.1e}"
    return f"{100 * value:.0f} %" if column == "peak_fraction" else f"{value:.{1 if value >= 100 else 2}f}"


def _rounded(value: object) -> object:
    return float(f"{value:.5g}") if isinstance(value, float) else value
