"""`tools/benchmark_training.py`: the teacher's passes in each loop, the table and the command."""

from __future__ import annotations

import json

import pytest
import torch

import fasthamer.tools.benchmark_training as tool
from fasthamer.config import load_config
from fasthamer.distill.training_speed import LOOPS, Row, loop_step, peak_mb, table
from fasthamer.nn.mano_head import SIZES, ManoHead
from fasthamer.teachers.hamer import HaMeR
from fasthamer.teachers.vit import PoseViT

SMALL = [
    *("STUDENT.NAME", "timm:test_resnet", "STUDENT.DECODER_SIZE", "tiny", "STUDENT.IMAGE_SIZE", "64"),
    *("TRAIN.BATCH", "2", "IMAGE_SIZE", "64", "DEVICE", "cpu"),
]


@pytest.fixture
def passes():
    """The precision of each pass of the teacher's backbone."""
    return []


@pytest.fixture
def build_tiny_hamer(passes):
    """HaMeR, 64 wide instead of 1280; its backbone's passes are appended to `passes`."""

    def build(hand, depth):
        torch.manual_seed(0)
        model = HaMeR(PoseViT(64, depth, 4), ManoHead(64, SIZES["tiny"]), hand)
        first = model.backbone.network.blocks[0].mlp.fc1
        first.register_forward_hook(lambda module, inputs, output: passes.append(output.dtype))
        return model

    return build


@pytest.mark.parametrize(
    ("mode", "loop", "expected"),
    [
        ("hybrid", "naive", [torch.float32] * 2),
        ("output", "naive", [torch.float32]),
        ("hybrid", "once", [torch.float32]),
        ("hybrid", "once_bf16", [torch.bfloat16]),
        ("hybrid", "once_contiguous", [torch.float32]),
        ("hybrid", "cached", []),
        ("output", "cached", []),
    ],
)
def test_number_and_precision_of_the_teachers_passes(build_tiny_hamer, passes, tmp_path, mode, loop, expected):
    step = loop_step(load_config(None, SMALL), mode, loop, 1, tmp_path, build_tiny_hamer)
    passes.clear()
    step()
    assert passes == expected


def test_the_command_times_prints_and_saves(tmp_path, capsys):
    options = ["--student", "timm:test_resnet", "--modes", "output", "--loops", "naive,cached", "--repeats", "3"]
    assert tool.main([*options, "--depth", "1", "--no-memory", "--out", str(tmp_path), *SMALL]) == 0
    output = capsys.readouterr().out
    assert "stand-in: 1 of 32 blocks" in output
    assert "| output | cached |" in output
    saved = json.loads((tmp_path / "training.json").read_text())
    assert saved["about"]["batch"] == 2
    rows = [Row(**row) for row in saved["rows"]]
    assert [row.loop for row in rows] == ["naive", "cached"]
    assert rows[0].ratio == 1.0
    assert rows[1].images_per_second == pytest.approx(2000 / rows[1].median_ms)
    assert {row.peak_mb for row in rows} == {0.0}  # not measured


def test_the_process_that_measures_memory_prints_it(tmp_path, capsys):
    options = ["--peak-of", str(tmp_path), "--modes", "output", "--loops", "once", "--depth", "1"]
    assert tool.main([*options, *SMALL]) == 0
    assert 50 < float(capsys.readouterr().out.splitlines()[-1]) < 20000


def test_peak_memory_is_that_of_the_process(build_tiny_hamer, tmp_path):
    """It includes torch and the other tests; only bounds can be tested."""
    assert 50 < peak_mb(load_config(None, SMALL), "output", "once", 1, tmp_path, build_tiny_hamer) < 20000


def test_the_table_leaves_out_what_was_not_measured():
    line = table([Row("hybrid", "once", 100.4, 120.0, 79.7, 1.9, 0.0)]).splitlines()[-1]
    assert line == "| hybrid | once | 100 | 120 | 79.70 | 1.90 |  |"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--loops", "naive,twice"], "no loop named 'twice'"),
        (["--modes", "hybird"], "did you mean 'hybrid'"),
        (["--modes", "none"], "no distillation mode named 'none'"),
        (["--student", "mobilenetv3_x"], "did you mean 'mobilenetv3_"),
        (["DEVICE", "cuda:99"], "device 'cuda:99'"),
        (["--repeats", "0"], "0 timed calls"),
        (["TRAIN.BATHC", "3"], "did you mean TRAIN.BATCH"),
    ],
)
def test_a_users_mistake_is_one_line(capsys, arguments, message):
    with pytest.raises(SystemExit) as refused:
        tool.main(["--depth", "1", *arguments])
    assert refused.value.code == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_folder_that_cannot_be_written_to_is_one_line_before_anything_is_timed(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert tool.main(["--depth", "1", "--out", str(tmp_path / "file" / "out")]) == 1
    assert capsys.readouterr().err.startswith("benchmark_training: ")


def test_every_loop_is_explained():
    assert all(f"\n{name} " in f"\n{tool.MEANING}" for name in LOOPS)
