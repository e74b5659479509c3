"""The machine's peaks and the lower bounds that follow from them, worked by hand."""

import pytest
import torch
from torch.overrides import TorchFunctionMode

from fasthamer.benchmark.peaks import BYTES, PeakProbes, Peaks
from fasthamer.benchmark.timing import in_blocks

PEAKS = Peaks({"fp32": 100.0, "int8": 400.0}, {10: 40.0, 1000: 10.0})


def test_weights_between_two_measured_sizes_are_read_at_a_rate_between_theirs():
    # 100 MB is halfway from 10 to 1000 by its logarithm: (40 + 10) / 2; outside, the nearest measured rate.
    assert PEAKS.bandwidth(100) == pytest.approx(25)
    assert PEAKS.bandwidth(1) == 40 and PEAKS.bandwidth(9000) == 10


@pytest.mark.parametrize(
    ("milliseconds", "gflops", "weights_mb", "precision", "expected"),
    [
        # 5 GFLOP at 100 GFLOP/s are 50 ms; 10 MB at 40 GB/s are 0.25 ms; 80 - 50 = 30 ms remain.
        (80, 5, 10, "fp32", (50, 0.25, 50 / 80, "arithmetic")),
        (120, 5, 10, "fp32", (50, 0.25, 50 / 120, "overhead")),  # 70 ms remain
        (30, 5, 10, "int8", (12.5, 0.25, 12.5 / 30, "overhead")),  # four times the peak; 17.5 ms remain
        (150, 1, 1000, "fp32", (10, 100, 10 / 150, "weights")),  # 1 GB at 10 GB/s; 50 ms remain
    ],
)
def test_a_pass_is_bound_by_its_largest_part(milliseconds, gflops, weights_mb, precision, expected):
    bound = PEAKS.bound(milliseconds, gflops, weights_mb, precision)
    assert tuple(bound)[:3] == pytest.approx(expected[:3])
    assert bound.bound == expected[3]


def test_a_peak_is_the_best_of_each_block_and_the_median_over_rounds():
    probes = PeakProbes(torch.device("cpu"), ["fp32"], sides=(100,), read_mb=(4,))
    assert set(probes.calls) == {("product", "fp32"), ("read", 4)}
    measured = probes.peaks({("product", "fp32"): [[0.5, 0.1], [0.2, 0.9], [0.4]], ("read", 4): [[0.004]]})
    assert measured.gflops["fp32"] * 1e9 == pytest.approx(2 * 100**3 / 0.2)  # of 0.1, 0.2, 0.4
    assert measured.read_gbs[4] == pytest.approx(0.004 / 0.004)  # 4e6 bytes in 4 ms


class SlowInFp16(TorchFunctionMode):
    """A processor with its clock: 10 us a product, and a nanosecond an operation in fp32, `fp16` seconds in fp16."""

    def __init__(self, fp16: float) -> None:
        super().__init__()
        self.fp16, self.now, self.products = fp16, 0.0, []

    def __torch_function__(self, function, types, arguments=(), options=None):
        if function is not torch.matmul:
            return function(*arguments, **(options or {}))
        left = arguments[0]
        self.products.append((left.dtype, len(left)))
        self.now += 1e-5 + 2 * len(left) ** 3 * (self.fp16 if left.dtype == torch.float16 else 1e-9)


@pytest.mark.parametrize(("fp16", "fastest", "tried"), [(0.5e-9, torch.float16, {48, 64}), (1e-6, torch.float32, {48})])
def test_an_emulated_precision_has_the_peak_of_fp32_and_no_long_product_is_tried(fp16, fastest, tried):
    with SlowInFp16(fp16) as processor:
        probes = PeakProbes(torch.device("cpu"), ["fp16"], (64, 48), (1,), clock=lambda: processor.now)
        assert {side for dtype, side in processor.products if dtype == torch.float16} == tried  # emulated, 48: 0.2 s
        probes.calls["product", "fp16"]()
        assert processor.products[-1] == (fastest, 64)
    assert probes.peaks({("product", "fp16"): [[1.0]], ("read", 1): [[1.0]]}).gflops["fp16"] * 1e9 == 2 * 64**3


def test_every_precision_has_a_product_that_runs():
    probes = PeakProbes(torch.device("cpu"), BYTES, sides=(64, 128), read_mb=(1,))
    measured = probes.peaks(in_blocks(probes.calls, 3, block_seconds=0.0))
    assert set(measured.gflops) == {"fp32", "bf16", "fp16", "int8"}
    assert all(rate > 0 for rate in measured.gflops.values()) and measured.read_gbs[1] > 0
