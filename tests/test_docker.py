"""The Dockerfile without Docker: what it copies exists and reaches the build; it installs what setup.py declares."""

import ast
import fnmatch
import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
STEPS = [
    line.split(maxsplit=1)
    for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
]
IGNORED = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()


def arguments(instruction: str) -> list[str]:
    return [rest for name, rest in STEPS if name == instruction]


def test_every_line_is_an_instruction():
    known = {"FROM", "ARG", "RUN", "WORKDIR", "COPY", "ENV", "USER", "ENTRYPOINT", "CMD"}
    assert STEPS[0][0] == "FROM" and {name for name, _ in STEPS} <= known


def test_everything_copied_exists_and_is_not_ignored():
    copied = [name for each in arguments("COPY") for name in each.split()[:-1]]
    assert all((ROOT / name).exists() for name in copied)
    assert not [name for name in copied for pattern in IGNORED if fnmatch.fnmatch(name, pattern)]
    # what the package is made of: every folder that setup.py installs, and the files it reads
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    siblings = ast.literal_eval(re.search(r"^SIBLINGS = (\(.*\))$", setup, re.MULTILINE)[1])
    assert {"fasthamer", *siblings, "setup.py", "pyproject.toml", "README.md", "LICENSE"} == set(copied)


def test_the_extras_it_installs_exist():
    (extras,) = re.findall(r"'\.\[(\S+)\]'", " ".join(arguments("RUN")))
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert all(f'"{extra}": ' in setup for extra in extras.split(","))


def test_it_runs_the_command_without_privileges():
    names = [name for name, _ in STEPS]
    assert arguments("USER") == ["1000"] and names.index("USER") > names.index("COPY")
    assert json.loads(arguments("ENTRYPOINT")[0]) == ["fasthamer"]
