"""Trainings in processes of their own: what they say, how they fail, how they stop."""

from __future__ import annotations

import operator
import signal
import time

from fasthamer.distill.parallel_runs import Work, side_by_side
from fasthamer.training.interrupt import InterruptHandler


def test_one_that_fails_or_is_killed_takes_no_other_with_it(tmp_path):
    works = [
        Work("divides", operator.truediv, (1, 0)),
        Work("is killed", signal.raise_signal, (signal.SIGKILL,)),
        Work("speaks", print, ("hello",)),
    ]
    with InterruptHandler() as interrupt:
        found = {done.work.name: done.trouble for done in side_by_side(works, 3, tmp_path, interrupt)}
    assert found["divides"] == f"ZeroDivisionError: division by zero ({tmp_path / 'divides.log'})"
    assert "out of memory" in found["is killed"]
    assert found["speaks"] == "" and (tmp_path / "speaks.log").read_text() == "hello\n"


def test_a_wish_to_stop_is_passed_on_and_nothing_more_begins(tmp_path):
    works = [Work(name, time.sleep, (seconds,)) for name, seconds in (("short", 0), ("long", 600), ("never", 600))]
    (tmp_path / "long.log").write_text("of an earlier call\n")
    found = []
    with InterruptHandler() as interrupt:
        for done in side_by_side(works, 2, tmp_path, interrupt):
            found.append((done.work.name, done.trouble))
            interrupt.requested = True
    assert found == [("short", ""), ("long", f"exit code -15 ({tmp_path / 'long.log'})")]
