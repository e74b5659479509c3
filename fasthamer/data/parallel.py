"""One function over many numbers, in several processes: for what has to be read or drawn before a training begins."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

Result = TypeVar("Result")
Numbers = NDArray[np.int64]


def in_pieces(
    work: Callable[[Numbers], Result], numbers: Numbers, piece: int, workers: int, what: str
) -> Iterator[Result]:
    """What `work` gives for one piece of the numbers after the other, in their order, with a progress bar.

    Args:
        work: can be sent to another process, where it runs.
        numbers: (N,)
        piece: how many are given to `work` at a time.
        workers: processes; with 0 or 1 the work is done in this one, and so is a single piece.
        what: the bar's title.
    """
    pieces = [numbers[begin : begin + piece] for begin in range(0, len(numbers), piece)]
    if min(workers, len(pieces)) < 2:
        yield from _told(map(work, pieces), pieces, what)
        return
    with multiprocessing.Pool(min(workers, len(pieces)), _take, (work,)) as pool:
        yield from _told(pool.imap(_do, pieces), pieces, what)


def _told(results: Iterator[Result], pieces: list[Numbers], what: str) -> Iterator[Result]:
    with tqdm(total=sum(map(len, pieces)), desc=what, mininterval=2, leave=False) as bar:
        for result, numbers in zip(results, pieces, strict=True):
            bar.update(len(numbers))
            yield result


_work: Callable[[Numbers], Any]  # of this worker process: sent once, not with every piece


def _take(work: Callable[[Numbers], Any]) -> None:
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is told by the process that started this one


def _do(numbers: Numbers) -> Any:
    return _work(numbers)
