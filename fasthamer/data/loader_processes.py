"""Loader processes: how they start, and the errors of those that die, hang or find no memory."""

from __future__ import annotations

import errno
import os
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

import cv2
from torch.utils.data import DataLoader

from fasthamer.data.faults import BadSample

PATIENCE = 600.0  # seconds without a batch after which loader processes are taken to hang
STOPS = (signal.SIGINT, signal.SIGTERM)  # the requests to stop
AGAIN = "then run the same command again, a training with --resume"
MEMORY = f"the machine is short of memory: take fewer of them (DATA.WORKERS) or a smaller batch, {AGAIN}"
KILLED = f"a loader process was killed, most often because {MEMORY}"


class LoaderError(OSError):
    """A loader process died, hangs or ran out of memory; the message is one line and says what to do."""


def readable(loader: DataLoader) -> Iterator[Any]:
    """The loader's batches; an error about a sample becomes one line, without a worker's traceback.

    Raises:
        BadSample: samples could not be read.
        LoaderError: see `loader_errors`.
    """
    with loader_errors():
        with _stops_held():
            batches = iter(loader)
        workers = batches._workers if loader.num_workers else []  # type: ignore[attr-defined]
        try:
            yield from batches
        except (ValueError, OSError, EOFError) as error:
            from_worker = str(error).startswith("Caught ")  # then with that process's traceback: keep the last line
            if workers and not from_worker and _any_died(workers):  # while it sent a batch
                raise LoaderError(KILLED) from error
            line = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise BadSample(line.removeprefix(f"{type(error).__name__}: ")) from error
        except RuntimeError as error:
            if "timed out" in str(error):
                _kill(workers)
            raise
        finally:
            with _stops_held():
                del batches  # ends the workers


@contextmanager
def loader_errors() -> Iterator[None]:
    """Around whatever takes batches from a loader: PyTorch raises the death of a process wherever the program just is.

    Raises:
        LoaderError: a loader process died, hangs or ran out of memory.
    """
    try:
        yield
    except MemoryError as error:
        raise LoaderError(f"no memory for the loader processes: {MEMORY}") from error
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise LoaderError(f"no memory for the loader processes: {MEMORY}") from error
        raise
    except RuntimeError as error:
        if complaint := _complaint(str(error)):
            raise LoaderError(complaint) from error
        raise


def quiet_worker(_: int) -> None:
    """Initialises a loader process: one thread; Ctrl-C and SIGTERM are left to the main process.

    Both often go to all processes of a group, and the main one needs its workers to finish its step. It ends them, by
    SIGTERM if need be; if it is killed, they notice that they have another parent.
    """
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_wait_for_the_parents_sigterm, args=(os.getppid(),), daemon=True).start()
    else:  # macOS, Windows
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _wait_for_the_parents_sigterm(parent: int) -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
        pass
    os._exit(0)


@contextmanager
def _stops_held() -> Iterator[None]:
    """Around the start and the end of loader processes: Ctrl-C and SIGTERM act when the block ends.

    A worker ignores them only once it is initialised, and an exception from a signal's handler is lost in a fork.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    handlers = {number: signal.signal(number, lambda number, _: received.append(number)) for number in STOPS}
    masks = hasattr(signal, "pthread_sigmask")  # not on Windows; forked processes have the mask of their parent
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS) if masks else None
    try:
        yield
    finally:
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for each in received:
            signal.raise_signal(each)


def _complaint(message: str) -> str:
    """What to say of an error of PyTorch's loader; empty if it is another error."""
    if waited := re.search(r"DataLoader timed out after (\S+) seconds", message):
        return (
            f"the loader processes gave no batch for {float(waited[1]):g} s: the disk or network folder of the data "
            f"hangs, or the machine is overloaded; see that the files can be read, {AGAIN}"
        )
    if not message.startswith("DataLoader worker (pid"):
        return ""
    if "Bus error" in message:
        return f"a loader process found no shared memory: enlarge /dev/shm (docker --shm-size), {AGAIN}"
    if "Killed" in message or "exited unexpectedly" in message:
        return KILLED
    return f"a loader process died ({message.split('. ')[0].strip()}); {AGAIN}, with DATA.WORKERS 0 if it dies again"


def _any_died(workers: Sequence[BaseProcess]) -> bool:
    """Whether one of these processes ends within two seconds."""
    try:
        return bool(wait([each.sentinel for each in workers], timeout=2.0))
    except RuntimeError:  # PyTorch's own report of it
        return True


def _kill(workers: Sequence[BaseProcess]) -> None:
    """Ends the processes, even those that answer to nothing."""
    for process in workers:
        with suppress(RuntimeError):  # PyTorch's own report that it is gone
            process.kill()
            process.join(1.0)
