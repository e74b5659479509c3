"""Which of two evaluations is the better one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

logger = logging.getLogger(__name__)


def improves(scores: Mapping[str, Any], before: Mapping[str, Any], metric: str) -> bool:
    """Whether an evaluation has a better score than the best one so far.

    Args:
        scores: by name; empty where this process has none.
        before: those of the best one so far; without the metric, such as empty ones, anything is better.
        metric: TRAIN.BEST. Millimetres (names in `_mm`) are better if lower, all others if higher. Empty: nothing is
            better.
    """
    if not metric or not scores:
        return False
    if metric not in scores:
        names = ", ".join(name for name, value in scores.items() if isinstance(value, float))
        logger.warning("no score is called %s (TRAIN.BEST), so no best model is kept; there are %s", metric, names)
        return False
    if metric not in before:
        return True
    return scores[metric] < before[metric] if metric.endswith("_mm") else scores[metric] > before[metric]
