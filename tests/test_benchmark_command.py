"""benchmark_fps: rows of all settings, notes of those that fail, tables and chart."""

import csv
import json

import cv2
import pytest
import torch

from fasthamer.benchmark import report as benchmark_report
from fasthamer.benchmark.group import COLUMNS, Setting
from fasthamer.benchmark.heads import Map, benchmark_heads
from fasthamer.benchmark.peaks import Peaks
from fasthamer.benchmark.run import LeftOut, Report
from fasthamer.benchmark.timing import machine
from fasthamer.hand.mano import load_hand
from fasthamer.students import build_student, save_student
from fasthamer.tools import benchmark_fps

CPU = torch.device("cpu")
QUICK = [
    "--device",
    "cpu",
    "--rounds",
    "3",
    "--seconds",
    "0.01",
    "--threads",
    "1",
    "--peak-sides",
    "64",
    "--peak-mb",
    "1,2",
]
SMALL = ["--models", "timm:test_resnet", "--decoder-size", "tiny"]


@pytest.fixture(autouse=True)
def threads():
    """The command sets the number of threads of torch."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def scores(folder, millimetres):
    folder.mkdir()
    (folder / "scores.json").write_text(json.dumps({"pa_mpjpe_mm": millimetres}))
    return folder


def test_the_command_writes_json_csv_markdown_and_the_chart(tmp_path, capsys):
    student = build_student("timm:test_resnet", "flat", "tiny", image_size=64, hand=load_hand("embedded")).eval()
    save_student(tmp_path / "mine.safetensors", student, {})
    mine = str(tmp_path / "mine.safetensors")
    models = ["--models", f"timm:test_vit,{mine}", "--decoder-size", "tiny", "--backends", "torch,folded"]
    given = [f"{mine}={scores(tmp_path / 'scores', 7.5)}", f"timm:test_vit={scores(tmp_path / 'more', 9.0)}"]
    out = tmp_path / "out"
    command = [*models, "--batch", "1,2", "--stages", *QUICK, "--scores", *given, "--out", str(out)]
    assert benchmark_fps.main(command) == 0
    rows = json.loads((out / "benchmark.json").read_text())
    assert len(rows) == 2 * (2 + 2 * 2 * 6)  # batches; decode and crop, then models, backends, stages
    assert set(COLUMNS) < set(rows[0])
    by = {(row["model"], row["backend"], row["batch"], row["stage"]): row for row in rows}
    vit, own = by["timm:test_vit", "torch", 2, "model"], by[mine, "folded", 2, "model"]
    assert vit["weights"] == "random" and vit["decoder"] == "mano tiny" and vit["machine"]["cpu"]
    assert own["weights"] == "trained" and own["decoder"] == "flat tiny"
    assert vit["ratio_to_teacher"] == 1.0 and own["ratio_to_teacher"] > 0  # no teacher: ratios are to the first model
    assert by[mine, "torch", 1, "model"]["ratio_to_eager"] == 1.0
    assert own["fps"] == pytest.approx(2000 / own["median_ms"], rel=0.01)
    assert own["gflops"] == by[mine, "folded", 1, "model"]["gflops"]  # of one image
    parameters = sum(parameter.numel() for parameter in student.parameters())
    assert own["params_m"] == pytest.approx(parameters / 1e6, rel=1e-3)
    assert by[mine, "torch", 1, "model"]["file_mb"] == pytest.approx(
        (tmp_path / "mine.safetensors").stat().st_size / 1e6, 0.2
    )
    assert all(row["median_ms"] > 0 and row["p95_ms"] >= row["median_ms"] for row in rows)
    with open(out / "benchmark.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(rows)
    table = (out / "benchmark.md").read_text()
    assert "timm:test_vit (random weights)" in table and f"{mine} |" in table and str(machine(CPU)["cpu"]) in table
    assert "python tools/benchmark_fps.py --models" in table and "tradeoff.png" in table
    assert table.strip() in capsys.readouterr().out
    assert cv2.imread(str(out / "tradeoff.png")) is not None


def test_settings_that_fail_are_noted_and_the_rest_is_timed(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    asked = ["--backends", "torch,onnxruntime", "--precision", "fp32,bf16"]
    assert benchmark_fps.main([*SMALL, *asked, *QUICK, "--stages", "backbone,model", "--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "benchmark.json").read_text())
    found = [(row["backend"], row["precision"], row["stage"]) for row in rows]
    in_torch = [("torch", precision, stage) for precision in ("fp32", "bf16") for stage in ("backbone", "model")]
    assert found == [*in_torch, ("onnxruntime", "fp32", "model")]
    eager, half, exported = (row for row in rows if row["stage"] == "model")
    assert exported["ratio_to_eager"] > 0 and exported["gflops"] < eager["gflops"]  # it is the folded graph
    assert half["peak_mb"] is None and exported["peak_mb"] > exported["file_mb"] > 0  # it includes the file's weights
    assert "- all models: onnxruntime bf16: " in (tmp_path / "benchmark.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "mobilenetv9"], "no model named 'mobilenetv9'; did you mean 'mobilenetv3_s'"),
        (["--models", "resnet18,resnet18"], "twice"),
        (["--models", ","], "no model to time"),
        (["--models", "resnet18", "--backends", "onnx"], "no backend named 'onnx'; did you mean 'onnxruntime'"),
        (["--models", "resnet18", "--precision", "fp23"], "did you mean 'fp32'"),
        (["--models", "resnet18", "--stages", "heads"], "did you mean 'head'"),
        (["--models", "resnet18", "--batch", "0"], "'0' is not a whole number above 0"),
        (["--models", "resnet18", "--device", "toaster"], "toaster"),
        (["--models", "resnet18", "--peak-mb", "big"], "'big' is not a whole number above 0"),
        (["--models", "resnet18", "--decoder-size", "tny"], "did you mean 'tiny'"),
        (["--models", "resnet18", "--decoder", "manno"], "did you mean 'mano'"),
        (["--models", "resnet18", "--scores", "resnet18=nowhere"], "no scores nowhere"),
        (["--models", "resnet18", "--batch", "8", "--scores", "resnet18={scores}"], "with --batch 1"),
        ([*SMALL, "--precision", "fp16"], "fp16 cannot be timed here"),
        ([*SMALL, "--backends", "torch,cudagraphs"], "cudagraphs cannot be timed here"),
        ([*SMALL, "--seconds", "-1"], "above 0"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(arguments, message, capsys, tmp_path):
    if arguments[-1].endswith("{scores}"):
        arguments = [*arguments[:-1], f"resnet18={scores(tmp_path / 'scores', 7.0)}"]
    device = [] if "--device" in arguments else ["--device", "cpu"]
    with pytest.raises(SystemExit) as stop:
        benchmark_fps.main([*arguments, *device, "--out", str(tmp_path / "out")])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize("what", [SMALL, ["--head"]])
def test_a_folder_that_cannot_be_written_is_one_line_before_anything_is_timed(what, capsys, tmp_path):
    (tmp_path / "file").touch()
    assert benchmark_fps.main([*what, *QUICK, "--out", str(tmp_path / "file" / "out")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("benchmark_fps: ") and str(tmp_path / "file") in lines[0]


def test_decoders_alone_are_timed_and_agree():
    setting = Setting(CPU, batches=(1, 2), rounds=3, seconds=0.01)
    rows = benchmark_heads(setting, "tiny", [Map("head on 6 tokens x 32", 32, (2, 3), True)])
    assert [(row["backend"], row["batch"]) for row in rows] == [
        ("torch", 1),
        ("folded", 1),
        ("torch", 2),
        ("folded", 2),
    ]
    assert all(0 < row["relative_error"] < 1e-5 for row in rows if row["backend"] == "folded")
    assert rows[0]["ratio_to_eager"] == 1.0 and rows[1]["ratio_to_eager"] > 0
    assert "HaMeR's decoder alone, batch 2" in benchmark_report.markdown(Report(rows, [], []), {})


def test_the_command_times_the_decoders_of_a_student_and_of_hamer(tmp_path):
    assert benchmark_fps.main(["--head", *QUICK, "--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "benchmark.json").read_text())
    assert [row["backend"] for row in rows] == ["torch", "folded"] * 2
    assert {row["decoder"] for row in rows} == {"mano full"}
    assert "HaMeR's decoder alone, batch 1" in (tmp_path / "benchmark.md").read_text()


def test_settings_that_were_not_timed_share_a_line_for_each_reason():
    row = dict.fromkeys(COLUMNS) | {"stage": "model", "batch": 1, "median_ms": 10.0, "p95_ms": 20.0}
    rows = [row | {"model": name, "decoder": "mano full"} for name in ("a", "b", "c")]
    rows.append(row | {"model": "any", "stage": "decode"})  # decoding a JPEG belongs to no model
    some = {"torch int8": "abc", "folded int8": "abc", "compile fp32": "bc", "openvino int8": "a"}
    left_out = [
        LeftOut(f"{name} mano full", setting, "no") for name in "abc" for setting in some if name in some[setting]
    ]
    lines = benchmark_report.markdown(Report(rows, left_out, []), {}).split("Not timed:")[1].strip().splitlines()
    assert sorted(lines) == [
        "- a mano full: openvino int8: no",
        "- all but a mano full: compile fp32: no",
        "- all models: torch int8, folded int8: no",
    ]


def test_the_fastest_backend_of_each_model_and_precision_stands_first():
    row = dict.fromkeys(COLUMNS) | {"stage": "model", "batch": 1, "model": "a", "decoder": "flat small", "p95_ms": 1.0}
    times = {("torch", "fp32"): 9.0, ("folded", "fp32"): 7.0, ("openvino", "fp32"): 8.0, ("openvino", "int8"): 3.0}
    rows = [row | {"backend": kind, "precision": bits, "median_ms": ms} for (kind, bits), ms in times.items()]
    fastest = benchmark_report.markdown(Report(rows, [], []), {}).split("**")[2]
    assert [line.split(" | ")[2:5] for line in fastest.strip().splitlines()[2:]] == [
        ["folded", "fp32", "7.00 |"],
        ["openvino", "int8", "3.00 |"],
    ]
    assert "Fastest" not in benchmark_report.markdown(Report(rows[:1], [], []), {})


def test_the_report_shows_a_busy_machine_and_the_measured_peaks():
    row = dict.fromkeys(COLUMNS) | {"model": "a", "stage": "model", "batch": 1, "median_ms": 10.0, "p95_ms": 20.0}
    row |= {"peak_fraction": 0.456}
    peaks = [Peaks({"fp32": rate}, {8: 25.0}) for rate in (90.0, 100.0, 140.0)]
    quiet = benchmark_report.markdown(Report([row], [], peaks), {"threads": 2})
    assert "busy" not in quiet and "2 threads" in quiet and "fp32 100 GFLOP/s" in quiet and "25.0 GB/s of 8 MB" in quiet
    assert "46 %" in quiet and "Not timed" not in quiet
    assert "p95 ms" in quiet and "x teacher |" not in quiet  # columns without a value are left out
    busy = benchmark_report.markdown(Report([row, row | {"p95_ms": 31.0}], [], peaks), {})
    assert "busy: in 1 of 2 rows" in busy
