"""Imports flow one way, between files, between packages and between layers; nothing hides one inside a function."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SIBLINGS = ("students", "teachers", "distill", "tools")
FOLDERS = ("fasthamer", *SIBLINGS)
# From the bottom to the top. Each part may import what stands in a row below its own, and its own files.
# `predict`, the Python API, opens students and teachers: it lies in fasthamer/ and stands above them.
LAYERS = (
    ("plain_yaml", "one_line"),
    ("setting_values",),
    ("recipes",),
    ("", "registry", "types", "config", "device", "cores"),
    ("camera", "files"),
    ("hand",),
    ("nn", "metrics", "render"),
    ("data",),
    ("runtime", "training"),
    ("benchmark", "detect"),
    ("students",),
    ("teachers",),
    ("predict",),
    ("video",),
    ("distill", "web"),
    ("tools",),
)
RANK = {part: rank for rank, row in enumerate(LAYERS) for part in row}


def module_name(path: Path) -> str:
    """`fasthamer/camera.py` is fasthamer.camera, `distill/run.py` fasthamer.distill.run, an `__init__` its package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "fasthamer" else ("fasthamer", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))}


def imports(path: Path) -> Iterator[str]:
    """Every module of ours that a file imports, wherever in it: at the top, in functions, for type checkers only."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module is not None, f"{path}:{node.lineno}: import by full name"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            assert name.split(".")[0] not in (*SIBLINGS, "configs"), f"{path}:{node.lineno}: import fasthamer.{name}"
            known = name if name in MODULES else name.rpartition(".")[0]
            if known in MODULES:
                yield known


GRAPH = {name: set(imports(path)) for name, path in MODULES.items()}


def part_of(module: str) -> str:
    """The folder or file directly inside fasthamer: `data` of fasthamer.data.crop; empty for fasthamer itself."""
    return module.split(".")[1] if "." in module else ""


def cycle(graph: Mapping[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def by_package(depth: int) -> dict[str, set[str]]:
    """The graph between folders; what a folder imports of itself, its parents and its subfolders does not count."""
    graph: dict[str, set[str]] = {}
    for module, imported in GRAPH.items():
        own = ".".join(module.split(".")[: depth + 1])
        others = {".".join(other.split(".")[: depth + 1]) for other in imported}
        related = {other for other in others if own.startswith(other) or other.startswith(own)}
        graph.setdefault(own, set()).update(others - related)
    return graph


def test_no_file_imports_itself_in_a_circle():
    assert not (found := cycle(GRAPH)), " -> ".join(found)


@pytest.mark.parametrize("depth", [1, 2])
def test_no_package_imports_itself_in_a_circle(depth):
    assert not (found := cycle(by_package(depth))), " -> ".join(found)


@pytest.mark.parametrize("part", RANK)
def test_nothing_imports_what_stands_above_it(part):
    wrong = [
        f"{module} imports {other}"
        for module, imported in GRAPH.items()
        for other in sorted(imported)
        if part_of(module) == part and part_of(other) != part and RANK[part_of(other)] >= RANK[part]
    ]
    assert not wrong, "\n".join(wrong)


def test_every_part_has_its_place_among_the_layers():
    assert {part_of(module) for module in MODULES} == set(RANK)


def test_a_circle_an_upward_and_a_hidden_import_are_found(tmp_path):
    hidden = tmp_path / "hidden.py"
    hidden.write_text("def later():\n    from fasthamer.types import Batch\n", encoding="utf-8")
    assert list(imports(hidden)) == ["fasthamer.types"]
    assert set(cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": set()})) == {"a", "b", "c"}
    assert RANK["distill"] > RANK["predict"] > RANK["teachers"] > RANK["students"] > RANK["data"] > RANK["files"]


def test_no_file_is_longer_than_350_lines():
    long = {name: n for name, path in MODULES.items() if (n := len(path.read_text("utf-8").splitlines())) > 350}
    assert not long


def test_nothing_calls_for_a_gpu_or_changes_the_environment_at_import():
    for path in MODULES.values():
        text = path.read_text(encoding="utf-8")
        assert ".cuda()" not in text, path
        assert "os.environ[" not in text, path
        assert "pickle.load" not in text.replace("safe_pickle.load", ""), path
        assert "yaml.load(" not in text, path


def test_every_torch_file_is_read_without_executing_it():
    for path in MODULES.values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                options = {each.arg: ast.unparse(each.value) for each in node.keywords}
                assert options.get("weights_only") == "True", f"{path}:{node.lineno}"
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "np.load":
                options = {each.arg: ast.unparse(each.value) for each in node.keywords}
                assert options.get("allow_pickle", "False") == "False", f"{path}:{node.lineno}"
