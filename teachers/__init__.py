"""Teachers: hand models whose outputs students are distilled from."""

from fasthamer.teachers.hamer import random_hamer
from fasthamer.teachers.teacher import Teacher
from fasthamer.teachers.wilor import random_wilor
from fasthamer.teachers.zoo import (
    TEACHERS,
    box_shape_for,
    build_teacher,
    hand_for,
    members_of,
    notice_of,
    resolve_teacher,
    weights_of,
)

__all__ = [
    "TEACHERS",
    "Teacher",
    "box_shape_for",
    "build_teacher",
    "hand_for",
    "members_of",
    "notice_of",
    "random_hamer",
    "random_wilor",
    "resolve_teacher",
    "weights_of",
]
