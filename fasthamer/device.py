"""Which device to compute on."""

from __future__ import annotations

import torch


def pick_device(name: str) -> torch.device:
    """The device of a name; auto = cuda, then mps, then cpu.

    Raises:
        ValueError: not a device, or not on this machine.
    """
    if name == "auto":
        return torch.device(_best())
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # a torch without CUDA asserts
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used here ({reason}); auto takes the best there is") from None
    return device


def _best() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
