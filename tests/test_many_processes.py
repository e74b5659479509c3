"""Several processes train as one with the joint batch, evaluate once, write once, and go on when one is killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from noise_images import Noise, tiny
from safetensors.torch import load_file

from fasthamer.config import load_config
from fasthamer.data.build import build_dataset
from fasthamer.distill.evaluate import evaluate, predict, rules_for
from fasthamer.hand.mano import load_hand
from fasthamer.students import build_student, load_student, save_student
from fasthamer.tools.distill import main

ROOT = Path(__file__).parents[1]
TOOL = str(ROOT / "tools" / "distill.py")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
FSDP = ("-m", "accelerate.commands.launch", "--config_file", str(ROOT / "deploy" / "fsdp.yaml"), "--num_processes", "2")
SMALL = [
    *("--decoder-size", "tiny", "IMAGE_SIZE", "64", "STUDENT.IMAGE_SIZE", "64", "STUDENT.PRETRAINED", "False"),
    *("DATA.SYNTHETIC_SIZE", "16", "DATA.SYNTHETIC_EVAL_SIZE", "5", "EVAL.BATCH", "2", "DATA.WORKERS", "0"),
    *("TRAIN.IMAGE_EVERY", "0", "TRAIN.LOG_EVERY", "1", "TRAIN.LR", "1e-4", "DEVICE", "cpu"),
]
# All that looks at several samples: batch norms, features standardised over the batch, a discriminator. And an average.
HYBRID = [*SMALL, "--student", "timm:test_resnet", "--kd", "hybrid", "--steps", "5", "TRAIN.EMA", "0.9"]
HYBRID += ["KD.FEATURE_LOSS", "pkd", "LOSS.ADVERSARIAL", "0.0005", "TRAIN.EVAL_EVERY", "3"]
HYBRID += ["TRAIN.CHECKPOINT_EVERY", "1"]
HYBRID += ["KD.WEIGHT", "0.3"]  # with 1, some gradients are rounding errors alone, which Adam enlarges
# Each of several accumulated batches has statistics of its own: a student with layer norms needs none.
ACCUMULATED = [*SMALL, "--student", "timm:test_convnext", "--kd", "output", "--steps", "3"]
TOLERANCE = 1e-5  # relative, of every number of every line


def start(*command: str) -> subprocess.Popen:
    """A program in Python that sees no GPU, in a process group of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, *command], env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True
    )


def finished(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def curve(run: Path) -> list[dict]:
    """The lines of metrics.jsonl without the speed; an evaluation's have other names."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: line[name] for name in line if name not in ("phase", "images_per_second")} for line in lines]


def assert_same_curve(run: Path, other: Path) -> None:
    for line, expected in zip(curve(run), curve(other), strict=True):
        assert line == pytest.approx(expected, rel=TOLERANCE, abs=0)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As in the processes that are started: the order of sums depends on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A folder in which two processes under torchrun have trained and evaluated."""
    folder = tmp_path_factory.mktemp("two")
    script = str(Path(__file__).with_name("distilling_process.py"))
    finished(start(*TORCHRUN, script, str(folder), *HYBRID, "TRAIN.BATCH", "2"))
    return folder


def test_two_processes_with_batch_norms_give_the_curve_of_one_with_the_joint_batch(two, tmp_path):
    assert main([*HYBRID, "TRAIN.BATCH", "4", "--out", str(tmp_path)]) == 0
    assert [line["step"] for line in curve(tmp_path)] == [1, 2, 3, 3, 4, 5]
    assert_same_curve(two / "run_of_0", tmp_path)
    name = "checkpoints/step_5/average.safetensors"
    torch.testing.assert_close(load_file(two / "run_of_0" / name), load_file(tmp_path / name), atol=1e-5, rtol=1e-4)


def test_accelerates_processes_with_a_sharded_teacher_that_accumulate_give_the_curve_of_one_that_does_not(tmp_path):
    torch.manual_seed(0)
    save_student(tmp_path / "vit.safetensors", build_student("timm:test_vit", "mano", "tiny", 160), {})
    options = [*ACCUMULATED, "--teacher", str(tmp_path / "vit.safetensors")]
    several = ["TRAIN.BATCH", "1", "TRAIN.ACCUMULATE", "2"]
    process = start(*FSDP, TOOL, *options, *several, "--out", str(tmp_path / "two"))
    assert main([*options, "TRAIN.BATCH", "4", "--out", str(tmp_path / "one")]) == 0
    assert "2 processes" in finished(process)
    assert_same_curve(tmp_path / "two", tmp_path / "one")


def test_the_main_process_alone_writes(two):
    written = ["predicted_by_0.npz", "refused_by_0.txt", "run_of_0", "scores_of_0"]
    assert sorted(path.name for path in two.iterdir()) == written


def test_evaluations_by_two_processes_have_the_scores_of_one(two):
    run, hand = two / "run_of_0", load_hand("embedded")
    cfg = load_config(run / "config.yaml")
    held_out, student = build_dataset(cfg, hand, train=False), load_student(run / "student.safetensors", hand).eval()

    def scores(layout: torch.memory_format) -> dict:
        predicted = predict(student.to(memory_format=layout), held_out, cfg.EVAL.BATCH)
        return json.loads(json.dumps(evaluate(predicted, rules_for(held_out), hand.J_regressor.numpy())))

    of_tool, in_training = scores(torch.contiguous_format), scores(torch.channels_last)  # other kernels, other rounding
    assert {"image_size": 64} | in_training == json.loads((run / "eval" / "scores.json").read_text())
    found = json.loads((two / "scores_of_0" / "scores.json").read_text())
    assert found["n"] == 5 and {name: found[name] for name in of_tool} == of_tool


def test_merged_predictions_are_those_of_one_process_in_its_order_without_duplicates(two):
    expected = predict(tiny().eval(), Noise(), 3)
    merged = np.load(two / "predicted_by_0.npz")
    assert np.array_equal(merged["joints"], expected.joints)
    assert np.array_equal(merged["truth"], expected.true_joints)


def test_a_sample_that_another_process_cannot_read_is_refused_by_the_main_one(two):
    assert (two / "refused_by_0.txt").read_text() == "sample 5: damaged image"


def test_a_killed_process_is_started_again_and_the_run_ends_in_the_same_bits(two, tmp_path):
    run = tmp_path / "run"
    launcher = start(*TORCHRUN, "--max-restarts", "2", TOOL, *HYBRID, "TRAIN.BATCH", "2", "--out", str(run), "--resume")
    while not (run / "checkpoints" / "step_1").exists():
        assert launcher.poll() is None, launcher.communicate()[0]
        time.sleep(0.02)
    os.kill(worker(launcher.pid, rank=1), signal.SIGKILL)
    output = finished(launcher)
    assert re.search(r"resumed from \S+step_[1-5]", output), output
    one, other = (load_file(each / "student.safetensors") for each in (two / "run_of_0", run))
    assert not [name for name in one if not torch.equal(one[name], other[name])]
    assert curve(run) == curve(two / "run_of_0")


def worker(launcher: int, rank: int) -> int:
    """The process of a rank that torchrun has started."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    found = [pid for pid in children if f"\0RANK={rank}\0" in f"\0{Path(f'/proc/{pid}/environ').read_text()}"]
    assert len(found) == 1, children
    return int(found[0])
