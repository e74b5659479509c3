"""Counts of what code does, where a test is about its cost: unlike seconds they are the same on a busy machine."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


@contextmanager
def counted_calls() -> Iterator[Callable[[], int]]:
    """Gives a function that, after the block, returns how many calls were made in it, in threads it started too."""
    numbers, total = count(), 0

    def called(frame: Any, event: str, argument: Any) -> None:
        if event in ("call", "c_call"):
            next(numbers)  # atomic, so that threads do not disturb each other

    before = sys.getprofile()
    threading.setprofile(called)
    sys.setprofile(called)
    try:
        yield lambda: total
    finally:
        sys.setprofile(before)
        threading.setprofile(None)
        total = next(numbers)


class RandomNumbers(TorchDispatchMode):
    """Within `with RandomNumbers() as random:`, `random.drawn` is how many numbers torch drew into real tensors."""

    NAMES = ("normal_", "uniform_", "random_", "bernoulli_", "exponential_")

    def __init__(self) -> None:
        super().__init__()
        self.drawn = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        if operator.overloadpacket.__name__ in self.NAMES and not args[0].is_meta:
            self.drawn += args[0].numel()
        return operator(*args, **(kwargs or {}))
