"""Main memory that an exported model needs, measured in a separate process (Linux only)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from fasthamer.runtime.sessions import open_session

_STATUS = Path("/proc/self/status")
_PASSES = 2


def footprint_mb(file: Path, backend: str, precision: str, batch: int, size: int, threads: int) -> float | None:
    """1e6 bytes by which opening a file on the CPU and running it raises the process's peak resident memory.

    Returns:
        None without `/proc/self/status`, or if the process fails.
    """
    if not _STATUS.exists():
        return None
    given = [str(each) for each in (file, backend, precision, batch, size, threads)]
    command = [sys.executable, "-m", "fasthamer.benchmark.footprint", *given]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(run.stdout) if run.returncode == 0 else None


def _measure(file: str, backend: str, precision: str, batch: str, size: str, threads: str) -> float:
    images = np.random.default_rng(0).integers(0, 256, (int(batch), 3, int(size), int(size)), dtype=np.uint8)
    before = _peak_resident()
    session = open_session(Path(file), backend, precision, "cpu", int(batch), int(threads))
    for _ in range(_PASSES):
        session(images)
    return (_peak_resident() - before) / 1e6


def _peak_resident() -> int:
    """Bytes of this process's peak resident memory. (That of getrusage would include the parent's.)"""
    lines = _STATUS.read_text(encoding="utf-8").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    print(_measure(*sys.argv[1:]))
