"""The benchmark's loop: each backend times the network that it runs, and a batch that does not fit is a note."""

import pytest
import torch

from fasthamer.benchmark.group import Setting
from fasthamer.benchmark.passes import PARTS
from fasthamer.benchmark.run import BenchmarkModel, benchmark
from fasthamer.hand.mano import load_hand
from fasthamer.students import build_student

CPU = torch.device("cpu")
QUICK = {"threads": 1, "rounds": 3, "seconds": 0.01, "peak_sides": (64,), "peak_mb": (1, 2)}


@pytest.fixture(autouse=True)
def threads():
    """Sessions set the number of threads of torch."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def setting(**changed):
    return Setting(CPU, **{**QUICK, "stages": ("model",), "must": ("torch", "fp32"), **changed})


def student(name="small", largest=100):
    """A student whose training graph fits into memory with at most `largest` images."""

    def check(module, inputs):
        if len(inputs[0]) > largest:
            raise torch.OutOfMemoryError(f"no memory for {len(inputs[0])} images\nin detail")

    def build():
        model = build_student("timm:test_resnet", "flat", "tiny", image_size=64, hand=load_hand("embedded"))
        model.register_forward_pre_hook(check)
        return model.eval().requires_grad_(False)

    return BenchmarkModel(name, "flat tiny", "random", build)


def found(report):
    return [(row["model"], row["backend"], row["batch"]) for row in report.rows]


def test_parts_and_memory_of_the_folded_graph_are_those_of_its_precision():
    asked = {"backends": ("torch", "folded"), "precisions": ("fp32", "bf16"), "stages": (*PARTS, "model")}
    report = benchmark([student()], setting(**asked), "small")
    rows = {(row["backend"], row["precision"], row["stage"]): row for row in report.rows}
    assert len(rows) == 4 * 4 and all(row["median_ms"] > 0 for row in rows.values())
    half, full = (rows["folded", precision, "model"]["peak_mb"] for precision in ("bf16", "fp32"))
    assert half < 0.9 * full  # the hand layer stays in fp32


def test_a_batch_that_does_not_fit_is_a_note_and_the_others_are_kept():
    kept = []
    two = [student("big", largest=2), student("small")]
    report = benchmark(two, setting(batches=(1, 4)), "big", keep=lambda report: kept.append(found(report)))
    rows = [("big", "torch", 1), ("small", "torch", 1), ("small", "torch", 4)]
    assert found(report) == rows and kept == [rows[:1], rows[:1], rows[:2], rows]  # after each batch
    assert list(map(str, report.left_out)) == ["big flat tiny, torch fp32 batch 4: no memory for 4 images"]
    ratios = {(row["model"], row["batch"]): row["ratio_to_teacher"] for row in report.rows}
    assert ratios["big", 1] == 1.0 and ratios["small", 1] > 0
    assert ratios["small", 4] is None  # nothing to compare with


def test_a_smaller_batch_may_follow_one_that_does_not_fit():
    report = benchmark([student(largest=2)], setting(batches=(4, 1)), "small")
    assert found(report) == [("small", "torch", 1)]
    assert [note.setting for note in report.left_out] == ["torch fp32 batch 4"]


def test_the_first_model_must_fit_with_some_batch():
    with pytest.raises(ValueError, match=r"fp32 cannot be timed here; .* torch fp32 batch 4: no memory for 4 images"):
        benchmark([student(largest=2)], setting(batches=(4, 8)), "small")


def test_a_backend_that_does_not_fit_leaves_the_others():
    asked = setting(batches=(1, 4), backends=("torch", "folded"))
    report = benchmark([student(largest=2)], asked, "small")
    assert found(report) == [("small", "torch", 1), ("small", "folded", 1), ("small", "folded", 4)]
    assert report.rows[-1]["ratio_to_teacher"] is None and report.rows[-1]["peak_mb"] > 0
