"""Main memory that an exported model needs, seen from a process of its own which does nothing else (on Linux)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from fasthamer.runtime.sessions import open_session

_STATUS = Path("/proc/self/status")
_PASSES = 2


def footprint_mb(file: Path, backend: str, precision: str, batch: int, size: int, threads: int) -> float | None:
    """1e6 bytes: by how much opening a file on the CPU and running it raises the most that the process ever held.

    Returns:
        None where the system does not tell, or the runtime did not get through.
    """
    if not _STATUS.exists():
        return None
    what = [str(each) for each in (file, backend, precision, batch, size, threads)]
    command = [sys.executable, "-m", "fasthamer.benchmark.footprint", *what]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(run.stdout) if run.returncode == 0 else None


def _measure(file: str, backend: str, precision: str, batch: str, size: str, threads: str) -> float:
    images = np.random.default_rng(0).integers(0, 256, (int(batch), 3, int(size), int(size)), dtype=np.uint8)
    before = _highest()
    session = open_session(Path(file), backend, precision, "cpu", int(batch), int(threads))
    for _ in range(_PASSES):
        session(images)
    return (_highest() - before) / 1e6


def _highest() -> int:
    """Bytes; the process's peak of resident memory. (getrusage's would include what the parent held.)"""
    lines = _STATUS.read_text(encoding="utf-8").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    print(_measure(*sys.argv[1:]))
