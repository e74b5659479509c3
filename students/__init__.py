"""Light hand models: any timm backbone and a decoder."""

from fasthamer.students.files import load_student, save_student
from fasthamer.students.student import Student
from fasthamer.students.zoo import STUDENTS, build_student, list_students

__all__ = ["STUDENTS", "Student", "build_student", "list_students", "load_student", "save_student"]
