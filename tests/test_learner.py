"""The learner: all that trains, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d, conv2d

from fasthamer.distill.learner import Learner
from fasthamer.types import HandOutput, View

VIT = View(left=-0.375, right=0.375)


class Stub(nn.Module):
    """A student whose feature map is a learned multiple of the image."""

    view, feature_channels, image_size = View(), 3, 8

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(2.0))

    def forward(self, image):
        n = len(image)
        zeros = (torch.zeros(n, 778, 3), torch.zeros(n, 21, 3), torch.zeros(n, 21, 2), torch.zeros(n, 3))
        return HandOutput(*zeros, features=self.gain * image)


def test_without_features_there_is_no_projection_and_no_map():
    learner = Learner(Stub())
    output = learner(torch.ones(2, 3, 8, 8))
    assert output.student_map is None
    assert [name for name, _ in learner.named_parameters()] == ["student.gain"]


@pytest.mark.parametrize("direction", ["teacher_to_student", "student_to_teacher"])
def test_the_projection_is_a_one_by_one_convolution_that_trains_with_the_student(direction):
    learner = Learner(Stub()).compare_features(5, VIT, direction, "exact")
    image, teacher = torch.randn(2, 3, 8, 8), torch.randn(2, 5, 16, 12)
    output = learner(image, teacher)
    weight, bias = learner.projection.weight, learner.projection.bias
    ours, theirs = 2 * image[..., 1:7], avg_pool2d(teacher, 2)
    if direction == "teacher_to_student":
        theirs = avg_pool2d(conv2d(teacher, weight, bias), 2)  # projected first, as the paper does: the same
    else:
        ours = conv2d(ours, weight, bias)
    torch.testing.assert_close(output.student_map, ours)
    torch.testing.assert_close(output.teacher_map, theirs)
    (output.student_map - output.teacher_map).square().mean().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in learner.parameters())
    assert {name for name, _ in learner.named_parameters()} == {"student.gain", "projection.weight", "projection.bias"}


def test_features_without_the_teachers_are_refused():
    with pytest.raises(ValueError, match="pass the teacher's"):
        Learner(Stub()).compare_features(5, VIT, "teacher_to_student", "exact")(torch.ones(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("direction", "alignment", "hint"),
    [("teacher_to_studnt", "exact", "teacher_to_student"), ("student_to_teacher", "strech", "stretch")],
)
def test_a_mistyped_choice_names_the_nearest(direction, alignment, hint):
    with pytest.raises(KeyError, match=f"did you mean '{hint}'"):
        Learner(Stub()).compare_features(5, VIT, direction, alignment)
