"""Timing is interleaved, after a warm-up; costs are exact."""

from collections import Counter

import pytest
import torch
from torch import nn

from fasthamer.benchmark.costs import peak_memory, work_of
from fasthamer.benchmark.timing import (
    StageClock,
    Timing,
    flat,
    in_blocks,
    interleaved,
    machine,
    ms_per_image,
    times_faster,
)

CPU = torch.device("cpu")


class Clock:
    """A clock that only `sleep` advances."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


class Slow(nn.Module):
    """Takes a known time."""

    def __init__(self, clock, seconds):
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def forward(self, image):
        self.clock.sleep(self.seconds)
        return image


def test_calls_take_turns_after_their_warm_up():
    order = []
    times = interleaved({name: lambda name=name: order.append(name) for name in "abc"}, repeats=3, warmup=2)
    assert order == list("aabbcc") + list("abc") + list("bca") + list("cab")
    assert {name: len(each) for name, each in times.items()} == {"a": 3, "b": 3, "c": 3}


def test_no_rounds_are_refused():
    with pytest.raises(ValueError, match="0 timed calls: at least one"):
        interleaved({"a": lambda: None}, repeats=0)


def test_a_time_budget_ends_after_whole_rounds_of_at_least_three(clock):
    calls = {"a": lambda: clock.sleep(2.0), "b": lambda: clock.sleep(1.0)}
    for seconds, rounds in ((0.0, 3), (11.0, 4), (12.0, 5)):  # a round takes 3 seconds
        times = interleaved(calls, repeats=1000, warmup=0, seconds=seconds, clock=clock)
        assert [len(each) for each in times.values()] == [rounds, rounds]


def test_blocks_of_calls_take_turns_and_their_first_call_is_not_counted(clock):
    order = []

    def call(name, seconds):
        order.append(name)
        clock.sleep(seconds)

    calls = {"a": lambda: call("a", 0.1), "b": lambda: call("b", 0.4)}
    blocks = in_blocks(calls, rounds=3, block_seconds=0.25, warmup=1, clock=clock)
    # A block is 0.25 s: one uncounted and three counted calls of a; a single one of b, which is longer than a block.
    assert "".join(order) == "ab" + "aaaab" + "baaaa" + "aaaab"
    assert [len(block) for block in blocks["a"]] == [3] * 3 and [len(block) for block in blocks["b"]] == [1] * 3
    assert flat(blocks["b"]) == pytest.approx([0.4] * 3)


def test_slow_calls_are_warmed_up_once_and_quick_blocks_end_after_twenty_calls(clock):
    calls = Counter()

    def call(name, seconds):
        calls[name] += 1
        clock.sleep(seconds)

    blocks = in_blocks({"slow": lambda: call("slow", 5.0), "quick": lambda: call("quick", 1e-4)}, rounds=3, clock=clock)
    assert calls == {"slow": 1 + 3, "quick": 3 + 3 * 21}
    assert [len(block) for block in blocks["quick"]] == [20] * 3


def test_a_ratio_is_taken_within_each_round():
    # The machine is ten times slower in the second round; the model is twice as fast in each, by its block's median.
    own, teacher = [[1.0, 1.0, 9.0], [10.0], [1.0]], [[2.0], [20.0], [2.0]]
    assert times_faster(own, teacher) == pytest.approx(2)


def test_a_slow_first_call_is_not_in_the_figures(clock):
    calls = []

    def compiles_first():
        calls.append(0)
        clock.sleep(9.0 if len(calls) == 1 else 0.5)

    assert interleaved({"a": compiles_first}, repeats=5, warmup=1, clock=clock)["a"] == [0.5] * 5


def test_speed_is_a_median_not_a_mean_of_rates():
    # Nine calls of 10 ms and one of 100: the median is 10; the mean of 1/dt would be 91 per second, not 100.
    result = Timing.of([0.01] * 9 + [0.1])
    assert result.median_ms == pytest.approx(10)
    assert result.p95_ms > 50


def test_ms_per_image_compares_models(clock):
    result = ms_per_image({"quick": Slow(clock, 0.002), "slow": Slow(clock, 0.02)}, repeats=4, clock=clock)
    assert result == pytest.approx({"quick": 2.0, "slow": 20.0})


def test_stages_are_timed_inside_one_pass_and_the_hooks_leave_no_trace(clock):
    model = nn.Sequential(Slow(clock, 0.01), Slow(clock, 0.03))
    stages = StageClock({"first": model[0], "second": model[1]}, CPU, clock)
    for _ in range(2):  # a second pass does not add to the first
        with stages.running():
            model(torch.zeros(1))
    assert stages.seconds == pytest.approx({"first": 0.01, "second": 0.03})
    assert not model[0]._forward_hooks and not model[0]._forward_pre_hooks


def test_costs_by_hand():
    # 3x3 convolution, 3 -> 4 channels, padding 1, 8x8: 2 * 3 * 9 * 4 * 64 = 13,824 operations an image; 112 parameters.
    # Alive at once in a batch of 2: a layer's input and output, 2*4*64 floats = 2048 B each; parameters: 448 B.
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.ReLU(), nn.ReLU()).eval()
    image = torch.zeros(2, 3, 8, 8)
    work = work_of({"whole": model, "first": model[0], "second": model[1]}, model, image)
    assert {name: each.gflops * 1e9 for name, each in work.items()} == {"whole": 13_824, "first": 13_824, "second": 0}
    assert work["whole"].weights_mb * 1e6 == pytest.approx(448) and work["second"].weights_mb == 0
    assert peak_memory(model, image) == 448 + 4096
    assert not model[0]._forward_hooks and not model[0]._forward_pre_hooks


def test_attention_is_counted_whatever_kernel_runs_it():
    class Attention(nn.Module):
        def forward(self, image):
            tokens = image.reshape(1, 2, 8, 6)  # 2 heads, 8 tokens, width 6
            return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)

    # Scores and mixing: 2 * (2 heads * 8 * 8 * 6) each.
    attention = Attention()
    work = work_of({"it": attention}, attention, torch.zeros(1, 3, 4, 8))["it"]
    assert work.gflops * 1e9 == pytest.approx(2 * 2 * 768)


def test_the_machine_is_named():
    about = machine(CPU)
    assert about["threads"] == torch.get_num_threads()
    assert torch.__version__ in about["torch"]
    assert about["cpu"] and about["date"].startswith("20")
