"""CONTRIBUTING.md's code is true: applied to a copy of the code, all of it trains together."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("configs", "distill", "fasthamer", "students", "teachers", "tools")
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(python|diff)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the code with every block of CONTRIBUTING.md in it."""
    root = tmp_path_factory.mktemp("extended")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.py", root)
    for kind, text in BLOCKS:
        if kind == "diff":
            apply_diff(root, text)
        else:
            heading, _, code = text.partition("\n")
            with open(existing(root, heading.removeprefix("# ")), "a", encoding="utf-8") as file:
                file.write("\n\n" + code)
    return root


def existing(root: Path, name: str) -> Path:
    assert (root / name).is_file(), f"CONTRIBUTING.md names {name!r}, which does not exist"
    return root / name


def apply_diff(root: Path, text: str) -> None:
    """Puts each added line behind the one line of the file that begins like the last line of context."""
    path, lines, at = Path(), [], 0
    for line in text.splitlines():
        if line.startswith("--- "):
            path = existing(root, line.removeprefix("--- "))
            lines = path.read_text(encoding="utf-8").splitlines()
        elif line.startswith("+"):
            lines.insert(at, line[1:])
            at += 1
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        else:
            found = [number for number, each in enumerate(lines) if each.startswith(line[1:])]
            assert len(found) == 1, f"{path.name} has {len(found)} lines that begin with {line[1:]!r}"
            at = found[0] + 1


def run(root: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(root), "XDG_CACHE_HOME": str(root / "cache")}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_student_decoder_loss_dataset_and_teacher_of_contributing_train_together(extended, tmp_path):
    rng = np.random.default_rng(0)
    for index in range(4):
        cv2.imwrite(str(tmp_path / f"{index}.jpg"), rng.integers(0, 256, (256, 256, 3), dtype=np.uint8))
        np.save(tmp_path / f"{index}.jpg.npy", rng.uniform((60, 60, 1), (200, 200, 1), (21, 3)))
    output = run(
        extended,
        *("tools/distill.py", "--student", "mobilenetv4_s", "--decoder", "pooled", "--teacher", "resnet_teacher"),
        *("--kd", "hybrid", "--data", "crops", "--data-root", str(tmp_path), "--out", "runs/all", "--steps", "1"),
        *("LOSS.BONES", "0.05", "KD.BONES", "0.05", "TRAIN.BATCH", "2", "TRAIN.LOG_EVERY", "1", "DEVICE", "cpu"),
        *("STUDENT.PRETRAINED", "False", "STUDENT.IMAGE_SIZE", "64", "IMAGE_SIZE", "64", "DATA.WORKERS", "0"),
        *("DATA.EVAL_NAME", "synthetic", "DATA.SYNTHETIC_EVAL_SIZE", "2", "TRAIN.IMAGE_EVERY", "0"),
    )
    assert "mobilenetv4_s" in output and "resnet_teacher" in output and "4 images" in output
    logged = [json.loads(line) for line in (extended / "runs/all/metrics.jsonl").read_text().splitlines()]
    names = set().union(*logged)
    assert any(name.endswith("kd_bones") for name in names), names
    assert any(name.endswith("kd_features") for name in names), names


def test_every_addition_is_shown_in_under_ten_lines_of_code():
    for section in TEXT.partition("## How to add")[2].partition("\n## ")[0].split("\n### ")[1:]:
        title = section.splitlines()[0]
        blocks = re.findall(r"```(?:python|diff)\n(.*?)```", section, re.DOTALL)
        code = [line for block in blocks for line in code_of(block)]
        assert 0 < len(code) < 10, f"{title}: {len(code)} lines"


def code_of(block: str) -> list[str]:
    """Its lines of code: no imports, comments, docstrings, empty lines, nor a diff's context."""
    is_diff = block.startswith("---")
    lines = [line[1:] for line in block.splitlines() if line.startswith("+")] if is_diff else block.splitlines()
    return [line for line in map(str.strip, lines) if line and not line.startswith(("#", '"""', "import ", "from "))]
