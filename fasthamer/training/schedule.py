"""The learning rate as a function of the step: nothing to save, nothing to restore."""

from __future__ import annotations

import math

from fasthamer.registry import unknown

SCHEDULES = ("constant", "cosine")


def learning_rate(step: int, steps: int, peak: float, warmup: int, schedule: str) -> float:
    """The rate of one optimizer step.

    Args:
        step: 0 for the first.
        steps: how many there will be.
        peak: the rate after the warm-up.
        warmup: steps over which the rate rises linearly to the peak; 0 = none.
        schedule: `constant`, or `cosine`, which falls to 0 at the last step.

    Raises:
        KeyError: no such schedule.
    """
    if schedule not in SCHEDULES:
        raise KeyError(unknown("schedule", schedule, SCHEDULES))
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "constant":
        return peak
    progress = (step - warmup) / max(steps - warmup, 1)
    return peak * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
