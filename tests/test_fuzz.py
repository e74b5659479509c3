"""Every reader on some hostile files, and that the guard around them sees what a reader must not do.

All of it: python tests/fuzz.py --inputs 20000
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the guard limits processes as Linux does")

MISBEHAVING = """
import json, os, pickle, signal, sys
from pathlib import Path
from fuzzing import sandbox
from fuzzing.sandbox import Target, attack

folder, outside = Path(sys.argv[1]), sys.argv[2]
sandbox.CPU = 1.0

def turns(reader):
    return lambda folder, path: reader(path) if path.read_bytes() != b"valid" else None

def fails(error):
    def reader(path):
        raise error(f"{path}: no file of mine") if error is not KeyError else error("no name of a file")
    return reader

def hangs(path):
    while True:
        pass

readers = {
    "good": fails(ValueError),
    "writes": lambda path: open(outside, "w"),
    "removes": lambda path: os.remove(outside),
    "executes": lambda path: os.system(f"touch {outside}"),
    "unpickles": lambda path: pickle._Unpickler(open(os.devnull, "rb")).find_class("os", "system"),
    "changes": lambda path: path.write_bytes(b"x"),
    "crashes": lambda path: os.kill(os.getpid(), signal.SIGSEGV),
    "eats": lambda path: bytearray(4 << 30),
    "hangs": hangs,
    "vague": fails(KeyError),
    "other": fails(TypeError),
    "lines": lambda path: fails(ValueError)(f"{path}\\n\\n"),
}
found = {}
for name, reader in readers.items():
    target = Target(name, lambda folder: (folder / "a.txt").write_bytes(b"valid"), turns(reader))
    report = attack(target, 2, 0, folder / name)
    found[name] = [fault["what"] for fault in report.faults]
print(json.dumps(found))
"""


def run(*arguments):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, cwd=TESTS, timeout=1200, check=False
    )


def test_every_reader_takes_hostile_files_or_refuses_them():
    done = run("fuzz.py", "--inputs", 810)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    inputs = re.search(r"(\d+) inputs:.* 0 faults", done.stdout.splitlines()[-1])
    assert inputs and int(inputs[1]) >= 810  # as many of each reader


def test_the_guard_sees_what_a_reader_must_not_do(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("as it was")
    (tmp_path / "inside").mkdir()
    done = run("-c", MISBEHAVING, tmp_path / "inside", outside)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    expected = {
        "good": None,
        "writes": "does open",
        "removes": "does os.remove",
        "executes": "does os.system",
        "unpickles": "does pickle.find_class",
        "changes": "changes the file",
        "crashes": "the process ends with SIGSEGV",
        "eats": "MemoryError",
        "hangs": "over 1 s of processor time",
        "vague": "does not name the file",
        "other": "TypeError",
        "lines": "more than a line",
    }
    for name, text in expected.items():
        assert [what.startswith(text) for what in found[name]] == ([True] if text else []), (name, found[name])
    assert outside.read_text() == "as it was"
