"""A killed run goes on as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fasthamer.tools.distill import main

ROOT = Path(__file__).parents[1]
TOOL = ROOT / "tools" / "distill.py"
SMALL = [
    *("--student", "timm:test_resnet", "--decoder-size", "tiny", "--kd", "none"),
    *("IMAGE_SIZE", "64", "STUDENT.IMAGE_SIZE", "64", "STUDENT.PRETRAINED", "False", "DEVICE", "cpu"),
    *("DATA.SYNTHETIC_SIZE", "16", "DATA.SYNTHETIC_EVAL_SIZE", "2", "TRAIN.IMAGE_EVERY", "0"),
]


def start(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, str(TOOL), *SMALL, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True)


def wait_for(path: Path, process: subprocess.Popen, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, f"{path} did not appear in {seconds} s"
        time.sleep(0.02)


@pytest.fixture
def one_thread():
    """As in the subprocesses: the order of sums depends on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_kill_dash_nine_then_resume_gives_the_weights_of_the_uninterrupted_run(tmp_path, one_thread):
    options = ["--steps", "24", "TRAIN.BATCH", "2", "TRAIN.LR", "1e-3", "TRAIN.CHECKPOINT_EVERY", "4"]
    options += ["TRAIN.EMA", "0.9"]
    killed, straight = tmp_path / "killed", tmp_path / "straight"
    process = start(*options, "--out", str(killed), "DATA.WORKERS", "1")
    wait_for(killed / "checkpoints" / "step_4", process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (killed / "student.safetensors").exists(), "it finished before it was killed: the test shows nothing"

    assert main([*SMALL, *options, "--out", str(killed), "--resume", "DATA.WORKERS", "0"]) == 0
    assert main([*SMALL, *options, "--out", str(straight), "DATA.WORKERS", "0"]) == 0
    one, other = (load_file(run / "student.safetensors") for run in (killed, straight))
    assert one.keys() == other.keys()
    assert not [name for name in one if not torch.equal(one[name], other[name])]
    assert not [path for path in killed.rglob("*") if path.name.endswith(".part")]


def test_a_training_that_is_killed_again_and_again_ends_bit_identical():
    """By SIGKILL in a step, a write and an evaluation, and by SIGTERM; all of it: python tests/kill_trainings.py."""
    command = [sys.executable, str(ROOT / "tests" / "kill_trainings.py"), "--only", "tars-2", "--kills", "4"]
    ended = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert "4 kills (1 step, 1 write, 1 evaluation, 1 term): bit-identical" in ended.stdout, ended.stdout + ended.stderr
    assert ended.returncode == 0


def test_ctrl_c_saves_a_checkpoint_and_says_how_to_go_on(tmp_path, capsys):
    run = tmp_path / "run"

    def press() -> None:
        while not (run / "checkpoints" / "step_2").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    options = ["--steps", "100000", "TRAIN.BATCH", "2", "TRAIN.CHECKPOINT_EVERY", "2", "DATA.WORKERS", "1"]
    assert main([*SMALL, *options, "--out", str(run)]) == 1
    assert f"go on with: python tools/distill.py --out {run} --resume" in capsys.readouterr().err
