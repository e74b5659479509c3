"""Jobs in processes of their own: their output, how they fail, how they stop."""

from __future__ import annotations

import operator
import signal
import time

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
