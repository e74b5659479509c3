"""Several trainings at a time, each in a process of its own: one that runs out of memory does not end the others."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fasthamer.cores import usable_cores
from fasthamer.training.interrupt import InterruptHandler

POLL_SECONDS = 1.0  # between two checks of the interrupt


class Job(NamedTuple):
    """A call to make in another process."""

    name: str
    call: Callable[..., object]  # of a module's top level
    arguments: tuple[Any, ...]


class JobResult(NamedTuple):
    """A job that has ended."""

    job: Job
    seconds: float
    trouble: str  # in one line; empty if it succeeded


def run_jobs(queue: Sequence[Job], jobs: int, logs: Path, interrupt: InterruptHandler) -> Iterator[JobResult]:
    """Each job as it ends. After an interrupt no job is started, and running jobs are terminated.

    Args:
        queue: in the order in which they begin.
        jobs: how many run at a time; each has its share of the processor's threads.
        logs: gets `NAME.log` of each job: its output and errors.
        interrupt: already listening.
    """
    context, threads = get_context("spawn"), max(1, usable_cores() // jobs)
    waiting, running = deque(queue), dict[int, tuple[SpawnProcess, Job, float]]()
    logs.mkdir(parents=True, exist_ok=True)
    stopping = False
    try:
        while running or (waiting and not interrupt.requested):
            while waiting and len(running) < jobs and not interrupt.requested:
                job = waiting.popleft()
                _log(logs, job).write_bytes(b"")  # drops the output of an earlier call
                process = context.Process(target=_alone, args=(job, threads, _log(logs, job)), name=job.name)
                process.start()
                running[process.sentinel] = process, job, time.perf_counter()
            ended = wait(list(running), POLL_SECONDS)
            if interrupt.requested and not stopping:
                stopping = True
                for process, _, _ in running.values():
                    process.terminate()
            for sentinel in [each for each in running if each in ended]:
                process, job, began = running.pop(sentinel)
                process.join()
                yield JobResult(job, time.perf_counter() - began, _trouble(process, _log(logs, job)))
    finally:
        for process, _, _ in running.values():
            process.kill()


def _alone(job: Job, threads: int, log: Path) -> None:
    if os.name == "posix":
        os.setsid()  # the terminal's Ctrl-C is the parent's to pass on: a second signal would cost the checkpoint
    with log.open("ab", buffering=0) as file:
        for stream in (1, 2):  # output and errors, also of what is not Python
            os.dup2(file.fileno(), stream)
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    job.call(*job.arguments)


def _end_with_the_parent() -> None:
    """One that was killed cannot pass on a signal, and the same command again would train in the same folders."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _log(logs: Path, job: Job) -> Path:
    return logs / f"{job.name.replace(' ', '_')}.log"


def _trouble(process: SpawnProcess, log: Path) -> str:
    if process.exitcode == 0:
        return ""
    if process.exitcode == -signal.SIGKILL:
        return f"it was killed, probably for lack of memory ({log})"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f"{lines[-1].strip() if lines else f'exit code {process.exitcode}'} ({log})"
