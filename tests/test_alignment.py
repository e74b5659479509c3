"""Feature maps compared at the same places of the crop."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate

from fasthamer.distill.alignment import align
from fasthamer.types import View

WHOLE = View()
VIT = View(left=-0.375, right=0.375)  # HaMeR's: columns 32..224 of 256


def test_hamers_map_pools_two_by_two_and_meets_the_students_columns_one_to_six():
    student, teacher = torch.randn(2, 5, 8, 8), torch.randn(2, 7, 16, 12)
    ours, theirs = align(student, teacher, WHOLE, VIT, "exact")
    assert torch.equal(ours, student[..., 1:7])
    torch.testing.assert_close(theirs, avg_pool2d(teacher, 2))


def test_equal_views_and_grids_are_left_alone():
    student, teacher = torch.randn(1, 2, 8, 8), torch.randn(1, 3, 8, 8)
    ours, theirs = align(student, teacher, WHOLE, WHOLE, "exact")
    assert torch.equal(ours, student)
    assert torch.equal(theirs, teacher)


def test_a_finer_student_is_pooled_to_the_teachers_cells():
    student, teacher = torch.randn(1, 2, 32, 32), torch.randn(1, 3, 16, 12)
    ours, theirs = align(student, teacher, WHOLE, VIT, "exact")
    torch.testing.assert_close(ours, avg_pool2d(student, 2)[..., 2:14])
    assert torch.equal(theirs, teacher)


@pytest.mark.parametrize(
    ("rows", "columns", "view"), [(7, 7, WHOLE), (6, 10, View(-0.4, -0.45, 0.4, 0.5)), (2, 2, WHOLE)]
)
def test_grids_that_do_not_nest_average_by_area(rows, columns, view):
    """Against brute force: the teacher painted on a fine canvas of the crop, averaged over each student cell."""
    teacher = torch.randn(1, 1, 16, 12)
    ours, theirs = align(torch.randn(1, 1, rows, columns), teacher, view, VIT, "exact")
    y_student, y_teacher = _cells_at(view.top, view.bottom, rows), _cells_at(VIT.top, VIT.bottom, 16)
    x_student, x_teacher = _cells_at(view.left, view.right, columns), _cells_at(VIT.left, VIT.right, 12)
    expected = [
        [teacher[0, 0][y_teacher[y]][:, x_teacher[x]].mean() for x in _common(x_student, x_teacher, columns)]
        for y in _common(y_student, y_teacher, rows)
    ]
    torch.testing.assert_close(theirs[0, 0], torch.tensor(expected), atol=0.02, rtol=0)
    assert ours.shape == theirs.shape


def _cells_at(begin: float, end: float, cells: int) -> torch.Tensor:
    """The cell at each of 2520 positions along the crop; -1 outside."""
    at = (torch.arange(2520) + 0.5) / 2520 - 0.5
    cell = ((at - begin) / (end - begin) * cells).floor().long()
    return torch.where((at > begin) & (at < end), cell, -1)


def _common(student: torch.Tensor, teacher: torch.Tensor, cells: int) -> list[torch.Tensor]:
    """Positions that both see of each student cell whose middle the teacher sees."""
    inside = [(student == cell).nonzero().flatten() for cell in range(cells)]
    return [each[teacher[each] >= 0] for each in inside if teacher[each[len(each) // 2]] >= 0]


def test_a_ramp_over_the_crop_is_the_same_ramp_in_both_maps():
    """`exact`: a function of the position agrees, whatever grid sampled it."""

    def ramp(view, cells):
        edges = torch.linspace(view.left, view.right, cells + 1)
        return ((edges[:-1] + edges[1:]) / 2).expand(1, 1, 4, cells)

    for cells in (7, 8, 9, 12, 14):
        ours, theirs = align(ramp(WHOLE, cells), ramp(VIT, 12), WHOLE, VIT, "exact")
        inner = slice(1, -1)  # border cells are cut to what both see, and the coarser side cannot be cut
        torch.testing.assert_close(ours[..., inner], theirs[..., inner], atol=0.02, rtol=0)


def test_stretch_is_the_papers_resize():
    student, teacher = torch.randn(1, 2, 8, 8), torch.randn(1, 3, 16, 12)
    ours, theirs = align(student, teacher, WHOLE, VIT, "stretch")
    assert torch.equal(ours, student)
    torch.testing.assert_close(theirs, interpolate(teacher, size=(8, 8), mode="bilinear"))


def test_views_without_a_common_region_are_refused():
    with pytest.raises(ValueError, match="no common place"):
        align(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), View(right=-0.1), View(left=0.1), "exact")


def test_an_unknown_alignment_names_the_nearest():
    with pytest.raises(KeyError, match="did you mean 'exact'"):
        align(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), WHOLE, WHOLE, "exakt")
