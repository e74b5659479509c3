"""The calls that are timed interleaved: one model's rows, the teacher and the machine's peaks, at one batch size."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

from fasthamer.benchmark.costs import Work
from fasthamer.benchmark.passes import PARTS, PartsPass, Passes, before_the_model, jpeg_image
from fasthamer.benchmark.peaks import PeakProbes, Peaks
from fasthamer.benchmark.timing import Blocks, Clock, Timing, flat, in_blocks, random_crops, times_faster
from fasthamer.runtime.session import Session

COLUMNS = (
    *("model", "weights", "decoder", "backend", "precision", "device", "batch", "stage"),
    *("median_ms", "p95_ms", "fps", "ratio_to_teacher", "ratio_to_eager"),
    *("params_m", "gflops", "file_mb", "peak_mb", "peak_fraction", "arithmetic_ms", "weights_ms", "bound"),
    "relative_error",  # of folded heads
)
EAGER = ("torch", "fp32")  # the unmodified training graph, the reference of both ratios
CROP_SIZE = 256  # pixels of the crops in the stages that all models share
WARMUP = 3  # untimed calls of each
BLOCK_SECONDS = 0.25  # at most; `Setting.seconds` / `Setting.rounds` if that is less
_SHARED = {"model": "any", "backend": "opencv"}
_TEACHER = "teacher"


class Setting(NamedTuple):
    """The conditions of a benchmark, the same for all models."""

    device: torch.device
    threads: int = 0  # on the CPU; 0 = each backend's default, and these differ
    backends: tuple[str, ...] = ("torch",)
    precisions: tuple[str, ...] = ("fp32",)
    batches: tuple[int, ...] = (1,)
    stages: tuple[str, ...] = ("model", "whole")
    rounds: int = 15
    seconds: float = 5.0  # for each row; fewer rounds, but at least 3, when they are exceeded
    must: tuple[str, ...] = ()  # backends and precisions whose failure is an error and not a note
    peak_sides: tuple[int, ...] = ()  # of the matrix products that measure the peak; empty = by device
    peak_mb: tuple[int, ...] = ()  # 1e6 bytes, of the matrices that are read to measure bandwidth; empty = the defaults
    clock: Clock = time.perf_counter


class Entry(NamedTuple):
    """One model in one backend and precision."""

    about: dict[str, Any]  # values of the columns that identify it
    costs: dict[str, Any]  # values of the columns of costs of the whole model
    session: Session
    network: nn.Module | None  # that the session runs; None if its parts cannot be timed
    work: dict[str, Work]  # by stage: model, backbone, head, mesh
    size: int = CROP_SIZE  # pixels of the crops that it takes without resizing

    @property
    def is_eager(self) -> bool:
        return (self.about["backend"], self.about["precision"]) == EAGER


class Group:
    """Collects calls, times them interleaved, and makes rows of the times.

    Args:
        batch: images in a pass.
        setting: the conditions.
        probes: measure the machine's peaks.
    """

    def __init__(self, batch: int, setting: Setting, probes: PeakProbes) -> None:
        self.batch, self.setting, self.probes = batch, setting, probes
        self.entries: list[Entry] = []
        self._jpeg = jpeg_image()
        self._calls: dict[Any, Callable[[], object]] = dict(probes.calls)
        self._parts: dict[Hashable, PartsPass] = {}
        self._teacher: Hashable = None
        self._shared: tuple[str, ...] = ()

    @property
    def has_teacher(self) -> bool:
        return self._teacher is not None

    def add(self, entry: Entry, is_teacher: bool = False) -> None:
        """Adds an entry whose stages become rows."""
        self._add(len(self.entries), entry)
        if is_teacher and entry.is_eager:
            self._teacher = len(self.entries)
        self.entries.append(entry)

    def add_teacher(self, entry: Entry) -> None:
        """Adds an entry that is only compared with."""
        self._add(_TEACHER, entry)
        self._teacher = _TEACHER

    def add_shared(self) -> None:
        """Adds the stages that do not depend on the model."""
        calls = before_the_model(self.batch, CROP_SIZE, self.setting.device, self._jpeg)
        self._shared = tuple(stage for stage in calls if stage in self.setting.stages)
        self._calls |= {("shared", stage): calls[stage] for stage in self._shared}

    def run(self) -> tuple[list[dict[str, Any]], Peaks]:
        """Rows with the keys of COLUMNS, and the peaks measured in the same rounds."""
        seconds = self.setting.seconds
        rounds, clock = self.setting.rounds, self.setting.clock
        block_seconds = min(BLOCK_SECONDS, seconds / rounds)
        blocks = in_blocks(self._calls, rounds, seconds * len(self._calls), block_seconds, WARMUP, clock)
        for key, each in self._parts.items():
            blocks |= {(key, part): [times] for part, times in each.after_warm_up(WARMUP).items()}
        peaks = self.probes.peaks(blocks)
        rows = [self._row(_SHARED, stage, Timing.of(flat(blocks["shared", stage]))) for stage in self._shared]
        for number, entry in enumerate(self.entries):
            rows += self._rows(number, entry, blocks, peaks)
        return rows, peaks

    def _add(self, key: Hashable, entry: Entry) -> None:
        image = random_crops(self.batch, entry.size, self.setting.device)
        passes = Passes(entry.session, image, self._jpeg)
        calls = {"model": passes.model, "whole": passes.whole, "frame": passes.frame}
        self._calls |= {(key, stage): call for stage, call in calls.items() if stage in self.setting.stages}
        if entry.network is not None and set(PARTS) & set(self.setting.stages):
            self._parts[key] = PartsPass(entry.session, entry.network, image, self.setting.clock)
            self._calls[key, "parts"] = self._parts[key]

    def _rows(self, number: int, entry: Entry, blocks: Blocks, peaks: Peaks) -> Iterator[dict[str, Any]]:
        eager = next((index for index, other in enumerate(self.entries) if other.is_eager), None)
        for stage in (stage for stage in self.setting.stages if (number, stage) in blocks):
            own = blocks[number, stage]
            timing = Timing.of(flat(own))
            row = self._row(entry.about, stage, timing) | self._costs(entry, stage, timing, peaks)
            for column, other in (("ratio_to_teacher", self._teacher), ("ratio_to_eager", eager)):
                if (other, stage) in blocks:
                    row[column] = times_faster(own, blocks[other, stage])
            yield row

    def _costs(self, entry: Entry, stage: str, timing: Timing, peaks: Peaks) -> dict[str, Any]:
        costs = {} if stage in PARTS else dict(entry.costs)
        work = entry.work.get(stage if stage in PARTS else "model")
        if work is None:
            return costs
        costs["gflops"] = work.gflops
        if stage in (*PARTS, "model"):
            precision = entry.about["precision"]
            bound = peaks.bound(timing.median_ms, work.gflops * self.batch, work.weights_mb, precision)
            costs |= bound._asdict()
        return costs

    def _row(self, about: dict[str, Any], stage: str, timing: Timing) -> dict[str, Any]:
        images = 1 if stage == "frame" else self.batch
        times = {"batch": self.batch, "stage": stage, **timing._asdict(), "fps": 1000 * images / timing.median_ms}
        return dict.fromkeys(COLUMNS) | {"device": str(self.setting.device)} | about | times
