"""What a cell's training costs, and which share of it is the teacher's."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from fasthamer.distill.preparation import DistillRun
from fasthamer.teachers.cache.cached_teacher import CachedTeacher


class TeacherClock:
    """Times every answer of a run's teacher, computed or read from its cache.

    Args:
        prepared: the run; its teacher's answers are timed from now on.
    """

    def __init__(self, prepared: DistillRun) -> None:
        self.taken: list[float] = []  # seconds
        self.device = prepared.trainer.accelerator.device
        teacher = prepared.trainer.teacher
        if teacher is not None:
            method = "recall" if isinstance(teacher, CachedTeacher) else "forward"
            setattr(teacher, method, self._timed(getattr(teacher, method)))

    def share(self, seconds: float) -> float:
        """The teacher's share of a training step that takes so many seconds; 0 without a teacher."""
        return statistics.median(self.taken) / seconds if self.taken else 0.0

    def _timed(self, answer: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            begun = self._now()
            found = answer(*arguments, **named)
            self.taken.append(self._now() - begun)
            return found

        return timed

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return perf_counter()


def images_per_second(run: Path) -> float:
    """The median over a training's log lines."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return statistics.median(line["images_per_second"] for line in lines if line["phase"] == "train")
