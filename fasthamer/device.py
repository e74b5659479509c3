"""Which device to compute on."""

from __future__ import annotations

import ctypes
import sys
import warnings
from collections.abc import Callable, Sequence

import torch

PRESENT: dict[str, Callable[[], bool]] = {  # best first
    "cuda": torch.cuda.is_available,
    "mps": torch.backends.mps.is_available,
}
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of glibc's mallopt


def pick_device(name: str) -> torch.device:
    """The device of a name; auto = cuda, then mps, then cpu: the first that computes.

    Warns where auto passes over a GPU that is there but does not compute.

    Raises:
        ValueError: not a device, or none that computes on this machine.
    """
    if name == "auto":
        return _first_that_computes([gpu for gpu, present in PRESENT.items() if present()])
    if trouble := trouble_with(name):
        raise ValueError(f"device {name!r} cannot be used here ({trouble}); auto takes the best there is")
    return torch.device(name)


def _first_that_computes(gpus: Sequence[str]) -> torch.device:
    for gpu in gpus:
        if not (trouble := trouble_with(gpu)):
            return torch.device(gpu)
        warnings.warn(f"{gpu} is there but does not compute ({trouble}); it is passed over", stacklevel=3)
    return torch.device("cpu")


def trouble_with(name: str) -> str:
    """Why this torch does not compute on a device; empty where it does.

    A build of torch without kernels for a GPU (too old, too new) sees it and gives it memory: only a kernel fails.
    """
    try:
        torch.ones(1, device=torch.device(name)) + 1
    except (RuntimeError, AssertionError) as error:  # a torch without CUDA asserts
        return str(error).strip().partition("\n")[0]
    return ""


def keep_freed_memory() -> None:
    """Lets the process reuse the memory of freed tensors, where the C library is glibc.

    By default glibc gives a large block back to the system when it is freed, and each new map of a network costs as
    much in page faults as in arithmetic: on a CPU, MobileNetV3-L trains 1.2 times and the embedded teacher answers 1.6
    times as fast with this (`tools/assets/measure_memory.py`). The process keeps the most memory it has used.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        for setting, size in ((_MMAP_THRESHOLD, 1 << 30), (_TRIM_THRESHOLD, (1 << 31) - 1), (_TOP_PAD, 1 << 26)):
            mallopt(setting, size)
