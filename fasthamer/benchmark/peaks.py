"""The machine's peak rates, measured beside the models: matrix products and reading from memory.

A model's time is compared with two lower bounds. *Arithmetic*: its operations at the best rate of a square matrix
product in the same precision on the same threads, or in fp32 where that is faster. *Weights*: reading every weight
once at the rate of a matrix-vector product whose matrix has as many bytes (small weights stay in caches and are read
faster).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fasthamer.benchmark.timing import Clock, interleaved, synchronise

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}  # of one weight
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.int8}
SIDES = {"cpu": (512, 1024, 2048), "cuda": (4096, 8192)}  # of the square matrices; the fastest size counts
READ_MB = (8, 64, 512)  # 1e6 bytes of the matrices in the matrix-vector products
_ROW = 1000  # float32 numbers
_TRIES = 3
_LONG = 0.1  # seconds of a product after which no larger one is tried

Probe = tuple[str, str | int]  # ("product", precision) or ("read", megabytes)


class Peaks(NamedTuple):
    """Peak rates of one machine with one number of threads."""

    gflops: dict[str, float]  # 1e9 operations a second, 2 per multiply-add, by precision
    read_gbs: dict[int, float]  # 1e9 bytes a second, by the megabytes that are read repeatedly

    def bandwidth(self, megabytes: float) -> float:
        """1e9 bytes a second for weights of this size: interpolated over the logarithm of the measured sizes."""
        sizes = sorted(self.read_gbs)
        rates = [self.read_gbs[size] for size in sizes]
        return float(np.interp(np.log(max(megabytes, 1e-3)), np.log(sizes), rates))

    def bound(self, milliseconds: float, gflops: float, weights_mb: float, precision: str) -> Bound:
        """Lower bounds of a pass and what takes most of its time.

        Args:
            milliseconds: of the pass.
            gflops: 1e9 operations of the pass, of the whole batch.
            weights_mb: 1e6 bytes of weights that it reads.
            precision: a key of `gflops`.
        """
        arithmetic = 1000 * gflops / self.gflops[precision]
        weights = weights_mb / self.bandwidth(weights_mb)
        overhead = milliseconds - max(arithmetic, weights)
        parts = {"arithmetic": arithmetic, "weights": weights, "overhead": overhead}
        return Bound(arithmetic, weights, arithmetic / milliseconds, max(parts, key=parts.__getitem__))


class Bound(NamedTuple):
    """Lower bounds of one pass.

    Arithmetic and reading can overlap, so the overhead is the time minus the larger of the two: starting kernels,
    kernels that run below the peak (depthwise convolutions, normalisation), reading and writing activations. `bound`
    names the largest of arithmetic, weights and overhead.
    """

    arithmetic_ms: float
    weights_ms: float
    peak_fraction: float  # achieved share of the peak rate of matrix products
    bound: str


class PeakProbes:
    """Calls that measure the peaks, to be timed interleaved with the models.

    Args:
        device: of the matrices.
        precisions: keys of `BYTES`; one product is measured for each.
        sides: of the square matrices; the one with the highest rate is used. Empty: `SIDES` of the device.
        read_mb: 1e6 bytes of the matrices that are read. Empty: `READ_MB`.
        clock: seconds.
    """

    def __init__(
        self,
        device: torch.device,
        precisions: Iterable[str],
        sides: Sequence[int] = (),
        read_mb: Sequence[int] = (),
        clock: Clock = time.perf_counter,
    ) -> None:
        self._operations: dict[Probe, float] = {}
        self.calls: dict[Probe, Callable[[], object]] = {}
        for precision in dict.fromkeys(precisions):
            call, operations = _best_product(device, precision, sides or SIDES.get(device.type, SIDES["cpu"]), clock)
            self._add(("product", precision), call, operations)
        vector = torch.randn(_ROW, 1, device=device)
        for size in read_mb or READ_MB:
            matrix = torch.randn(size * 1_000_000 // (4 * _ROW), _ROW, device=device)
            self._add(("read", size), _synchronised(torch.matmul, matrix, vector, device), matrix.numel() * 4)

    def _add(self, probe: Probe, call: Callable[[], object], work: float) -> None:
        self.calls[probe], self._operations[probe] = call, work

    def peaks(self, blocks: Mapping[Probe, Sequence[Sequence[float]]]) -> Peaks:
        """From the times of `calls`: the best call of each block, the median over blocks."""
        rates = {
            probe: work / float(np.median([min(block) for block in blocks[probe]])) / 1e9
            for probe, work in self._operations.items()
        }
        products = {str(key): rate for (kind, key), rate in rates.items() if kind == "product"}
        return Peaks(products, {int(key): rate for (kind, key), rate in rates.items() if kind == "read"})


def _best_product(
    device: torch.device, precision: str, sides: Sequence[int], clock: Clock
) -> tuple[Callable[[], object], float]:
    """The square product with the highest rate, and its number of operations.

    Processors without arithmetic in a precision emulate it (with fp16 numbers, a side of 2048 takes minutes), and
    programs for them compute in fp32: it competes.
    """
    calls: dict[tuple[torch.dtype, int], Callable[[], object]] = {}
    for dtype in dict.fromkeys((_DTYPES[precision], torch.float32)):
        product = torch._int_mm if dtype == torch.int8 else torch.matmul
        for side in sorted(sides):
            left, right = (_numbers(side, dtype, device) for _ in range(2))
            call = calls[dtype, side] = _synchronised(product, left, right, device)
            if min(interleaved({side: call}, 1, warmup=1, clock=clock)[side]) > _LONG:
                break
    times = interleaved(calls, _TRIES, warmup=1, clock=clock)
    best = max(calls, key=lambda key: key[1] ** 3 / min(times[key]))
    return calls[best], 2.0 * best[1] ** 3


def _numbers(side: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    if dtype == torch.int8:
        return torch.randint(-99, 99, (side, side), dtype=dtype, device=device)
    return torch.randn(side, side, device=device).to(dtype)


def _synchronised(product: Callable, left: Tensor, right: Tensor, device: torch.device) -> Callable[[], object]:
    def call() -> None:
        product(left, right)
        synchronise(device)

    return call
