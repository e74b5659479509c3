"""One function over many numbers, in several processes, with a progress bar.

Not `tqdm.contrib.concurrent.process_map`: that sends the function, and with it the dataset, again with every piece.
Over 400,000 samples with an index of 25 MB, in two processes, it took 263 s (24 s with chunksize 16), this 0.6 s.
"""

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
    work: Callable[[Numbers], Result],
    numbers: Numbers,
    piece: int,
    workers: int,
    title: str,
    start_method: str | None = None,
) -> Iterator[Result]:
    """The results of `work` for consecutive pieces of the numbers, in their order.

    Args:
        work: picklable; sent once to each process.
        numbers: (N,)
        piece: numbers in one call of `work`.
        workers: processes; with 0 or 1, or a single piece, the work is done in this one.
        title: of the progress bar.
        start_method: of `multiprocessing`, such as spawn; None is the system's default.
    """
    pieces = [numbers[begin : begin + piece] for begin in range(0, len(numbers), piece)]
    if min(workers, len(pieces)) < 2:
        yield from _with_bar(map(work, pieces), pieces, title)
        return
    context = multiprocessing.get_context(start_method)
    with context.Pool(min(workers, len(pieces)), _keep, (work,)) as pool:
        yield from _with_bar(pool.imap(_do, pieces), pieces, title)


def _with_bar(results: Iterator[Result], pieces: list[Numbers], title: str) -> Iterator[Result]:
    with tqdm(total=sum(map(len, pieces)), desc=title, mininterval=2, leave=False) as bar:
        for result, numbers in zip(results, pieces, strict=True):
            bar.update(len(numbers))
            yield result


_work: Callable[[Numbers], Any]  # of this worker process


def _keep(work: Callable[[Numbers], Any]) -> None:
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent process


def _do(numbers: Numbers) -> Any:
    return _work(numbers)
