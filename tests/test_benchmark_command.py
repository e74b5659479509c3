"""Timing is synchronised, warmed up and in turns; costs are exact; the command writes its three tables."""

import csv
import json

import pytest
import torch
from torch import nn

from fasthamer.runtime import benchmark as benchmark_module
from fasthamer.runtime import timing
from fasthamer.runtime.benchmark import COLUMNS, markdown, stage_modules
from fasthamer.runtime.cost import measure
from fasthamer.runtime.timing import StageClock, Timing, interleaved, machine, ms_per_image
from fasthamer.tools import benchmark_fps

CPU = torch.device("cpu")


class Clock:
    """Stands in for `time`: only what is told to take time does."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


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


def test_a_time_budget_ends_after_whole_rounds_of_at_least_three(clock):
    calls = {"a": lambda: clock.sleep(2.0), "b": lambda: clock.sleep(1.0)}
    for seconds, rounds in ((0.0, 3), (11.0, 4), (12.0, 5)):  # a round takes 3 seconds
        times = interleaved(calls, repeats=1000, warmup=0, seconds=seconds)
        assert [len(each) for each in times.values()] == [rounds, rounds]


def test_a_slow_first_call_is_not_in_the_figures(clock):
    calls = []

    def compiles_first():
        calls.append(0)
        clock.sleep(9.0 if len(calls) == 1 else 0.5)

    assert interleaved({"a": compiles_first}, repeats=5, warmup=1)["a"] == [0.5] * 5


def test_speed_is_a_median_not_a_mean_of_rates():
    # Nine calls of 10 ms and one of 100: the median is 10; the mean of 1/dt would be 91 per second, not 100.
    result = Timing.of([0.01] * 9 + [0.1])
    assert result.median_ms == pytest.approx(10)
    assert result.p95_ms > 50


def test_ms_per_image_compares_models(clock):
    result = ms_per_image({"quick": Slow(clock, 0.002), "slow": Slow(clock, 0.02)}, repeats=4)
    assert result == pytest.approx({"quick": 2.0, "slow": 20.0})


def test_stages_are_timed_inside_one_pass_and_the_hooks_leave_no_trace(clock):
    model = nn.Sequential(Slow(clock, 0.01), Slow(clock, 0.03))
    stages = StageClock({"first": model[0], "second": model[1]}, CPU)
    for _ in range(2):  # a second pass does not add to the first
        with stages.running():
            model(torch.zeros(1))
    assert stages.seconds == pytest.approx({"first": 0.01, "second": 0.03})
    assert not model[0]._forward_hooks and not model[0]._forward_pre_hooks


def test_costs_by_hand():
    # 3x3 convolution, 3 -> 4 channels, padding 1, 8x8: 2 * 3 * 9 * 4 * 64 = 13,824 operations an image; 112 parameters.
    # Alive at once in a batch of 2: a layer's input and output, 2*4*64 floats = 2048 B each; parameters: 448 B.
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.ReLU(), nn.ReLU()).eval()
    cost = measure(model, torch.zeros(2, 3, 8, 8))
    assert cost.params_m * 1e6 == pytest.approx(112)
    assert cost.gflops * 1e9 == pytest.approx(13_824)
    assert cost.peak_mb * 1e6 == pytest.approx(448 + 4096)


def test_attention_is_counted_whatever_kernel_runs_it():
    class Attention(nn.Module):
        def forward(self, image):
            tokens = image.reshape(1, 2, 8, 6)  # 2 heads, 8 tokens, width 6
            return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)

    # Scores and mixing: 2 * (2 heads * 8 * 8 * 6) each.
    assert measure(Attention(), torch.zeros(1, 3, 4, 8)).gflops * 1e9 == pytest.approx(2 * 2 * 768)


def test_a_model_without_the_usual_parts_cannot_be_staged():
    with pytest.raises(ValueError, match="normalise, backbone, decoder, hand"):
        stage_modules(nn.Linear(2, 2))


def test_the_machine_is_named():
    about = machine(CPU)
    assert about["threads"] == torch.get_num_threads()
    assert torch.__version__ in about["torch"]
    assert about["cpu"] and about["date"].startswith("20")


def test_the_command_writes_json_csv_and_markdown(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(benchmark_module, "CROP_SIZE", 64)
    arguments = ["--models", "timm:test_resnet,timm:test_vit", "--decoder-size", "tiny", "--batch", "1,2", "--device"]
    code = benchmark_fps.main([*arguments, "cpu", "--stages", "--repeats", "3", "--out", str(tmp_path)])
    assert code == 0
    rows = json.loads((tmp_path / "benchmark.json").read_text())
    assert len(rows) == 2 * 2 * 6  # models, batches, stages
    assert set(COLUMNS) < set(rows[0])
    by = {(row["model"], row["batch"], row["stage"]): row for row in rows}
    first = by["timm:test_resnet", 2, "model"]
    assert first["weights"] == "random" and first["decoder"] == "mano tiny" and first["machine"]["cpu"]
    assert first["ratio_to_teacher"] == 1.0  # no teacher among them: the first is the measure
    assert first["fps"] == pytest.approx(2000 / first["median_ms"], rel=0.01)
    other = by["timm:test_vit", 2, "model"]
    assert other["ratio_to_teacher"] == pytest.approx(first["median_ms"] / other["median_ms"], rel=0.01)
    assert first["gflops"] == by["timm:test_resnet", 1, "model"]["gflops"]  # of one image
    assert all(row["median_ms"] > 0 for row in rows)
    with open(tmp_path / "benchmark.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(rows)
    table = (tmp_path / "benchmark.md").read_text()
    assert "timm:test_resnet (random weights)" in table and str(machine(CPU)["cpu"]) in table
    assert table.strip() in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "mobilenetv9"], "no model named 'mobilenetv9'; did you mean 'mobilenetv3_s'"),
        (["--models", "resnet18,resnet18"], "twice"),
        (["--models", ","], "no model to time"),
        (["--models", "resnet18", "--backends", "onnxruntime"], "only torch"),
        (["--models", "resnet18", "--batch", "0"], "'0' is not a whole number above 0"),
        (["--models", "resnet18", "--device", "toaster"], "toaster"),
        (["--models", "resnet18", "--device", "cpu", "--precision", "fp16"], "needs a GPU"),
        (["--models", "resnet18", "--decoder-size", "tny"], "did you mean 'tiny'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        benchmark_fps.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_busy_machine_is_told_in_the_table():
    row = dict.fromkeys(COLUMNS, 1.0) | {"model": "a", "weights": "trained", "median_ms": 10.0, "p95_ms": 20.0}
    assert "busy" not in markdown([row], {})
    assert "busy: in 1 rows" in markdown([row, row | {"p95_ms": 31.0}], {})
