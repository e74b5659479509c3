"""Imports flow one way: tools -> distill -> teachers -> students -> fasthamer."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("fasthamer", "students", "teachers", "distill", "tools")  # each may import itself and what stands before it
# The Python interface opens finished models; it stands on top of the package although it lies inside.
ABOVE = {"fasthamer/predict.py": "teachers"}


def layer_of(module: str) -> str:
    """`fasthamer.training.loop` belongs to distill, `fasthamer.camera` to fasthamer."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LAYERS else parts[0]


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import by full name"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("layer", LAYERS)
def test_no_module_imports_what_stands_above_it(layer):
    wrong = []
    for path in sorted((ROOT / layer).rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        rank = LAYERS.index(ABOVE.get(name, layer))
        for module in imports(path):
            assert module.split(".")[0] not in LAYERS[1:], f"{name} imports {module} by its bare name"
            if module.startswith("fasthamer.") and LAYERS.index(layer_of(module)) > rank:
                wrong.append(f"{name} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_nothing_calls_for_a_gpu_or_changes_the_environment_at_import():
    for layer in LAYERS:
        for path in (ROOT / layer).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert ".cuda()" not in text, path
            assert "os.environ[" not in text, path
            assert "pickle.load" not in text.replace("safe_pickle.load", ""), path
            assert "yaml.load(" not in text, path


def test_every_torch_file_is_read_without_executing_it():
    for layer in LAYERS:
        for path in (ROOT / layer).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                    options = {each.arg: ast.unparse(each.value) for each in node.keywords}
                    assert options.get("weights_only") == "True", f"{path}:{node.lineno}"
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "np.load":
                    options = {each.arg: ast.unparse(each.value) for each in node.keywords}
                    assert options.get("allow_pickle", "False") == "False", f"{path}:{node.lineno}"
