"""Teachers: hand models whose outputs students are distilled from."""

from fasthamer.teachers.hamer import random_hamer
from fasthamer.teachers.teacher import Teacher
from fasthamer.teachers.zoo import TEACHERS, build_teacher, hand_for, resolve_teacher

__all__ = ["TEACHERS", "Teacher", "build_teacher", "hand_for", "random_hamer", "resolve_teacher"]
