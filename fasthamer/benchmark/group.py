"""What takes turns: one model's rows, its teacher and the machine's peaks, at one batch size."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

from fasthamer.benchmark.costs import Work
from fasthamer.benchmark.memory import PeakProbes, Peaks
from fasthamer.benchmark.passes import PARTS, PartsPass, Passes, before_the_model, jpeg_image
from fasthamer.benchmark.timing import Blocks, Timing, flat, in_blocks, random_crops, times_faster
from fasthamer.runtime.session import Session

COLUMNS = (
    *("model", "weights", "decoder", "backend", "precision", "device", "batch", "stage"),
    *("median_ms", "p95_ms", "fps", "ratio_to_teacher", "ratio_to_eager"),
    *("params_m", "gflops", "file_mb", "peak_mb", "peak_fraction", "arithmetic_ms", "weights_ms", "bound"),
    "relative_error",  # of folded heads
)
EAGER = ("torch", "fp32")  # the training graph as it is: what `ratio_to_eager` and `ratio_to_teacher` compare with
CROP_SIZE = 256  # pixels, of the stages that no model has a part in
WARMUP = 3  # calls
BLOCK_SECONDS = 0.25  # of one row's turn, where its time allows
_SHARED = {"model": "any", "backend": "opencv"}
_TEACHER = "teacher"


class Setting(NamedTuple):
    """What all models are timed under."""

    device: torch.device
    threads: int = 0  # on the CPU; 0 is each backend's own choice, and they differ in it
    backends: tuple[str, ...] = ("torch",)
    precisions: tuple[str, ...] = ("fp32",)
    batches: tuple[int, ...] = (1,)
    stages: tuple[str, ...] = ("model", "whole")
    rounds: int = 15
    seconds: float = 5.0  # for each row; fewer rounds when they are used up
    must: tuple[str, ...] = ()  # backends and precisions that are an error, and not a note, where they do not work


class Entry(NamedTuple):
    """One model in one backend and precision."""

    about: dict[str, Any]  # the columns that name it
    costs: dict[str, Any]  # the columns that say what the whole of it costs
    session: Session
    network: nn.Module | None  # that runs in the session, where its parts can be timed
    work: dict[str, Work]  # of `model` and of its parts
    size: int = CROP_SIZE  # pixels of the crops that it takes as they are

    @property
    def is_eager(self) -> bool:
        return (self.about["backend"], self.about["precision"]) == EAGER


class Group:
    """Collects calls, times them in turns, and makes rows of their times.

    Args:
        batch: images a pass.
        probes: the machine's peaks, timed along.
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
        """An entry whose stages become rows."""
        self._add(len(self.entries), entry)
        if is_teacher and entry.is_eager:
            self._teacher = len(self.entries)
        self.entries.append(entry)

    def add_teacher(self, entry: Entry) -> None:
        """An entry to compare with only."""
        self._add(_TEACHER, entry)
        self._teacher = _TEACHER

    def add_shared(self) -> None:
        """The stages that do not depend on the model."""
        calls = before_the_model(self.batch, CROP_SIZE, self.setting.device, self._jpeg)
        self._shared = tuple(stage for stage in calls if stage in self.setting.stages)
        self._calls |= {("shared", stage): calls[stage] for stage in self._shared}

    def run(self) -> tuple[list[dict[str, Any]], Peaks]:
        """Rows with the keys of COLUMNS, and the peaks that were measured between them."""
        seconds = self.setting.seconds
        spell = min(BLOCK_SECONDS, seconds / self.setting.rounds)
        blocks = in_blocks(self._calls, self.setting.rounds, seconds * len(self._calls), spell, WARMUP)
        for key, each in self._parts.items():
            blocks |= {(key, part): [times] for part, times in each.warm(WARMUP).items()}
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
            self._parts[key] = PartsPass(entry.session, entry.network, image)
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
