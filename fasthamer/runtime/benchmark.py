"""Hand models side by side: time per stage, throughput, parameters, arithmetic, memory."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from fasthamer.data.crop import crop_affine, warp
from fasthamer.runtime.cost import Cost, measure
from fasthamer.runtime.timing import StageClock, Timing, interleaved, random_crops, synchronise
from fasthamer.types import HandOutput

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
COLUMNS = (
    *("model", "weights", "decoder", "backend", "precision", "device", "batch", "stage"),
    *("median_ms", "p95_ms", "fps", "ratio_to_teacher", "params_m", "gflops", "peak_mb"),
)
STAGES = ("crop", "backbone", "head", "mesh", "model", "whole")
CROP_SIZE = 256  # pixels; a model that works on other sizes resizes within its time
RESTLESS = 3  # times the median; a 95th percentile above it speaks of other work on the machine
WARMUP = 3  # calls of each before the timed ones
_PHOTO = (480, 640)  # height, width of the photograph that crops are cut from
_PHOTO_BOX = 300.0  # pixels; a hand's box in it


class Candidate(NamedTuple):
    """A model to be timed, in eval mode on its device."""

    name: str
    model: nn.Module
    decoder: str
    weights: str  # trained or random
    backend: str = "torch"


class Setting(NamedTuple):
    """What all candidates are timed under."""

    device: torch.device
    precision: str = "fp32"
    repeats: int = 30
    seconds: float = 60.0  # for each batch size; fewer repeats when it is used up
    stages: bool = False  # time the stages too


@torch.no_grad()
def benchmark(
    candidates: Sequence[Candidate],
    batches: Iterable[int],
    setting: Setting,
    teacher: str | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> list[dict]:
    """One row for each batch size, model and stage, with the keys of COLUMNS.

    Stages: `crop` cuts the batch from a photograph and moves it to the device, `backbone` includes normalisation,
    `head` is the decoder without `mesh`, the hand layer; `model` is one undisturbed forward pass; `whole` goes from
    the photograph to vertices in main memory. Only `model` and `whole` without `setting.stages`.

    Args:
        candidates: timed in turns, so that their ratios hold on a noisy machine.
        batches: images per pass.
        teacher: the candidate that `ratio_to_teacher` compares with (2 = twice as fast); None leaves it empty.
        progress: gets a line now and then.
    """
    rows = []
    for batch in batches:
        progress(f"batch {batch}: {', '.join(candidate.name for candidate in candidates)}")
        image = random_crops(batch, CROP_SIZE, setting.device)
        costs = {candidate.name: measure(candidate.model, image) for candidate in candidates}
        passes = {candidate.name: _Passes(candidate.model, image, setting) for candidate in candidates}
        calls = {(name, kind): call for name, each in passes.items() for kind, call in each.kinds().items()}
        seconds = interleaved(calls, setting.repeats, WARMUP, setting.seconds)
        times = {key: Timing.of(each) for key, each in seconds.items() if key[1] != "staged"}
        for name, each in passes.items():
            times |= {(name, stage): Timing.of(of_stage[WARMUP:]) for stage, of_stage in each.stages.items()}
        for candidate in candidates:
            for stage in (stage for stage in STAGES if (candidate.name, stage) in times):
                reference = times.get((teacher, stage)) if teacher else None
                timing = times[candidate.name, stage]
                rows.append(_row(candidate, setting, batch, stage, timing, reference, costs[candidate.name]))
    return rows


def write(folder: str | Path, rows: Sequence[Mapping], machine: Mapping) -> None:
    """`benchmark.json` (rows, each with the machine), `.csv` and `.md`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    described = [{**row, "machine": dict(machine)} for row in rows]
    (folder / "benchmark.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    with open(folder / "benchmark.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *machine])
        writer.writeheader()
        writer.writerows({**row, **machine} for row in rows)
    (folder / "benchmark.md").write_text(markdown(rows, machine), encoding="utf-8")


def markdown(rows: Sequence[Mapping], machine: Mapping) -> str:
    """A table that can be pasted, with the machine in its first line."""
    titles = {"median_ms": "median ms", "p95_ms": "p95 ms", "ratio_to_teacher": "x teacher"}
    titles |= {"params_m": "params M", "gflops": "GFLOPs/image", "peak_mb": "peak MB"}
    hidden = {"backend", "device", "precision", "weights"}
    shown = [column for column in COLUMNS if column not in hidden]
    lines = ["| " + " | ".join(titles.get(column, column) for column in shown) + " |"]
    lines += ["|" + "|".join("---" if column in ("model", "decoder", "stage") else "---:" for column in shown) + "|"]
    for row in rows:
        named = {**row, "model": row["model"] + (" (random weights)" if row["weights"] == "random" else "")}
        lines.append("| " + " | ".join(_cell(named[column]) for column in shown) + " |")
    first = rows[0] if rows else {}
    about = [str(value) for key, value in machine.items() if key != "threads"]
    about[1:1] = [f"{machine['threads']} threads"] if "threads" in machine else []
    settings = ", ".join(str(first[key]) for key in ("device", "backend", "precision") if key in first)
    restless = sum(row["p95_ms"] > RESTLESS * row["median_ms"] for row in rows)
    note = f" The machine was busy: in {restless} rows p95 is over {RESTLESS} times the median." if restless else ""
    head = f"{', '.join(about)}; {settings}. Timed in turns; ms per batch.{note}"
    return f"{head}\n\n" + "\n".join(lines) + "\n"


class _Passes:
    """The timed calls of one model: an undisturbed forward pass, the whole way, and one that notes its stages."""

    def __init__(self, model: nn.Module, image: torch.Tensor, setting: Setting) -> None:
        self.model, self.image, self.setting = model, image, setting
        self.photo = np.random.default_rng(0).integers(0, 256, (*_PHOTO, 3), dtype=np.uint8)
        self.stages: dict[str, list[float]] = {}  # seconds, warm-up included

    def kinds(self) -> dict[str, Callable[[], None]]:
        if not self.setting.stages:
            return {"model": self.forward, "whole": self.whole}
        self.clock = StageClock(stage_modules(self.model), self.setting.device)
        self.stages = {"crop": [], "backbone": [], "head": [], "mesh": []}
        return {"model": self.forward, "whole": self.whole, "staged": self.staged}

    def forward(self) -> None:
        self._run(self.image)
        synchronise(self.setting.device)

    def whole(self) -> None:
        output = self._run(self._cut())
        for part in (output.vertices, output.joints, output.camera):
            part.cpu()  # waits for the device

    def staged(self) -> None:
        began = time.perf_counter()
        image = self._cut()
        synchronise(self.setting.device)
        self.stages["crop"].append(time.perf_counter() - began)
        with self.clock.running() as clock:
            self._run(image)
        spent = clock.seconds
        self.stages["backbone"].append(spent["normalise"] + spent["backbone"])
        self.stages["head"].append(spent["decoder"] - spent["hand"])
        self.stages["mesh"].append(spent["hand"])

    def _run(self, image: torch.Tensor) -> HandOutput:
        dtype = PRECISIONS[self.setting.precision]
        with torch.autocast(self.setting.device.type, dtype, enabled=dtype != torch.float32):
            return self.model(image)

    def _cut(self) -> torch.Tensor:
        affine = crop_affine(np.array([_PHOTO[1] / 2, _PHOTO[0] / 2]), _PHOTO_BOX, CROP_SIZE)
        crops = np.stack([warp(self.photo, affine, CROP_SIZE) for _ in range(len(self.image))])
        return torch.from_numpy(crops).to(self.setting.device).permute(0, 3, 1, 2)


def stage_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The parts of a hand model, as normalise, backbone, decoder and hand.

    Raises:
        ValueError: one is missing.
    """
    parts = dict(model.named_children())
    if "mano_head" in parts:  # HaMeR's name for its decoder, kept because its checkpoint has it
        parts["decoder"] = parts["mano_head"]
    names = ("normalise", "backbone", "decoder", "hand")
    missing = [name for name in names if name not in parts]
    if missing:
        raise ValueError(f"{type(model).__name__} has no part named {', '.join(missing)}: its stages cannot be timed")
    return {name: parts[name] for name in names}


def _row(
    candidate: Candidate, setting: Setting, batch: int, stage: str, timing: Timing, teacher: Timing | None, cost: Cost
) -> dict:
    return {
        "model": candidate.name,
        "weights": candidate.weights,
        "decoder": candidate.decoder,
        "backend": candidate.backend,
        "precision": setting.precision,
        "device": str(setting.device),
        "batch": batch,
        "stage": stage,
        "median_ms": round(timing.median_ms, 3),
        "p95_ms": round(timing.p95_ms, 3),
        "fps": round(1000 * batch / timing.median_ms, 2),
        "ratio_to_teacher": round(teacher.median_ms / timing.median_ms, 3) if teacher else None,
        **{key: round(value, 3) for key, value in cost._asdict().items()},
    }


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)
