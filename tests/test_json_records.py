"""Random access to records of large JSON files, and the cached index of their positions."""

import json

import numpy as np
import pytest

from fasthamer.files.json_records import JsonRecords


@pytest.mark.parametrize("separators", [(", ", ": "), (",", ":")])
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("block", [1 << 23, 64])
def test_records_are_found_in_any_json_layout(tmp_path, separators, indent, block):
    values = np.random.default_rng(0).normal(size=(5, 4, 3))
    (tmp_path / "x.json").write_text(json.dumps(values.tolist(), separators=separators, indent=indent) + "\n")
    records = JsonRecords(tmp_path / "x.json", (4, 3), block=block)
    np.testing.assert_array_equal([records[i] for i in range(len(records))], values)
    # A gap shorter than a record: commas come in the middle of blocks.
    again = JsonRecords(tmp_path / "x.json", (4, 3), block=block, gap=100)
    np.testing.assert_array_equal((again.starts, again.stops), (records.starts, records.stops))


@pytest.mark.parametrize("text", ["", "[]", "[[1, 2]]", '{"a": 1}', "nonsense"])
def test_json_that_is_not_a_list_of_arrays_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=r"x\.json"):
        JsonRecords(tmp_path / "x.json", (4, 3))


def test_the_index_is_reused_until_the_file_changes(tmp_path):
    path, cache = tmp_path / "x.json", str(tmp_path / "cache")
    values = np.random.default_rng(0).normal(size=(5, 4, 3))
    path.write_text(json.dumps(values.tolist()))
    JsonRecords(path, (4, 3), cache, large=0)
    (index,) = (tmp_path / "cache").iterdir()
    written = index.stat().st_mtime_ns
    np.testing.assert_array_equal(JsonRecords(path, (4, 3), cache, large=0)[4], values[4])
    assert index.stat().st_mtime_ns == written
    path.write_text(path.read_text().replace("]], [[", "]],[[ ", 1))  # as long as before
    np.testing.assert_array_equal(JsonRecords(path, (4, 3), cache, large=0)[1], values[1])
    assert JsonRecords(path, (4, 3), cache, large=0).starts[1] == path.read_text().index("]],[[") + 3
    path.write_text(json.dumps(values[:3].tolist()))
    assert len(JsonRecords(path, (4, 3), cache, large=0)) == 3


def test_without_a_writable_cache_the_index_is_rebuilt(tmp_path):
    (tmp_path / "taken").write_text("a file where the folder should be")
    (tmp_path / "x.json").write_text(json.dumps(np.zeros((2, 4, 3)).tolist()))
    assert len(JsonRecords(tmp_path / "x.json", (4, 3), str(tmp_path / "taken"), large=0)) == 2
    assert len(JsonRecords(tmp_path / "x.json", (4, 3), "none", large=0)) == 2
