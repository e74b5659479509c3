"""What setup.py declares: dependencies with both bounds, which constraints.txt pins, and every file of the package."""

import fnmatch
import re
import runpy
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PINS = [
    Requirement(line)
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]


@pytest.fixture
def declared(monkeypatch):
    """The arguments of `setup` in setup.py."""
    arguments = {}
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("setuptools.setup", arguments.update)
    runpy.run_path("setup.py")
    return arguments


def requirements(declared):
    """Of the package and of all extras but `assets`, which only makes the shipped files again."""
    extras = [each for name, extra in declared["extras_require"].items() if name != "assets" for each in extra]
    return [Requirement(each) for each in [*declared["install_requires"], *extras]]


def versions(name):
    """Those that constraints.txt pins, of which markers select one."""
    same = re.compile(re.sub(r"[-_.]+", "[-_.]+", name), re.IGNORECASE)
    return [next(iter(each.specifier)).version for each in PINS if same.fullmatch(each.name)]


def test_every_dependency_has_a_lower_and_an_upper_bound(declared):
    for each in requirements(declared):
        assert {part.operator for part in each.specifier} in ({">=", "<"}, {"=="}), each


def test_every_dependency_is_pinned_within_its_bounds(declared):
    for each in requirements(declared):
        assert versions(each.name), f"{each.name} is not in constraints.txt: make constraints"
        assert all(version in each.specifier for version in versions(each.name)), each


def test_a_constraint_is_one_public_version_from_any_index():
    for each in PINS:
        assert each.url is None and [part.operator for part in each.specifier] == ["=="], each
        assert "+" not in str(each.specifier), f"{each} exists on one index only"


def test_every_shipped_file_and_recipe_is_package_data(declared):
    for folder, package in (("fasthamer", "fasthamer"), ("configs", "fasthamer.configs")):
        patterns = declared["package_data"][package]
        files = [path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*") if path.is_file()]
        for path in files:
            if path.suffix not in (".py", ".pyc", ".so"):
                fits = [
                    each
                    for each in patterns
                    if fnmatch.fnmatch(str(path), each) and each.count("/") == len(path.parts) - 1
                ]
                assert fits, f"{path} would be missing in a wheel: package_data in setup.py"


def test_the_licences_of_all_that_is_shipped_are_named(declared):
    licences = {path.relative_to(ROOT).as_posix() for path in (ROOT / "fasthamer").rglob("LICENSE*")}
    assert set(declared["license_files"]) == {"LICENSE", *licences}


def test_the_docker_image_takes_torch_within_the_same_bounds(declared):
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    found = {each for each in declared["install_requires"] if each.startswith("torch")}
    assert len(found) == 2 and all(f"'{each}'" in text for each in found)
