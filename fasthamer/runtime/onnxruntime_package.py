"""The package onnxruntime, and which of its versions can be used."""

from __future__ import annotations

import re
from typing import Any

OLDEST = (1, 20)  # the first that fasthamer is tested with
OLDEST_INT8 = (1, 32)  # hands of 1.22 and 1.24 are off by 3 mm (docs/reliability.md); setup.py has the same bound
INSTALL = "pip install onnxruntime (or onnxruntime-gpu)"


def import_onnxruntime() -> Any:
    """The package onnxruntime; it is heavy, so it is imported when it is first needed.

    Raises:
        ImportError: it is not installed, or too old.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(f"onnxruntime is not installed: {INSTALL}") from error
    if problem := version_problem(onnxruntime.__version__):
        raise ImportError(problem)
    return onnxruntime


def version_problem(version: str, oldest: tuple[int, int] = OLDEST) -> str | None:
    """Why a version of onnxruntime, such as 1.20.1, cannot be used; None if it can."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is not None and (int(numbers[1]), int(numbers[2])) >= oldest:
        return None
    named = ".".join(map(str, oldest))
    return f"onnxruntime {version} is too old, {named} or newer is needed: pip install 'onnxruntime>={named}'"


def int8_problem(version: str) -> str | None:
    """Why a version of onnxruntime can neither make nor run int8; None if it can."""
    problem = version_problem(version, OLDEST_INT8)
    return problem and f"int8 would be wrong by millimetres: {problem} (or onnxruntime-gpu)"
