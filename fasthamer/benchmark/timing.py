"""Timing that can be compared: warmed up, synchronised, and interleaved over what is compared.

Clock speed, caches and other processes drift; calls that take turns share the drift, so their ratios hold even where
the milliseconds do not. Speeds are medians of times: the mean of 1/dt overstates them.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import nn

from fasthamer.types import HandModel


class Timing(NamedTuple):
    """Of one call, milliseconds."""

    median_ms: float
    p95_ms: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        median, p95 = np.percentile(seconds, [50, 95])
        return cls(1000 * float(median), 1000 * float(p95))


def ms_per_image(models: Mapping[str, HandModel], size: int = 256, repeats: int = 30) -> dict[str, float]:
    """Median milliseconds of each model for one crop (batch 1), on the device where it is; they take turns.

    Args:
        models: in eval mode, by name.
        size: pixels of the crop.
        repeats: timed calls of each.
    """
    calls = {}
    for name, model in models.items():
        device = device_of(model)
        image = random_crops(1, size, device)
        calls[name] = lambda model=model, image=image, device=device: _call(model, image, device)
    with torch.no_grad():
        return {name: Timing.of(times).median_ms for name, times in interleaved(calls, repeats).items()}


Key = TypeVar("Key", bound=Hashable)
Blocks = dict[Key, list[list[float]]]  # seconds of each call, by block
PATIENCE = 1.0  # seconds; a warm-up that has used them ends
LEAST_ROUNDS = 3
BLOCK_CALLS = 20  # at most, in one block


def interleaved(
    calls: Mapping[Key, Callable[[], object]], repeats: int, warmup: int = 3, seconds: float = float("inf")
) -> dict[Key, list[float]]:
    """Seconds of every call, one after the other in turns; see `in_blocks`, of which this is the case of one call."""
    blocks = in_blocks(calls, repeats, seconds, spell=0.0, warmup=warmup)
    return {name: flat(each) for name, each in blocks.items()}


def in_blocks(
    calls: Mapping[Key, Callable[[], object]],
    rounds: int,
    seconds: float = float("inf"),
    spell: float = 0.25,
    warmup: int = 3,
) -> Blocks:
    """Seconds of every call: in each round each has a block of calls on end, and each round starts with another.

    A block shows a model as a video does, with its weights in the caches as far as they fit; the turns spread slow
    minutes over all alike. The first call of a block finds the other models' data in the caches and is not counted,
    unless a single call is longer than a block.

    Args:
        calls: must return only when their work is done (`synchronise`).
        rounds: how often each has its turn.
        seconds: stop after the round in which this much time is used up, but not before `LEAST_ROUNDS`.
        spell: seconds of a block, or `BLOCK_CALLS` calls if they are shorter; at least one call.
        warmup: calls of each before the first timed one, fewer (but one) where they take longer than `PATIENCE`.
    """
    names = list(calls)
    quick = {name: _warm(calls[name], warmup) < spell for name in names}
    blocks: Blocks = {name: [] for name in names}
    began = time.perf_counter()
    for turn in range(rounds):
        if turn >= LEAST_ROUNDS and time.perf_counter() - began > seconds:
            break
        first = turn % max(len(names), 1)
        for name in names[first:] + names[:first]:
            if quick[name]:
                calls[name]()
            blocks[name].append(_block(calls[name], spell))
    return blocks


def flat(blocks: Sequence[Sequence[float]]) -> list[float]:
    """All calls of all blocks."""
    return [seconds for block in blocks for seconds in block]


def times_faster(blocks: Sequence[Sequence[float]], reference: Sequence[Sequence[float]]) -> float:
    """How many times faster than the reference: the median over rounds of each round's ratio of medians.

    Both were timed within the same rounds, so a slow minute is in both sides of its ratio.
    """
    pairs = zip(blocks, reference, strict=True)
    return float(np.median([np.median(theirs) / np.median(own) for own, theirs in pairs]))


class StageClock:
    """Seconds spent inside chosen modules during a forward pass, waiting for the device at each boundary.

    The waiting makes the whole a little slower than an undisturbed pass: time that separately.
    """

    def __init__(self, stages: Mapping[str, nn.Module], device: torch.device) -> None:
        self.device = device
        self.stages = dict(stages)
        self.seconds: dict[str, float] = {}

    @contextmanager
    def running(self) -> Iterator[StageClock]:
        """Listens to the modules until the block ends; `seconds` then holds each stage's time within it."""
        self.seconds = dict.fromkeys(self.stages, 0.0)
        handles = []
        for name, module in self.stages.items():
            starts: list[float] = []

            def enter(module: nn.Module, inputs: object, starts: list[float] = starts) -> None:
                synchronise(self.device)
                starts.append(time.perf_counter())

            def leave(
                module: nn.Module, inputs: object, output: object, name: str = name, starts: list[float] = starts
            ) -> None:
                synchronise(self.device)
                self.seconds[name] += time.perf_counter() - starts.pop()

            handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()


def synchronise(device: torch.device) -> None:
    """Waits until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def random_crops(batch: int, size: int, device: torch.device) -> torch.Tensor:
    """(batch, 3, size, size) uint8 noise, the same each time: the speed of these networks does not depend on it."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, generator=generator).to(device)


def device_of(model: object) -> torch.device:
    """Where a model's parameters are; the CPU for something without any."""
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device


def machine(device: torch.device) -> dict[str, str | int]:
    """What a timing was taken on."""
    named: dict[str, str | int] = {"cpu": _cpu_name(), "threads": torch.get_num_threads()}
    if device.type == "cuda":
        named["gpu"] = torch.cuda.get_device_name(device)
    versions = {
        "torch": f"torch {torch.__version__}",
        "python": f"Python {platform.python_version()}",
        "system": platform.system(),
    }
    if hasattr(os, "getloadavg"):
        versions["load"] = f"load {os.getloadavg()[0]:.1f}"  # other processes: above the core count, distrust the times
    return named | versions | {"date": datetime.now(UTC).isoformat(timespec="seconds")}


def _warm(call: Callable[[], object], count: int) -> float:
    """Seconds of the last of `count` calls."""
    began = last = time.perf_counter()
    spent = 0.0
    for _ in range(count):
        call()
        now = time.perf_counter()
        spent, last = now - last, now
        if now - began > PATIENCE:
            break
    return spent


def _block(call: Callable[[], object], spell: float) -> list[float]:
    seconds: list[float] = []
    while not seconds or (sum(seconds) < spell and len(seconds) < BLOCK_CALLS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


def _call(model: HandModel, image: torch.Tensor, device: torch.device) -> None:
    model(image)
    synchronise(device)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.machine()
