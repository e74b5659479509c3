"""The benchmark: every model in every backend and precision, interleaved with the teacher and the machine's peaks."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fasthamer.benchmark.costs import Work, peak_memory, work_of
from fasthamer.benchmark.footprint import footprint_mb
from fasthamer.benchmark.group import EAGER, Entry, Group, Setting
from fasthamer.benchmark.passes import MESH, PARTS, stage_modules
from fasthamer.benchmark.peaks import BYTES, PeakProbes, Peaks
from fasthamer.benchmark.timing import random_crops
from fasthamer.runtime.deploy import inference_graph
from fasthamer.runtime.export import TooLarge
from fasthamer.runtime.session import Session
from fasthamer.runtime.sessions import open_session
from fasthamer.runtime.torch_sessions import TorchSession
from fasthamer.types import View

FIXED_BATCH = ("cudagraphs",)  # backends whose graphs have a fixed batch size
IN_PARTS = ("torch", "folded")  # backends that call the network's modules one by one
EXPORTED = ("onnxruntime", "openvino")  # backends that run an exported file
FAILURES = (ValueError, KeyError, ImportError, RuntimeError, MemoryError)  # RuntimeError: torch.compile, no memory
STAGES = ("decode", "crop", *PARTS, "model", "whole", "frame")


class BenchmarkModel(NamedTuple):
    """A model that can be timed."""

    name: str
    decoder: str
    weights: str  # trained or random
    build: Callable[[], nn.Module]  # in eval mode, on the device


class LeftOut(NamedTuple):
    """A setting that could not be timed, and the reason."""

    model: str  # with its decoder
    setting: str  # backend and precision; with the batch, if it was opened and did not run with that batch
    reason: str

    def __str__(self) -> str:
        return f"{self.model}, {self.setting}: {self.reason}"


class Report(NamedTuple):
    """The results of a benchmark."""

    rows: list[dict[str, Any]]  # with the keys of COLUMNS; None = not applicable or not measured
    left_out: list[LeftOut]
    peaks: list[Peaks]  # one for each group of interleaved calls


@torch.no_grad()
def benchmark(
    benchmark_models: Sequence[BenchmarkModel],
    setting: Setting,
    teacher: str,
    progress: Callable[[str], None] = lambda line: None,
    keep: Callable[[Report], None] = lambda report: None,
) -> Report:
    """One row for each model, backend, precision, batch and stage.

    One model at a time is in memory, beside the teacher. Its calls, those of the teacher's training graph and those
    that measure the machine's peaks are interleaved, so that ratios are reliable on a busy machine.

    Args:
        benchmark_models: the models; the first one must work in every backend and precision of `setting.must`.
        setting: the conditions.
        teacher: name of the model that `ratio_to_teacher` compares with (2 = twice as fast).
        progress: receives a line before each model and batch size.
        keep: receives the report so far after each model and batch size.

    Raises:
        ValueError: the first model cannot be timed in a backend or precision of `setting.must` at any batch size; the
            message has the reason.
    """
    report = Report([], [], [])
    probes = PeakProbes(setting.device, setting.precisions, setting.peak_sides, setting.peak_mb, setting.clock)
    first = next(model for model in benchmark_models if model.name == teacher)
    reference = _ModelRuns(first, setting)
    for number, model in enumerate(benchmark_models):
        runs = reference if model is first else _ModelRuns(model, setting)
        for batch in setting.batches:
            progress(f"{model.name}, {model.decoder}, batch {batch}")
            group = Group(batch, setting, probes)
            for entry in runs.entries(batch, report.left_out):
                group.add(entry, is_teacher=runs is reference)
            if number == 0:
                _check_opened(runs, report.left_out, is_last=batch == setting.batches[-1])
                group.add_shared()
            if not group.has_teacher and (eager := reference.eager(batch, report.left_out)) is not None:
                group.add_teacher(eager)
            rows, peaks = group.run()
            report.rows.extend(rows)
            report.peaks.append(peaks)
            del group  # it holds sessions
            keep(report)
        runs.close()
        del runs
    return report


class _ModelRuns:
    """One model and its sessions in every backend and precision that supports it."""

    def __init__(self, model: BenchmarkModel, setting: Setting) -> None:
        self.description, self.setting = model, setting
        self.model = model.build()
        self.params_m = sum(parameter.numel() for parameter in self.model.parameters()) / 1e6
        view: View = self.model.view  # type: ignore[assignment]
        image_size: int = self.model.image_size  # type: ignore[assignment]
        self.size = round(image_size / (view.bottom - view.top))  # pixels of a crop that needs no resizing
        self.too_large_for: set[str] = set()  # precisions in which it exceeds a format's limit
        self.timed: set[str] = set()  # backends and precisions that ran with any batch so far
        self.failed_to_run: set[str] = set()  # those that were opened and did not run with some batch
        self._opened: dict[tuple, tuple[Session, nn.Module | None]] = {}
        self._work: dict[bool, dict[str, Work]] = {}

    def entries(self, batch: int, left_out: list[LeftOut]) -> Iterator[Entry]:
        """For this batch size; settings that cannot be opened, or do not run, are appended to `left_out`."""
        for backend, precision in product(self.setting.backends, self.setting.precisions):
            try:
                entry = self._entry(backend, precision, batch)
            except FAILURES as error:
                self._note(error, backend, precision, batch, left_out)
                continue
            self.timed |= {backend, precision}
            yield entry

    def eager(self, batch: int, left_out: list[LeftOut]) -> Entry | None:
        """The training graph, to compare with only; None, and a note in `left_out`, if it does not run."""
        try:
            session, network = self._open(*EAGER, batch)
        except FAILURES as error:
            self._note(error, *EAGER, batch, left_out)
            return None
        return Entry({"backend": EAGER[0], "precision": EAGER[1]}, {}, session, network, {}, self.size)

    def close(self) -> None:
        """Frees the sessions; `eager` opens its own again when needed."""
        self._opened.clear()
        gc.collect()

    def _entry(self, backend: str, precision: str, batch: int) -> Entry:
        name, decoder, weights, _ = self.description
        session, network = self._open(backend, precision, batch)
        about = {"model": name, "weights": weights, "decoder": decoder, "backend": backend, "precision": precision}
        work = self._works(backend, precision)
        if precision == "int8":  # parts of an int8 graph may be fp32: take the file's size
            work["model"] = work["model"]._replace(weights_mb=session.size_bytes / 1e6)
        costs = {
            "params_m": self.params_m,
            "file_mb": session.size_bytes / 1e6,
            "peak_mb": self._peak_mb(backend, precision, batch, network),
        }
        return Entry(about, costs, session, network, work, self.size)

    def _note(self, error: Exception, backend: str, precision: str, batch: int, left_out: list[LeftOut]) -> None:
        setting = f"{backend} {precision}"
        if isinstance(error, RuntimeError | MemoryError):  # another batch may fit
            setting += f" batch {batch}"
            self.failed_to_run |= {backend, precision}
        if isinstance(error, TooLarge):
            self.too_large_for.add(precision)
        reason = (str(error.args[0] if error.args else error).strip() or type(error).__name__).splitlines()[0]
        note = LeftOut(f"{self.description.name} {self.description.decoder}", setting, reason)
        if not any((other.model, other.setting) == (note.model, note.setting) for other in left_out):
            left_out.append(note)

    def _open(self, backend: str, precision: str, batch: int) -> tuple[Session, nn.Module | None]:
        """A session that has run with this batch, and the torch network in it if its parts can be timed."""
        key = backend, precision, batch if backend in FIXED_BATCH else None
        session, network = self._opened.get(key) or self._new_session(backend, precision, batch)
        try:
            session(random_crops(batch, self.size, self.setting.device))
        except Exception as error:  # the runtimes' own exceptions have no common base
            raise RuntimeError(str(error).strip() or type(error).__name__) from error
        self._opened[key] = session, network
        return session, network

    def _new_session(self, backend: str, precision: str, batch: int) -> tuple[Session, nn.Module | None]:
        device, threads = str(self.setting.device), self.setting.threads
        session = open_session(self.model, backend, precision, device, batch, threads)
        # In half precision the inference graph's backbone and head are copies: ask the session what it runs.
        return session, session.model if backend in IN_PARTS and isinstance(session, TorchSession) else None

    def _peak_mb(self, backend: str, precision: str, batch: int, network: nn.Module | None) -> float | None:
        """Peak memory in 1e6 bytes; None where it cannot be separated from other memory of this process."""
        device, threads = self.setting.device, self.setting.threads
        if network is not None:
            if backend == "torch" and precision != "fp32":
                return None  # the copies that autocast makes are not counted
            return peak_memory(network, random_crops(batch, self.size, device)) / 1e6
        if backend not in EXPORTED or device.type != "cpu":
            return None
        from fasthamer.runtime.temporary_export import (
            temporary_onnx_file,
        )  # its imports exist: such a session is open

        stored = precision if backend == "onnxruntime" or precision == "int8" else "fp32"
        return footprint_mb(temporary_onnx_file(self.model, stored), backend, precision, batch, self.size, threads)

    def _works(self, backend: str, precision: str) -> dict[str, Work]:
        """By stage: operations of the graph that the backend runs, bytes of its weights in this precision."""
        folded = backend != "torch"
        if folded not in self._work:
            image = random_crops(1, self.size, self.setting.device)
            self._work[folded] = _work(inference_graph(self.model) if folded else self.model, image)
        share = BYTES[precision] / BYTES["fp32"]
        return {stage: work._replace(weights_mb=work.weights_mb * share) for stage, work in self._work[folded].items()}


def _check_opened(runs: _ModelRuns, left_out: Sequence[LeftOut], is_last: bool) -> None:
    """Before the last batch, what was opened and did not run is no error yet: a smaller batch may fit."""
    missing = set(runs.setting.must) - runs.timed - runs.too_large_for
    for name in sorted(missing if is_last else missing - runs.failed_to_run):
        reasons = [str(note) for note in left_out if name in note.setting.split()]
        raise ValueError(f"{name} cannot be timed here; {'; '.join(reasons[:1])}")


def _work(network: nn.Module, image: Tensor) -> dict[str, Work]:
    """Operations and weights of the whole and of each part."""
    parts = stage_modules(network)
    work = work_of({"model": network, **parts}, network, image)
    mesh = Work(*map(sum, zip(*(work[name] for name in MESH if name in parts), strict=True)))
    head = work["head"] if "head" in parts else work["decoder"]._replace(gflops=work["decoder"].gflops - mesh.gflops)
    if "decoder" in parts and "hand" not in parts:  # the hand is not part of the decoder, a mesh decoder is
        head = head._replace(weights_mb=head.weights_mb - mesh.weights_mb)
    return {"model": work["model"], "backbone": work["backbone"], "head": head, "mesh": mesh}
