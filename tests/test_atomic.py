"""Files and folders are complete or absent, whatever fails and however many processes write."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from full_disk import full_disk
from safetensors.torch import save_file

from fasthamer.files.atomic import DRAFT, remove_drafts, replacing, write_bytes, write_json, write_text
from fasthamer.files.images import read_image, write_image


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_and_its_folders_are_created(tmp_path):
    path = tmp_path / "a" / "b" / "text.txt"
    write_text(path, "one\r\ntwo é\n")
    assert path.read_bytes() == "one\r\ntwo é\n".encode()
    assert names(path.parent) == ["text.txt"]


def test_json_is_indented_and_refuses_what_json_does_not_have(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1]})
    before = (tmp_path / "a.json").read_text()
    assert json.loads(before) == {"a": [1]} and before.endswith("}\n")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    assert (tmp_path / "a.json").read_text() == before


def test_a_failed_write_leaves_the_old_file_and_no_draft(tmp_path):
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")
    with full_disk(), pytest.raises(OSError, match=r"large|space"):
        write_bytes(path, bytes(10_000))
    assert path.read_bytes() == b"old" and names(tmp_path) == ["a.bin"]

    def half(draft: Path) -> None:
        draft.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), replacing(path) as draft:
        half(draft)
    assert path.read_bytes() == b"old" and names(tmp_path) == ["a.bin"]


def test_a_block_that_writes_nothing_is_a_mistake_and_removes_nothing(tmp_path):
    write_bytes(tmp_path / "a", b"old")
    with pytest.raises(AssertionError, match="nothing was written"), replacing(tmp_path / "a"):
        pass
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_folder_replaces_a_folder(tmp_path):
    for content in ("first", "second"):
        with replacing(tmp_path / "step_1") as draft:
            draft.mkdir()
            (draft / content).write_text(content)
            assert not (tmp_path / "step_1" / content).exists()
    assert names(tmp_path) == ["step_1"] and names(tmp_path / "step_1") == ["second"]


def test_files_beside_the_draft_come_along(tmp_path):
    with replacing(tmp_path / "model.xml") as draft:
        draft.write_text("graph")
        draft.with_suffix(".bin").write_bytes(b"weights")
    assert names(tmp_path) == ["model.bin", "model.xml"]


def test_a_library_that_appends_suffixes_meets_the_right_one(tmp_path):
    with replacing(tmp_path / "a.npz") as draft:
        np.savez(draft, x=np.arange(3))
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays["x"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_permissions_are_those_of_any_new_file(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        write_bytes(tmp_path / "a", b"")
        with replacing(tmp_path / "folder") as draft:
            draft.mkdir()
            save_file({"x": torch.zeros(1)}, draft / "b.safetensors")  # as it writes it, only for its owner
    finally:
        os.umask(before)
    for file in ("a", "folder/b.safetensors"):
        assert (tmp_path / file).stat().st_mode & 0o777 == mode
    assert (tmp_path / "folder").stat().st_mode & 0o777 == mode | (mode & 0o444) >> 2  # folders are searchable too


def write_often(path: Path, letter: bytes) -> None:
    for _ in range(50):
        write_bytes(path, letter * 100_000)


def test_processes_that_write_the_same_file_do_not_collide(tmp_path):
    path = tmp_path / "shared.bin"
    write_bytes(path, b"z" * 100_000)
    writers = [multiprocessing.Process(target=write_often, args=(path, letter)) for letter in (b"a", b"b", b"c")]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        found = path.read_bytes()
        assert len(found) == 100_000 and len(set(found)) == 1
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert names(tmp_path) == ["shared.bin"]


def test_drafts_of_killed_processes_are_removed_once_they_are_old(tmp_path):
    young, old = tmp_path / f".a.x{DRAFT}", tmp_path / f".b.y{DRAFT}"
    for draft in (young, old):
        draft.mkdir()
        (draft / "a").write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    (tmp_path / ".hidden").write_bytes(b"")
    remove_drafts(tmp_path)
    assert names(tmp_path) == [young.name, ".hidden"]
    remove_drafts(tmp_path, older_than=0.0)
    assert names(tmp_path) == [".hidden"]


def test_an_image_is_written_whole_or_the_error_names_it(tmp_path):
    image = np.zeros((8, 6, 3), np.uint8)
    image[..., 0] = 255  # red
    write_image(tmp_path / "new" / "a.png", image)
    assert np.array_equal(read_image(tmp_path / "new" / "a.png"), image)
    write_image(tmp_path / "a.jpg", image)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - image).max() < 5
    for name in ("a.xyz", "a"):
        with pytest.raises(ValueError, match=rf"cannot write .*{name}: .*use \.png or \.jpg"):
            write_image(tmp_path / name, image)
    with full_disk(), pytest.raises(OSError, match=r"large|space"):
        write_image(tmp_path / "noise.png", np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8))
    assert names(tmp_path) == ["a.jpg", "new"]
