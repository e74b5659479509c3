"""The faults of Fast-HaMeR's published code, put into a run on purpose, to measure what each costs.

They are no settings: nobody should train so.
"""

from __future__ import annotations

from collections.abc import Callable

from fasthamer.distill.run import DistillRun
from fasthamer.registry import unknown
from fasthamer.teachers.cache.cached_teacher import CachedTeacher


def frozen_projection(prepared: DistillRun) -> None:
    """The projection between the feature maps is in no optimizer: it stays as it was drawn.

    Raises:
        ValueError: the run compares no features.
    """
    projection = prepared.trainer.learner.projection
    if projection is None:
        raise ValueError("FAULT frozen_projection is for KD.MODE feature or hybrid")
    projection.requires_grad_(False)


def teacher_in_train_mode(prepared: DistillRun) -> None:
    """The teacher is never put into eval mode: dropout, drop-path and batch statistics disturb its answers.

    Raises:
        ValueError: the run has no teacher, or one whose answers are stored.
    """
    teacher = prepared.trainer.teacher
    if teacher is None or isinstance(teacher, CachedTeacher):
        raise ValueError("FAULT teacher_in_train_mode needs a teacher that is asked at every step: no TEACHER.CACHE")
    for part in teacher.modules():
        part.training = True


FAULTS: dict[str, Callable[[DistillRun], None]] = {
    "frozen_projection": frozen_projection,
    "teacher_in_train_mode": teacher_in_train_mode,
}


def with_fault(prepared: DistillRun, name: str) -> DistillRun:
    """The run with a fault; as it is if `name` is empty.

    Raises:
        KeyError: no such fault.
        ValueError: the run cannot have it.
    """
    if name:
        if name not in FAULTS:
            raise KeyError(unknown("fault", name, FAULTS))
        FAULTS[name](prepared)
    return prepared
