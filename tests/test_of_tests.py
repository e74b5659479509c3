"""What no test does: replace parts of torch or NumPy for everyone, or fail because the machine is busy."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = sorted(Path(__file__).parent.glob("*.py"))
GLOBALS = ("torch", "np", "numpy", "nn", "cv2")
CLOCKS = ("perf_counter", "process_time", "monotonic", "time")


def faults(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("setattr") and node.args:
            target = ast.unparse(node.args[0]).strip("'\"").split(".")[0]
            if target in GLOBALS:
                yield f"line {node.lineno}: replaces a part of {target}"
        if isinstance(node, ast.Assign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Attribute) and ast.unparse(target).split(".")[0] in GLOBALS:
                    yield f"line {node.lineno}: replaces a part of {ast.unparse(target)}"
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub) and _reads_a_clock(node):
            yield f"line {node.lineno}: measures time; count calls (counting.py) or pass a clock"


def _reads_a_clock(node: ast.BinOp) -> bool:
    if isinstance(node.right, ast.Constant):  # two hours ago, as a file's date
        return False
    calls = [each.func for each in ast.walk(node) if isinstance(each, ast.Call)]
    return any(
        isinstance(each, ast.Attribute) and ast.unparse(each) in {f"time.{name}" for name in CLOCKS} for each in calls
    )


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_no_test_replaces_globals_or_measures_time(path):
    assert not list(faults(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "source",
    [
        "monkeypatch.setattr(torch, 'compile', None)",
        "monkeypatch.setattr('torch.compile', None)",
        "monkeypatch.setattr(torch.Tensor, 'float', None)",
        "np.sum = max",
        "assert time.perf_counter() - began < 10",
    ],
)
def test_such_tests_are_found(source):
    assert len(list(faults(source))) == 1
