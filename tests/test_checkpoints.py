"""Checkpoints that are damaged, too many, without space; the best model; who may write into a run directory."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from full_disk import full_disk

from fasthamer.config import load_config
from fasthamer.training.accelerator import accelerator_for
from fasthamer.training.best import improves
from fasthamer.training.checkpoint import (
    Trainable,
    checkpoints,
    fault_of,
    load_checkpoint,
    read_facts,
    save_checkpoint,
)
from fasthamer.training.run_dir import RunInUse, last_checkpoint, refuse_busy, refuse_foreign, writing


@pytest.fixture
def state():
    torch.manual_seed(0)
    model = torch.nn.Linear(300, 20)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 300)).sum().backward()
    optimizer.step()
    return Trainable({"model": model}, {"model": optimizer})


def names(folder: Path) -> list[str]:
    return [path.name for path in checkpoints(folder)]


def flip(file: Path) -> None:
    """One bit in the middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_checkpoint_lists_the_checksums_of_all_its_files(tmp_path, state):
    path = save_checkpoint(tmp_path, 3, state, {"lanes": [1]})
    lines = dict(reversed(line.split("  ")) for line in (path / "SHA256SUMS").read_text().splitlines())
    assert lines.keys() == {"model.safetensors", "optimizers.pt", "state.json"}
    for name, digest in lines.items():
        assert hashlib.sha256((path / name).read_bytes()).hexdigest() == digest
    assert fault_of(path) == "" and load_checkpoint(path, state) == {"step": 3, "lanes": [1]}


DAMAGES: dict[str, Callable[[Path], object]] = {
    r"model\.safetensors does not have its checksum": lambda path: flip(path / "model.safetensors"),
    r"optimizers\.pt does not have its checksum": lambda path: os.truncate(path / "optimizers.pt", 100),
    r"state\.json does not have its checksum": lambda path: (path / "state.json").write_text('{"step": 7}'),
    r"optimizers\.pt is missing": lambda path: (path / "optimizers.pt").unlink(),
    r"SHA256SUMS is no list of checksums": lambda path: (path / "SHA256SUMS").write_bytes(b"\xff\0"),
    r"model\.safetensors does not have": lambda path: (path / "SHA256SUMS").write_text(""),
}


@pytest.mark.parametrize("fault", DAMAGES)
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path, state, fault, caplog):
    run = tmp_path / "run"
    for step in (2, 4):
        save_checkpoint(run / "checkpoints", step, state)
    DAMAGES[fault](run / "checkpoints" / "step_4")
    with pytest.raises(ValueError, match=rf"step_4 is damaged: {fault}"):
        load_checkpoint(run / "checkpoints" / "step_4", state)
    with caplog.at_level(logging.WARNING):
        found = last_checkpoint(run)
    assert found == run / "checkpoints" / "step_2" and "step_4 is damaged" in caplog.text
    assert read_facts(found) == {"step": 2}

    save_checkpoint(run / "checkpoints", 3, state, keep=1)  # where the run goes on, the damaged one must not stay
    assert names(run / "checkpoints") == ["step_3"]


def test_only_damaged_checkpoints_are_an_error_not_a_new_start(tmp_path, state):
    flip(save_checkpoint(tmp_path / "checkpoints", 2, state) / "optimizers.pt")
    with pytest.raises(ValueError, match=r"all checkpoints in .* are damaged: remove them"):
        last_checkpoint(tmp_path)
    assert last_checkpoint(tmp_path / "nothing") is None


def test_a_checkpoint_from_before_checksums_is_read(tmp_path, state):
    path = save_checkpoint(tmp_path / "checkpoints", 2, state)
    (path / "SHA256SUMS").unlink()
    assert last_checkpoint(tmp_path) == path and load_checkpoint(path, state) == {"step": 2}


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_checkpoints_stay(tmp_path, state, keep):
    for step in (2, 9, 10, 11):
        save_checkpoint(tmp_path, step, state, keep=keep)
    assert names(tmp_path) == ["step_9", "step_10", "step_11"][3 - keep :]


def test_a_full_disk_leaves_the_checkpoint_before_and_says_what_is_needed(tmp_path, state):
    before = save_checkpoint(tmp_path, 2, state)
    # 6,020 numbers and two moments of each, 4 bytes a number, and the optimizer's count of steps: two times 4 bytes
    needed = r"it takes 0\.1 MB, [\d,.]+ MB are free, and TRAIN\.KEEP 2 with the one being written takes 0\.2 MB"
    for space in (100, 30_000):  # neither file is written; the weights are, the optimizer's moments are not
        with (
            full_disk(space),
            pytest.raises(OSError, match=rf"step 4 could not be written .*: {needed}; .*step_2 is intact"),
        ):
            save_checkpoint(tmp_path, 4, state)
    assert [path.name for path in tmp_path.iterdir()] == ["step_2"] and fault_of(before) == ""
    assert load_checkpoint(save_checkpoint(tmp_path, 4, state), state) == {"step": 4}


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root mounts a small disk")
def test_a_checkpoint_that_does_not_fit_on_the_disk_is_not_begun(tmp_path, state):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=144k", "none", str(tmp_path)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine mounts no tmpfs")
    try:
        before = save_checkpoint(tmp_path, 2, state, keep=3)
        with pytest.raises(OSError, match=r"the disk is full\): it takes 0\.1 MB, 0\.\d MB are free"):
            save_checkpoint(tmp_path, 4, state, keep=3)
        assert [path.name for path in tmp_path.iterdir()] == ["step_2"] and fault_of(before) == ""
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize(
    ("scores", "before", "metric", "better"),
    [
        ({"pa_mpjpe_mm": 9.0}, {}, "pa_mpjpe_mm", True),
        ({"pa_mpjpe_mm": 9.0}, {"pa_mpjpe_mm": 9.5}, "pa_mpjpe_mm", True),
        ({"pa_mpjpe_mm": 9.5}, {"pa_mpjpe_mm": 9.0}, "pa_mpjpe_mm", False),
        ({"pa_mpjpe_mm": 9.0}, {"pa_mpjpe_mm": 9.0}, "pa_mpjpe_mm", False),
        ({"f5": 0.6}, {"f5": 0.5}, "f5", True),
        ({"f5": 0.4}, {"f5": 0.5}, "f5", False),
        ({"f5": 0.4}, {}, "", False),
        ({}, {}, "f5", False),  # a process without scores
    ],
)
def test_a_better_score_is_lower_in_millimetres_and_higher_else(scores, before, metric, better):
    assert improves(scores, before, metric) is better


def test_a_score_that_does_not_exist_is_named_with_those_that_do(caplog):
    with caplog.at_level(logging.WARNING):
        assert not improves({"f5": 0.4, "n": 3}, {}, "pa_mpjpe_mm")
    assert "no score is called pa_mpjpe_mm (TRAIN.BEST), so no best model is kept; there are f5" in caplog.text


def hold(run: Path, pipe) -> None:
    """Writes into a run directory until it is sent something; a child, as a loader process, does not end with it."""
    with writing(run, load_config(), {"data": {}}, accelerator_for("cpu", "fp32", 1), resumed=False):
        child = os.fork()
        if child == 0:
            time.sleep(120)
            os._exit(0)
        pipe.send(child)
        pipe.recv()


@pytest.fixture
def holder(tmp_path):
    """A run directory that another process writes into; that process; and a pipe to it, to make it end."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=hold, args=(tmp_path / "run", theirs))
    process.start()
    theirs.close()  # so that the next line does not wait for a process that has failed
    child = ours.recv()
    yield tmp_path / "run", process, ours
    process.kill()
    process.join()
    os.kill(child, signal.SIGKILL)


def test_two_processes_cannot_write_into_one_run_directory(holder):
    run, process, pipe = holder
    accelerator = accelerator_for("cpu", "fp32", 1)
    with pytest.raises(RunInUse, match=rf"is in use by process {process.pid} on .*: one training at a time"):
        refuse_busy(run)
    with pytest.raises(RunInUse), writing(run, load_config(), {"data": {}}, accelerator, resumed=True):
        pass
    pipe.send("end")
    process.join()
    refuse_busy(run)


def test_a_killed_holder_leaves_no_lock_even_if_its_child_lives_on(holder):
    run, process, _ = holder
    process.kill()
    process.join()
    refuse_busy(run)


def test_what_a_kill_leaves_does_not_make_a_folder_foreign_and_is_removed(tmp_path):
    run = tmp_path / "run"
    (run / ".config.yaml.abc.part").mkdir(parents=True)
    (run / ".lock").touch()
    refuse_foreign(run)
    with writing(run, load_config(), {"data": {}}, accelerator_for("cpu", "fp32", 1), resumed=False):
        assert sorted(path.name for path in run.iterdir()) == [".lock", "config.yaml", "provenance.json"]
    with (
        pytest.raises(ValueError, match="already holds a run"),  # begun by another process in the meantime
        writing(run, load_config(), {"data": {}}, accelerator_for("cpu", "fp32", 1), resumed=False),
    ):
        pass
