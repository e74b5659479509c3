"""Feature maps of two networks, brought to the same places of the crop.

HaMeR's ViT sees columns 32..224 of the 256-pixel crop in a 16x12 map, a student the whole crop in 8x8. After a plain
resize (the paper's way, `stretch`) equal cells are different places: the left edge of the teacher's map lies where the
student's second column is. `exact` averages both maps over common cells instead.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fasthamer.registry import unknown
from fasthamer.types import View

ALIGNMENTS = ("exact", "stretch")

Span = tuple[float, float]  # begin and end along one axis, crop units


def align(student: Tensor, teacher: Tensor, student_view: View, teacher_view: View, how: str) -> tuple[Tensor, Tensor]:
    """Both maps, on one grid.

    Args:
        student: (B, Cs, hs, ws); its cells tile `student_view`.
        teacher: (B, Ct, ht, wt); its cells tile `teacher_view`.
        student_view: what the student's backbone sees.
        teacher_view: what the teacher's backbone sees.
        how: `exact`: the coarser map's cells where both see, each map averaged over them;
            `stretch`: the teacher's map resized to the student's grid, whatever either sees.

    Returns:
        (B, Cs, h, w) and (B, Ct, h, w), float32.

    Raises:
        KeyError: no such alignment.
        ValueError: `exact`, and the two views share no cell.
    """
    student, teacher = student.float(), teacher.float()
    if how == "stretch":
        size = student.shape[-2:]
        return student, interpolate(teacher, size=size, mode="bilinear", align_corners=False)
    if how != "exact":
        raise KeyError(unknown("alignment", how, ALIGNMENTS))
    rows = common_cells(
        student.shape[-2],
        teacher.shape[-2],
        (student_view.top, student_view.bottom),
        (teacher_view.top, teacher_view.bottom),
    )
    columns = common_cells(
        student.shape[-1],
        teacher.shape[-1],
        (student_view.left, student_view.right),
        (teacher_view.left, teacher_view.right),
    )
    return _average(student, rows[0], columns[0]), _average(teacher, rows[1], columns[1])


@lru_cache(maxsize=64)
def common_cells(student: int, teacher: int, student_span: Span, teacher_span: Span) -> tuple[Tensor, Tensor]:
    """Averaging weights that take each side's cells along one axis to the common ones.

    The common cells are the coarser side's whose centre both sides see, cut to what both see.

    Args:
        student: number of the student's cells, which tile its span evenly.
        teacher: number of the teacher's.
        student_span: what the student sees along this axis.
        teacher_span: what the teacher sees.

    Returns:
        (N, student) and (N, teacher); rows sum to 1.
    """
    student_edges = torch.linspace(*student_span, student + 1, dtype=torch.float64)
    teacher_edges = torch.linspace(*teacher_span, teacher + 1, dtype=torch.float64)
    begin, end = max(student_span[0], teacher_span[0]), min(student_span[1], teacher_span[1])
    student_is_coarser = student_span[1] - student_span[0] >= (teacher_span[1] - teacher_span[0]) * student / teacher
    coarser = student_edges if student_is_coarser else teacher_edges
    centres = (coarser[:-1] + coarser[1:]) / 2
    seen = (centres > begin) & (centres < end)
    if not seen.any():
        raise ValueError(f"student and teacher see no common place: {student_span} and {teacher_span} of the crop")
    low, high = coarser[:-1][seen].clamp(min=begin), coarser[1:][seen].clamp(max=end)
    return _overlap(low, high, student_edges), _overlap(low, high, teacher_edges)


def _overlap(low: Tensor, high: Tensor, edges: Tensor) -> Tensor:
    """(N, cells) share of each target cell [low, high] that each source cell covers."""
    covered = torch.minimum(high[:, None], edges[None, 1:]) - torch.maximum(low[:, None], edges[None, :-1])
    covered = covered.clamp(min=0)
    covered = covered.where(covered > 1e-9, 0)  # rounding of edges that touch
    return (covered / covered.sum(1, keepdim=True)).float()


def _average(features: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    rows, columns = (each.to(features.device, non_blocking=True) for each in (rows, columns))
    return torch.einsum("yh,bchw,xw->bcyx", rows, features, columns)
