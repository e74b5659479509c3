"""How many cores a process may use."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

from fasthamer.cores import usable_cores

MACHINE = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else psutil.cpu_count()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not bind processes to cores")
def test_a_process_bound_to_one_core_has_one():
    bind_and_print = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); " + (
        "from fasthamer.cores import usable_cores; print(usable_cores())"
    )
    output = subprocess.run([sys.executable, "-c", bind_and_print], capture_output=True, text=True, check=True).stdout
    assert output == "1\n"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not bind processes to cores")
def test_a_training_takes_no_more_threads_than_cores_unless_threads_are_set():
    script = (
        "import os, sys; from pathlib import Path; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "import torch; from fasthamer.config import load_config; from fasthamer.training.start import start\n"
        "torch.set_num_threads(4)\n"
        "for threads in ('0', '3'):\n"
        "    cfg = load_config('quickstart', ['TRAIN.THREADS', threads, 'DEVICE', 'cpu'])\n"
        "    start(cfg, Path('none'), False, 'fp32')\n"
        "    print(torch.get_num_threads())"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert output == "1\n3\n"


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("100000 100000", 1), ("20000 100000", 1), ("110000 100000", min(2, MACHINE)), ("max 100000", MACHINE)],
)
def test_a_quota_of_a_container_counts_rounded_up(tmp_path, quota, cores):
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert usable_cores(tmp_path) == cores


@pytest.mark.parametrize(("quota", "cores"), [(50000, 1), (-1, MACHINE)])
def test_an_older_kernel_shows_the_quota_in_two_files(tmp_path, quota, cores):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert usable_cores(tmp_path) == cores


@pytest.mark.parametrize("text", [None, "", "max", "100000 0"])
def test_limits_that_are_not_there_or_not_understood_are_none(tmp_path, text):
    if text is not None:
        (tmp_path / "cpu.max").write_text(text)
    assert usable_cores(tmp_path) == MACHINE
