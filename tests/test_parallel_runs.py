"""Jobs in processes of their own: their output, how they fail, how they stop."""

from __future__ import annotations

import operator
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import psutil

from fasthamer.distill.parallel_runs import Job, run_jobs
from fasthamer.training.interrupt import InterruptHandler


def test_one_that_fails_or_is_killed_does_not_end_the_others(tmp_path):
    works = [
        Job("divides", operator.truediv, (1, 0)),
        Job("is killed", signal.raise_signal, (signal.SIGKILL,)),
        Job("prints", print, ("hello",)),
    ]
    with InterruptHandler() as interrupt:
        found = {result.job.name: result.trouble for result in run_jobs(works, 3, tmp_path, interrupt)}
    assert found["divides"] == f"ZeroDivisionError: division by zero ({tmp_path / 'divides.log'})"
    assert "lack of memory" in found["is killed"]
    assert found["prints"] == "" and (tmp_path / "prints.log").read_text() == "hello\n"


def test_an_interrupt_is_passed_on_and_no_further_job_begins(tmp_path):
    works = [Job(name, time.sleep, (seconds,)) for name, seconds in (("short", 0), ("long", 600), ("never", 600))]
    (tmp_path / "long.log").write_text("of an earlier call\n")
    found = []
    with InterruptHandler() as interrupt:
        for result in run_jobs(works, 2, tmp_path, interrupt):
            found.append((result.job.name, result.trouble))
            interrupt.requested = True
    assert found == [("short", ""), ("long", f"exit code -15 ({tmp_path / 'long.log'})")]


PARENT = """
import runpy
from pathlib import Path
from fasthamer.distill.parallel_runs import Job, run_jobs
from fasthamer.training.interrupt import InterruptHandler

if __name__ == "__main__":
    with InterruptHandler() as interrupt:
        list(run_jobs([Job("long", runpy.run_path, ("job.py",))], 1, Path("."), interrupt))
"""
JOB = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"


def test_jobs_end_with_a_parent_that_is_killed(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    (tmp_path / "job.py").write_text(JOB)
    log = tmp_path / "long.log"
    with subprocess.Popen([sys.executable, "parent.py"], cwd=tmp_path) as parent:
        within(120, lambda: log.is_file() and log.read_text().endswith("\n"))
        job = psutil.Process(int(log.read_text()))
        assert job.ppid() == parent.pid
        parent.kill()
    within(60, lambda: not job.is_running() or job.status() == psutil.STATUS_ZOMBIE)


def within(seconds: float, happens: Callable[[], bool]) -> None:
    """Waits for something to happen, at most so long."""
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.1)
