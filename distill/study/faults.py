"""The faults of Fast-HaMeR's published code, put into a run on purpose, to measure what each costs.

They are no settings: nobody should train so.
"""

from __future__ import annotations

from collections.abc import Callable

from fasthamer.distill.objective import REFERENCE_BATCH, Weights
from fasthamer.distill.preparation import DistillRun
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


def sums_beside_a_mean(prepared: DistillRun) -> None:
    """All terms are sums over the batch but that of the features, a mean: their balance follows the batch size.

    Raises:
        ValueError: the run compares no features, or its batch is the one at which nothing changes.
    """
    objective, batch = prepared.trainer.objective, prepared.cfg.TRAIN.BATCH
    if not objective.features or batch == REFERENCE_BATCH:
        raise ValueError(
            f"FAULT sums_beside_a_mean is for KD.MODE feature or hybrid and a TRAIN.BATCH other than {REFERENCE_BATCH}"
        )

    def summed(weights: Weights) -> Weights:
        return Weights(*(weight * batch / REFERENCE_BATCH for weight in weights))

    outputs = None if objective.outputs is None else summed(objective.outputs)
    prepared.trainer.objective = objective._replace(labels=summed(objective.labels), outputs=outputs)


FAULTS: dict[str, Callable[[DistillRun], None]] = {
    "frozen_projection": frozen_projection,
    "sums_beside_a_mean": sums_beside_a_mean,
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
