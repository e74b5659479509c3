"""Several trainings at a time, each in a process of its own: one that is out of memory takes no other with it."""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fasthamer.training.interrupt import InterruptHandler

PATIENCE = 1.0  # seconds between two looks at the interrupt


class Work(NamedTuple):
    """A call that another process makes."""

    name: str
    call: Callable[..., object]  # of a module's top level
    words: tuple[Any, ...]


class Done(NamedTuple):
    """A work that has ended."""

    work: Work
    seconds: float
    trouble: str  # in one line; empty if it went well


def side_by_side(works: Sequence[Work], jobs: int, logs: Path, interrupt: InterruptHandler) -> Iterator[Done]:
    """Each work as it ends. After an interrupt no work is started, and running work is terminated.

    Args:
        works: in the order in which they begin.
        jobs: how many run at a time; each has its share of the processor's threads.
        logs: gets `NAME.log` of each, where all goes that it says.
        interrupt: already listening.
    """
    context, threads = get_context("spawn"), max(1, (os.cpu_count() or 1) // jobs)
    waiting, running = deque(works), dict[int, tuple[SpawnProcess, Work, float]]()
    logs.mkdir(parents=True, exist_ok=True)
    told = False
    try:
        while running or (waiting and not interrupt.requested):
            while waiting and len(running) < jobs and not interrupt.requested:
                work = waiting.popleft()
                _log(logs, work).write_bytes(b"")  # what an earlier call has said is no trouble of this one
                process = context.Process(target=_alone, args=(work, threads, _log(logs, work)), name=work.name)
                process.start()
                running[process.sentinel] = process, work, time.perf_counter()
            ended = wait(list(running), PATIENCE)
            if interrupt.requested and not told:
                told = True
                for process, _, _ in running.values():
                    process.terminate()
            for sentinel in [each for each in running if each in ended]:
                process, work, began = running.pop(sentinel)
                process.join()
                yield Done(work, time.perf_counter() - began, _trouble(process, _log(logs, work)))
    finally:
        for process, _, _ in running.values():
            process.kill()


def _alone(work: Work, threads: int, log: Path) -> None:
    if os.name == "posix":
        os.setsid()  # the terminal's Ctrl-C is the parent's to pass on: a second signal would cost the checkpoint
    with log.open("ab", buffering=0) as file:
        for stream in (1, 2):  # output and errors, also of what is not Python
            os.dup2(file.fileno(), stream)
    torch.set_num_threads(threads)
    work.call(*work.words)


def _log(logs: Path, work: Work) -> Path:
    return logs / f"{work.name.replace(' ', '_')}.log"


def _trouble(process: SpawnProcess, log: Path) -> str:
    if process.exitcode == 0:
        return ""
    if process.exitcode == -signal.SIGKILL:
        return f"it was killed, as a system does that is out of memory ({log})"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f"{lines[-1].strip() if lines else f'exit code {process.exitcode}'} ({log})"
