"""What the check finds out, one record at a time, so that a part that ends early leaves what it has measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from fasthamer.distill.training_speed import Row


class Speed(NamedTuple):
    """A model in one backend and precision."""

    model: str
    backend: str
    precision: str
    batch: int
    median_ms: float
    p95_ms: float
    apart_mm: float  # farthest vertex from that of the CPU in torch and fp32
    limit_mm: float

    @property
    def fits(self) -> bool:
        return self.apart_mm <= self.limit_mm  # false for NaN


class Check(NamedTuple):
    """A number that has a limit."""

    name: str
    value: float
    limit: float
    unit: str

    @property
    def fits(self) -> bool:
        return self.value <= self.limit


class Training(NamedTuple):
    """A loop's training step."""

    batch: int
    row: Row

    @property
    def fits(self) -> bool:
        return math.isfinite(self.row.median_ms)


class LeftOut(NamedTuple):
    """What was not measured, and why."""

    name: str
    reason: str
    is_failure: bool = False  # of the program; else it cannot run here, or there was no time

    @property
    def fits(self) -> bool:
        return not self.is_failure


Record = Speed | Check | Training | LeftOut
Emit = Callable[[Record], None]
KINDS: dict[str, Any] = {kind.__name__: kind for kind in (Speed, Check, Training, LeftOut)}


def as_json(record: Record) -> dict[str, Any]:
    """Plain data, which `from_json` reads."""
    values = record._asdict()
    if isinstance(record, Training):
        values["row"] = record.row._asdict()
    return {"kind": type(record).__name__, **values}


def from_json(values: dict[str, Any]) -> Record:
    """The record of `as_json`."""
    values = dict(values)
    kind = values.pop("kind")
    if kind == "Training":
        values["row"] = Row(**values["row"])
    return KINDS[kind](**values)
