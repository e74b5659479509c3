"""Cached indexes are rebuilt when a source changes, and work in folders of any name."""

import os
import sys

import numpy as np
import pytest

from fasthamer.files.index import cached


class Maker:
    """Counts how often an index is built."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> dict[str, np.ndarray]:
        self.calls += 1
        return {"number": np.array([self.calls])}


@pytest.mark.parametrize(
    "name",
    [
        b"hands",
        "hände".encode(),
        pytest.param(
            b"hands\xff", marks=pytest.mark.skipif(sys.platform != "linux", reason="file names are Unicode here")
        ),
    ],
)
def test_an_index_is_built_once_until_a_source_changes_or_goes(tmp_path, name):
    folder = tmp_path / os.fsdecode(name)
    folder.mkdir()
    source, make = folder / "labels.txt", Maker()

    def number() -> int:
        return int(cached(f"example {folder}", [source], make, str(tmp_path / "index"))["number"][0])

    source.write_text("a")
    assert [number(), number()] == [1, 1]
    source.write_text("longer")
    assert [number(), number()] == [2, 2]
    source.unlink()
    assert [number(), number()] == [3, 3]


def test_a_damaged_index_is_built_again_and_none_is_stored_where_none_is_wanted(tmp_path):
    make, folder = Maker(), tmp_path / "index"
    assert cached("example", [], make, str(folder))["number"] == [1]
    (file,) = folder.iterdir()
    file.write_bytes(file.read_bytes()[:50])
    assert cached("example", [], make, str(folder))["number"] == [2]
    assert [cached("example", [], make, "none")["number"][0] for _ in range(2)] == [3, 4]
