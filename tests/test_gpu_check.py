"""tools/assets/gpu_check.py as far as a CPU goes: every part on small models, the time limits, the page."""

from __future__ import annotations

import math

import pytest
import torch

from fasthamer.distill.training_speed import Row
from fasthamer.tools.assets import gpu_check
from fasthamer.tools.assets.gpu import parts
from fasthamer.tools.assets.gpu.page import page
from fasthamer.tools.assets.gpu.parts import PARTS, Plan
from fasthamer.tools.assets.gpu.record import Check, LeftOut, Speed, Training, as_json, from_json

SETTINGS = {"torch": ("fp32", "tf32", "bf16", "fp16"), "folded": ("fp32",), "cudagraphs": ("fp32",)}
PRECISIONS_OF_A_CPU = (("torch", "fp32"), ("torch", "tf32"), ("torch", "bf16"), ("folded", "fp32"))
TINY = Plan("cpu", tiny=True, batches=(1, 2), seconds=0.01, settings=SETTINGS)


def measured(name, plan=TINY):
    records = []
    PARTS[name].measure(plan, records.append)
    return records


@pytest.mark.parametrize("name", ["students", "hamer", "convnext_l"])
def test_models_are_compared_with_the_cpu_and_timed(name):
    batches = (2,) if name == "students" else (1, 2)
    records = measured(name, TINY._replace(batches=batches))
    rows = {(row.backend, row.precision, row.batch): row for row in records if isinstance(row, Speed)}
    models = {row.model for row in records if isinstance(row, Speed)}
    assert set(rows) == {(each, kind, batch) for batch in batches for each, kind in PRECISIONS_OF_A_CPU}
    assert len(models) == (2 if name == "students" else 1)
    assert rows["torch", "fp32", 2].apart_mm == pytest.approx(0, abs=1e-3)
    assert 1e-3 < rows["torch", "bf16", 2].apart_mm < 30
    assert all(row.fits for row in rows.values())
    reasons = {row.reason for row in records if isinstance(row, LeftOut)}
    assert any("fp16 needs a GPU" in reason for reason in reasons)
    assert any("cudagraphs needs a CUDA device" in reason for reason in reasons)


def test_nothing_is_begun_when_no_time_is_left():
    records = measured("hamer", TINY._replace(left=lambda: 0.0))
    assert len(records) == 12
    assert {record.reason for record in records} == {"no time was left"}


def test_training_is_compared_with_the_naive_loop():
    rows = [record.row for record in measured("training")]
    assert [row.loop for row in rows] == ["naive", "once", "once_bf16"]
    assert rows[0].ratio == 1.0
    assert all(row.mode == "hybrid" for row in rows)


def test_detector_and_whole_images_agree_with_the_cpu():
    records = measured("detector")
    assert len(records) == 4
    assert all(record.value == 0 for record in records), "both are the CPU"


def test_a_short_run_is_resumed_and_scored():
    (record,) = measured("runs")
    assert record.fits and 0 < record.value < 100


def test_tf32_is_put_back():
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    with parts.tf32(True):
        assert torch.backends.cuda.matmul.allow_tf32 and torch.backends.cudnn.allow_tf32
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before


def test_a_part_gets_what_earlier_ones_leave_and_none_is_begun_with_little():
    given = []

    def measure(name, seconds):
        given.append((name, seconds))
        return [Check(name, 1.0, 2.0, "mm")]

    times = iter([300.0, 50.0, 14.0])
    records = gpu_check.check(["students", "hamer", "training"], measure, 360.0, lambda: next(times))
    assert given == [("students", 360 * PARTS["students"].share), ("hamer", 50.0)]
    assert records[-1] == LeftOut("part training", "no time was left")
    assert records[-1].fits, "it is no failure"


def test_a_part_that_takes_too_long_or_fails_is_reported():
    (late,) = gpu_check.in_process("detector", "cpu", True, 0.2)
    assert late == LeftOut("the rest of part detector", "it took more than 0 s") and late.fits
    (failed,) = gpu_check.in_process("detector", "cuda:99", True, 900)
    assert not failed.fits and "device 'cuda:99' cannot be used here" in failed.reason


def test_the_command_writes_the_page(tmp_path, capsys):
    out = tmp_path / "gpu.md"
    given = ["--device", "cpu", "--tiny", "--parts", "detector", "--minutes", "60", "--out", str(out)]
    assert gpu_check.main(given) == 0
    text = out.read_text(encoding="utf-8")
    assert f"    python tools/assets/gpu_check.py {' '.join(given)}\n" in text
    assert "| full detector's landmarks, " in text and "No result is wrong." in text
    assert "- torch: torch " in text
    assert "4 results, 0 wrong" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "cuda:99"], "device 'cuda:99' cannot be used here"),
        (["--device", "cpu", "--parts", "hammer"], "no part named 'hammer'; did you mean 'hamer'"),
        (["--device", "cpu", "--minutes", "0"], "--minutes 0.0: expected a number above 0"),
    ],
)
def test_a_users_mistake_is_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as refused:
        gpu_check.main(arguments)
    assert refused.value.code == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


def test_the_page_marks_what_is_wrong_and_gives_ratios():
    records = [
        Speed("student", "folded", "bf16", 4, 2.0, 2.5, math.nan, 30.0),
        Speed("student", "torch", "fp32", 4, 8.0, 9.0, 0.01, 0.1),
        Training(8, Row("hybrid", "naive", 250.0, 260.0, 32.0, 1.0, 0.0)),
        Check("landmarks", 0.2, 1.0, "pixels"),
        LeftOut("part runs", "no time was left"),
        LeftOut("part compiled", "RuntimeError: no", is_failure=True),
    ]
    assert [from_json(as_json(record)) for record in records[1:]] == records[1:]
    text = page(records, {"gpu": "a card", "driver": ""}, "python tools/assets/gpu_check.py")
    lines = text.splitlines()
    assert "**2 of 6 results are wrong**" in text
    assert "- gpu: a card" in lines and "- driver: " not in lines
    assert "| student | 4 | torch | fp32 | 8.00 | 9.00 | 500 | 1.00 | 0.01 | 0.1 |  |" in lines
    assert "| student | 4 | folded | bf16 | 2.00 | 2.50 | 2000 | 4.00 | nan | 30 | **wrong** |" in lines
    assert "Batch 8; steps a second: naive 4.0." in text
    assert "| landmarks | 0.2 pixels | 1 |  |" in lines
    assert "- part runs: no time was left" in lines
    assert "- part compiled: RuntimeError: no **failed**" in lines
