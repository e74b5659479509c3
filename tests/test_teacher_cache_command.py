"""A run with `--teacher-cache`: the same as without, and one line where the disk is full."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fasthamer.config import load_config
from fasthamer.students import build_student
from fasthamer.students.files import save_student
from fasthamer.tools.distill import main

SMALL = [
    *("--student", "timm:test_resnet", "--decoder-size", "tiny", "--steps", "2", "--kd", "hybrid"),
    *("IMAGE_SIZE", "64", "STUDENT.IMAGE_SIZE", "64", "STUDENT.PRETRAINED", "False", "DEVICE", "cpu"),
    *("DATA.WORKERS", "0", "DATA.SYNTHETIC_SIZE", "4", "DATA.SYNTHETIC_EVAL_SIZE", "2", "TRAIN.BATCH", "2"),
    *("TRAIN.LOG_EVERY", "1", "TRAIN.IMAGE_EVERY", "0"),
]


def losses(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if name not in ("phase", "images_per_second")} for line in lines
    ]


def test_a_run_with_a_cache_is_the_run_without(tmp_path, capsys):
    torch.manual_seed(5)
    teacher = tmp_path / "teacher.safetensors"
    save_student(teacher, build_student("timm:test_resnet", "mano", "tiny", 64), {})
    options = [*SMALL, "--teacher", str(teacher)]
    folder = tmp_path / "cache"
    with pytest.raises(SystemExit) as refused:
        main([*options, "--out", str(tmp_path / "refused"), "--teacher-cache", str(folder)])
    assert refused.value.code == 2
    assert "TEACHER.CACHE_VIEWS 1" in capsys.readouterr().err.splitlines()[-1]
    assert not folder.exists() and not (tmp_path / "refused").exists()

    cached = [*options, "--teacher-cache", str(folder), "TEACHER.CACHE_VIEWS", "1"]
    assert main([*options, "--out", str(tmp_path / "live")]) == 0
    assert main([*cached, "--out", str(tmp_path / "cached")]) == 0
    assert f"teacher cache {folder}: 4 outputs" in capsys.readouterr().out
    for live, again in zip(losses(tmp_path / "live"), losses(tmp_path / "cached"), strict=True):
        assert live.keys() == again.keys()
        assert again == pytest.approx(live, rel=2e-3)  # features in half precision

    assert main([*cached, "--out", str(tmp_path / "second"), "DATA.LABELLED", "0.5"]) == 0
    assert f"teacher cache {folder}: complete" in capsys.readouterr().out
    assert str(folder) == load_config(tmp_path / "second" / "config.yaml").TEACHER.CACHE


def test_a_full_disk_ends_a_run_with_one_line(tmp_path, capsys, monkeypatch):
    teacher = tmp_path / "teacher.safetensors"
    save_student(teacher, build_student("timm:test_resnet", "mano", "tiny", 64), {})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    options = ["--teacher-cache", str(tmp_path / "cache"), "AUGMENT.SCALE", "0", "AUGMENT.SHIFT", "0"]
    assert main([*SMALL, "--teacher", str(teacher), *options, "--out", str(tmp_path / "run")]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("distill: ") and "its disk has 0.0 MB" in last
