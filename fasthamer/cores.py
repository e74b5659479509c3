"""How many processor cores there are for this process."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = CGROUP) -> int:
    """Cores that this process may use, at least one: fewer than the machine's under `taskset`, a scheduler or a quota.

    Python and torch count the whole machine in a container with a quota (`docker run --cpus 4`, Kubernetes' limits).

    Args:
        cgroup: where Linux shows the container's limits.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, _quota(cgroup))))


def _quota(cgroup: Path) -> float:
    """The cores of a container's quota, a fraction perhaps; infinite where there is none."""
    try:
        if (file := cgroup / "cpu.max").is_file():  # version 2: both numbers, "max 100000" without a quota
            quota, period = file.read_text().split()
        else:
            quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else math.inf  # version 1: -1 without a quota
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf
