"""Settings that no training can use, refused before anything is computed or written."""

from __future__ import annotations

from yacs.config import CfgNode

from fasthamer.recipes import flatten
from fasthamer.registry import unknown
from fasthamer.training.schedule import SCHEDULES

LEAST = {
    "TRAIN.BATCH": 1,
    "TRAIN.ACCUMULATE": 1,
    "TRAIN.SKIPS": 1,
    "TRAIN.KEEP": 1,
    "TRAIN.WARMUP": 0,
    "EVAL.BATCH": 1,
    "DATA.WORKERS": 0,
}


def check_settings(cfg: CfgNode) -> None:
    """
    Raises:
        ValueError: a number is too small.
        KeyError: no such schedule.
    """
    values = dict(flatten(cfg))
    for key, least in LEAST.items():
        if values[key] < least:  # type: ignore[operator]
            raise ValueError(f"{key} is {values[key]}: it has to be at least {least}")
    if cfg.KD.TEMPERATURE <= 0:
        raise ValueError(f"KD.TEMPERATURE is {cfg.KD.TEMPERATURE}: it has to be above 0")
    if cfg.TRAIN.SCHEDULE not in SCHEDULES:
        raise KeyError(unknown("schedule", cfg.TRAIN.SCHEDULE, SCHEDULES))
