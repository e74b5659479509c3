"""Everything that trains, as one module: the student and, for feature distillation, the projection."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from fasthamer.distill.alignment import ALIGNMENTS, align
from fasthamer.registry import unknown
from fasthamer.students.split_backbone import TrainedStages
from fasthamer.types import HandOutput, View

DIRECTIONS = ("teacher_to_student", "student_to_teacher")


class LearnerOutput(NamedTuple):
    """What the objective needs of one forward pass."""

    hand: HandOutput
    student_map: Tensor | None = None  # (B, C, h, w) on the common grid, in the compared space
    teacher_map: Tensor | None = None  # (B, C, h, w)


class OrthogonalProjection(nn.Module):
    """A 1x1 convolution whose matrix stays orthogonal (VkD, Miles et al. 2024): (B, C, h, w) to (B, C', h, w)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        # Cayley's map needs one linear solve a step; torch's default, Householder's product, took 6 times as long
        self.linear = orthogonal(nn.Linear(inputs, outputs, bias=False), orthogonal_map="cayley")

    def forward(self, features: Tensor) -> Tensor:
        return torch.einsum("oc,bchw->bohw", self.linear.weight, features)


class Learner(nn.Module):
    """The optimizer takes `learner.parameters()`; what is saved in the end is `learner.student`.

    The teacher is no part of it: it would be put in train mode, moved by the optimizer and saved with the student.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student
        self.projection: nn.Module | None = None

    def compare_features(
        self, teacher_channels: int, teacher_view: View, direction: str, alignment: str, orthogonal: bool = False
    ) -> Learner:
        """Adds the 1x1 projection between the two feature spaces; from now on `forward` wants the teacher's map.

        Args:
            teacher_channels: channels of the teacher's map.
            teacher_view: what it covers of the crop.
            direction: `teacher_to_student` compares in the student's space, as Fast-HaMeR does;
                `student_to_teacher` in the teacher's, as FitNets does.
            alignment: `exact` or `stretch`: see `fasthamer.distill.alignment`.
            orthogonal: keep the projection's matrix orthogonal.

        Raises:
            KeyError: no such direction or alignment.
        """
        if direction not in DIRECTIONS:
            raise KeyError(unknown("direction", direction, DIRECTIONS))
        if alignment not in ALIGNMENTS:
            raise KeyError(unknown("alignment", alignment, ALIGNMENTS))
        student_channels: int = self.student.feature_channels  # type: ignore[assignment]
        self.student_view: View = self.student.view  # type: ignore[assignment]
        self.teacher_view, self.alignment = teacher_view, alignment
        self.projects_teacher = direction == "teacher_to_student"
        inputs, outputs = teacher_channels, student_channels
        if not self.projects_teacher:
            inputs, outputs = outputs, inputs
        self.projection = OrthogonalProjection(inputs, outputs) if orthogonal else nn.Conv2d(inputs, outputs, 1)
        return self

    def start_at_frozen_maps(self) -> None:
        """From now on `forward` wants the map of the backbone's frozen stages in place of the image.

        Raises:
            ValueError: this backbone cannot be run from there.
        """
        self._stages = (TrainedStages(self.student.backbone, self.student.image_size),)  # type: ignore[arg-type]

    def _of_maps(self, maps: Tensor) -> HandOutput:
        tapped, last = self._stages[0](maps)
        return self.student.decode(last)._replace(features=tapped)  # type: ignore[operator]

    def forward(
        self, image: Tensor, teacher_features: Tensor | None = None, maps: Tensor | None = None
    ) -> LearnerOutput:
        """
        Args:
            image: (B, 3, S, S) RGB, 0..255.
            teacher_features: (B, Ct, ht, wt), only (and always) after `compare_features`.
            maps: (B, C, h, w), the map of the frozen stages, only (and always) after `start_at_frozen_maps`.
        """
        hand = self.student(image) if maps is None else self._of_maps(maps)
        if self.projection is None:
            return LearnerOutput(hand)
        if teacher_features is None:
            raise ValueError("this learner compares features: pass the teacher's")
        with torch.autocast(image.device.type, enabled=False):
            student_map, teacher_map = align(
                hand.features, teacher_features, self.student_view, self.teacher_view, self.alignment
            )
        # A 1x1 convolution commutes with averaging over cells, so projecting last costs least.
        if self.projects_teacher:
            return LearnerOutput(hand, student_map, self.projection(teacher_map))
        return LearnerOutput(hand, self.projection(student_map), teacher_map)
