"""Tar shards from a command, as from object storage: the samples of the same shards in a folder, and no shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from miniatures_tars import write_shards

from fasthamer.config import load_config
from fasthamer.data.build import build_training_set
from fasthamer.data.readers import piped_shard
from fasthamer.data.readers.piped_shard import PipedShard
from fasthamer.data.readers.tars import TarDataset


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("my bucket")
    write_shards(root, shards=3, samples=2)
    return root


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(piped_shard, "PAUSE", 0.0)


def test_shards_from_a_command_give_the_samples_of_their_folder_in_the_same_order(root, embedded):
    piped = TarDataset(f"pipe:cat '{root}/{{000000..000002}}.tar'", embedded, 64, seed=3)
    skipped: list[str] = []
    items = list(piped.epoch(1, 0, 1, skipped))
    expected = list(TarDataset(root, embedded, 64, seed=3).epoch(1, 0, 1, []))
    assert skipped == [] and len(items) == 6
    for item, other in zip(items, expected, strict=True):
        assert all(torch.equal(one, two) for one, two in zip(item, other, strict=True))


def test_a_named_pack_json_tells_whose_labels_they_are(root, embedded):
    (root / "pack.json").write_text(json.dumps({"hand": "embedded", "complete": True}))
    plain = TarDataset(f"pipe:cat '{root}/000000.tar'", embedded)
    packed = TarDataset(f"pipe:cat '{root}/{{pack.json,{{000000..000002}}.tar}}'", embedded)
    (root / "pack.json").unlink()
    assert (len(plain.shards), plain.mano_labels) == (1, False)
    assert (len(packed.shards), packed.mano_labels) == (3, True)
    with pytest.raises(OSError, match=r"pack.json' ended with 1: .*No such file"):
        TarDataset(f"pipe:cat '{root}/{{pack.json,000000.tar}}'", embedded)


def test_the_command_line_and_a_mix_name_commands(root, embedded):
    command = f"pipe:cat '{root}/{{000000..000002}}.tar'"
    one = build_training_set(load_config(None, ["DATA.NAME", "tars", "DATA.ROOT", command]), embedded)
    assert one.summary == f"3 shards in {command}"
    entry = [{"data": "tars", "root": command, "weight": 1.0, "shards": 3}]
    cfg = load_config(None, ["DATA.NAME", "mix", "DATA.ROOT", "elsewhere", "DATA.MIX", json.dumps(entry)])
    assert build_training_set(cfg, embedded).summary.startswith(f"3 shards in {command}")


def test_no_shell_reads_the_command(root, embedded, tmp_path):
    made = tmp_path / "made"
    dataset = TarDataset(f"pipe:cat '{root}/000000.tar'; touch {made}", embedded, 64)
    skipped: list[str] = []
    assert list(dataset.epoch(0, 0, 1, skipped)) == [] and not made.exists()
    assert len(skipped) == 1 and "ended with 1" in skipped[0]


def test_a_command_that_fails_once_is_tried_again(root, tmp_path):
    script = f"if [ -e '{tmp_path}/again' ]; then cat '{root}/000000.tar'; else touch '{tmp_path}/again'; exit 7; fi"
    with PipedShard(f'sh -c "{script}"').open() as file:
        assert file.read() == (root / "000000.tar").read_bytes()


def test_a_shard_that_never_comes_is_reported_and_the_others_are_read(root, embedded):
    dataset = TarDataset(f"pipe:cat '{root}/{{000000,gone,000002}}.tar'", embedded, 64)
    skipped: list[str] = []
    assert len(list(dataset.epoch(0, 0, 1, skipped))) == 4
    assert len(skipped) == 1 and "gone.tar" in skipped[0] and "ended with 1: cat: " in skipped[0]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
def test_a_command_ends_with_the_process_that_reads_it_even_with_signals_ignored(tmp_path):
    endless = f"sh -c 'echo $$ > {tmp_path}/pid; exec yes'"
    ignored = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    reading = f"{ignored}; from fasthamer.data.readers.piped_shard import PipedShard; PipedShard({endless!r}).open()"
    reader = subprocess.Popen([sys.executable, "-c", reading], env={**os.environ, "TMPDIR": str(tmp_path)})
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert reader.poll() is None
        time.sleep(0.05)
    reader.kill()
    reader.wait()
    stat = Path("/proc", (tmp_path / "pid").read_text().strip(), "stat")
    while stat.exists() and stat.read_text().split(")")[-1].split()[0] != "Z":
        time.sleep(0.05)  # the suite's own limit of time ends this test


@pytest.mark.parametrize(
    ("command", "message"),
    [("pipe:", "needs a command"), ("pipe:cat 'a.tar", "No closing quotation"), ("pipe:cat {a.tar", "{a.tar")],
)
def test_what_is_no_command_is_refused(command, message, embedded):
    with pytest.raises(ValueError, match=message):
        TarDataset(command, embedded)
