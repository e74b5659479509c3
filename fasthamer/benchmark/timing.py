"""Comparable timing: with warm-up and synchronisation, the compared calls interleaved.

Clock speed, caches and other processes drift. Interleaved calls share the drift, so their ratios are reliable even when
the milliseconds are not. Speeds are computed from median times: the mean of 1/dt overstates them.
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

Key = TypeVar("Key", bound=Hashable)
Blocks = dict[Key, list[list[float]]]  # seconds of each call, by block
Clock = Callable[[], float]  # seconds since any fixed moment

WARMUP_SECONDS = 1.0  # a warm-up that has taken this long ends
LEAST_ROUNDS = 3
BLOCK_CALLS = 20  # at most, in one block


class Timing(NamedTuple):
    """Time of one call in milliseconds."""

    median_ms: float
    p95_ms: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        median, p95 = np.percentile(seconds, [50, 95])
        return cls(1000 * float(median), 1000 * float(p95))


def ms_per_image(
    models: Mapping[str, HandModel], size: int = 256, repeats: int = 30, clock: Clock = time.perf_counter
) -> dict[str, float]:
    """Median milliseconds of each model for one crop (batch 1) on its device, measured interleaved.

    Args:
        models: in eval mode, by name.
        size: pixels of the crop.
        repeats: timed calls of each.
        clock: seconds.
    """
    calls = {}
    for name, model in models.items():
        device = device_of(model)
        image = random_crops(1, size, device)
        calls[name] = lambda model=model, image=image, device=device: _call(model, image, device)
    with torch.no_grad():
        times = interleaved(calls, repeats, clock=clock)
    return {name: Timing.of(each).median_ms for name, each in times.items()}


def interleaved(
    calls: Mapping[Key, Callable[[], object]],
    repeats: int,
    warmup: int = 3,
    seconds: float = float("inf"),
    clock: Clock = time.perf_counter,
) -> dict[Key, list[float]]:
    """Seconds of every call; `in_blocks` with one call in each block."""
    blocks = in_blocks(calls, repeats, seconds, block_seconds=0.0, warmup=warmup, clock=clock)
    return {name: flat(each) for name, each in blocks.items()}


def in_blocks(
    calls: Mapping[Key, Callable[[], object]],
    rounds: int,
    seconds: float = float("inf"),
    block_seconds: float = 0.25,
    warmup: int = 3,
    clock: Clock = time.perf_counter,
) -> Blocks:
    """Seconds of every call. A round times one block of consecutive calls of each; the first one rotates.

    Within a block the weights stay in the caches as far as they fit, as when a model processes a video. Interleaving
    the blocks spreads slow periods of the machine over all calls alike. The first call of a block finds the other
    models' data in the caches and is not counted, unless a single call is longer than a block.

    Args:
        calls: each must return only when its work is done (`synchronise`).
        rounds: blocks of each call.
        seconds: stop after the round in which this time is exceeded, but not before `LEAST_ROUNDS`.
        block_seconds: length of a block; it ends earlier after `BLOCK_CALLS` calls, and holds at least one.
        warmup: untimed calls of each at the start; none begins after `WARMUP_SECONDS`.
        clock: seconds.

    Raises:
        ValueError: no rounds, or fewer.
    """
    if rounds < 1:
        raise ValueError(f"{rounds} timed calls: at least one is needed")
    names = list(calls)
    quick = {name: _warm_up(calls[name], warmup, clock) < block_seconds for name in names}
    blocks: Blocks = {name: [] for name in names}
    began = clock()
    for turn in range(rounds):
        if turn >= LEAST_ROUNDS and clock() - began > seconds:
            break
        first = turn % max(len(names), 1)
        for name in names[first:] + names[:first]:
            if quick[name]:
                calls[name]()
            blocks[name].append(_block(calls[name], block_seconds, clock))
    return blocks


def flat(blocks: Sequence[Sequence[float]]) -> list[float]:
    """All calls of all blocks."""
    return [seconds for block in blocks for seconds in block]


def times_faster(blocks: Sequence[Sequence[float]], reference: Sequence[Sequence[float]]) -> float:
    """How many times faster than the reference: the median over rounds of each round's ratio of medians.

    Both were timed in the same rounds, so a slow period of the machine affects both sides of its ratio.
    """
    pairs = zip(blocks, reference, strict=True)
    return float(np.median([np.median(theirs) / np.median(own) for own, theirs in pairs]))


class StageClock:
    """Seconds spent inside chosen modules during a forward pass.

    The device is synchronised at each boundary, which makes the pass a little slower: time the whole separately.
    """

    def __init__(self, stages: Mapping[str, nn.Module], device: torch.device, clock: Clock = time.perf_counter) -> None:
        self.device, self.clock = device, clock
        self.stages = dict(stages)
        self.seconds: dict[str, float] = {}

    @contextmanager
    def running(self) -> Iterator[StageClock]:
        """Times the modules inside the `with` block; `seconds` then holds the total of each stage."""
        self.seconds = dict.fromkeys(self.stages, 0.0)
        handles = []
        for name, module in self.stages.items():
            starts: list[float] = []

            def enter(module: nn.Module, inputs: object, starts: list[float] = starts) -> None:
                synchronise(self.device)
                starts.append(self.clock())

            def leave(
                module: nn.Module, inputs: object, output: object, name: str = name, starts: list[float] = starts
            ) -> None:
                synchronise(self.device)
                self.seconds[name] += self.clock() - starts.pop()

            handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()


def synchronise(device: torch.device) -> None:
    """Waits until all work queued on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def random_crops(batch: int, size: int, device: torch.device) -> torch.Tensor:
    """(batch, 3, size, size) uint8 noise, the same each time: the content does not affect the speed."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, generator=generator).to(device)


def device_of(model: object) -> torch.device:
    """The device of a model's parameters; the CPU if it has none."""
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device


def machine(device: torch.device) -> dict[str, str | int]:
    """Hardware, versions, load and date, to be stored with a timing."""
    named: dict[str, str | int] = {"cpu": _cpu_name(), "threads": torch.get_num_threads()}
    if device.type == "cuda":
        named["gpu"] = torch.cuda.get_device_name(device)
    versions = {
        "torch": f"torch {torch.__version__}",
        "python": f"Python {platform.python_version()}",
        "system": platform.system(),
    }
    if hasattr(os, "getloadavg"):
        versions["load"] = f"load {os.getloadavg()[0]:.1f}"  # above the number of cores, times are unreliable
    return named | versions | {"date": datetime.now(UTC).isoformat(timespec="seconds")}


def _warm_up(call: Callable[[], object], count: int, clock: Clock) -> float:
    """Seconds of the last of `count` calls."""
    began = last = clock()
    spent = 0.0
    for _ in range(count):
        call()
        now = clock()
        spent, last = now - last, now
        if now - began > WARMUP_SECONDS:
            break
    return spent


def _block(call: Callable[[], object], block_seconds: float, clock: Clock) -> list[float]:
    seconds: list[float] = []
    while not seconds or (sum(seconds) < block_seconds and len(seconds) < BLOCK_CALLS):
        start = clock()
        call()
        seconds.append(clock() - start)
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
