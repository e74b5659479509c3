"""Samples that cannot be read and loader processes that die, hang or find no memory."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from noise_images import TINY, Noise, tiny
from safetensors.torch import load_file
from torch.utils.data import get_worker_info

from fasthamer.config import load_config
from fasthamer.data.dataset import HandDataset, fingerprint
from fasthamer.data.faults import BadSample
from fasthamer.data.loader import Feed
from fasthamer.data.loader_processes import LoaderError, loader_errors
from fasthamer.data.readers.freihand import FreiHAND
from fasthamer.data.streams import Indexed
from fasthamer.distill.objective import Objective
from fasthamer.distill.trainer import DistillTrainer
from fasthamer.hand.mano import load_hand
from fasthamer.training.accelerator import accelerator_for
from fasthamer.training.checkpoint import checkpoints
from fasthamer.training.loop import train
from fasthamer.types import ManoParams

NUMBER = 100
TRUNCATED, EMPTY, MISSING, NOT_A_NUMBER, SHAPE = (
    np.random.default_rng(7).permutation(NUMBER - 1)[:5].tolist()  # one of each kind: 1 %; the last one is whole
)


def write_faulty(root: Path) -> Path:
    """FreiHAND with a hundred small images of one hand, of which five have a fault."""
    hand, identity = load_hand("embedded"), torch.eye(3)
    _, joints = hand(ManoParams(identity.expand(1, 1, 3, 3), identity.expand(1, 15, 3, 3), torch.zeros(1, 10)))
    joints = (joints[0] + torch.tensor([0.0, 0.0, 0.7])).tolist()
    records = [joints] * NUMBER
    records[NOT_A_NUMBER] = [[float("nan"), 0.0, 0.7], *joints[1:]]
    records[SHAPE] = joints[1:]
    folder = root / "training" / "rgb"
    folder.mkdir(parents=True)
    image = cv2.imencode(".jpg", np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8))[1].tobytes()
    contents = {TRUNCATED: image[: len(image) // 2], EMPTY: b""}
    for number in set(range(NUMBER)) - {MISSING}:
        (folder / f"{number:08d}.jpg").write_bytes(contents.get(number, image))
    camera = [[60.0, 0.0, 32.0], [0.0, 60.0, 32.0], [0.0, 0.0, 1.0]]
    (root / "training_K.json").write_text(json.dumps([camera] * NUMBER))
    (root / "training_xyz.json").write_text(json.dumps(records))
    return root


@pytest.fixture(scope="module")
def faulty(tmp_path_factory) -> Path:
    return write_faulty(tmp_path_factory.mktemp("faulty"))


def opened(root: Path) -> FreiHAND:
    return FreiHAND(root, "training", load_hand("embedded"), image_size=32)


def batches(feed: Feed, number: int, first: int = 0) -> list:
    source = feed.batches(first)
    try:
        return list(islice(source, number))
    finally:
        source.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_training_goes_on_with_other_samples_and_names_each_fault_once(faulty, workers):
    feed = Feed(opened(faulty), 10, seed=0, workers=workers, faults=0.06)
    whole = batches(feed, 20)  # two epochs
    found = [int(index) for batch in whole for index in batch.index]
    assert len(found) == 200 and not {TRUNCATED, EMPTY, MISSING, NOT_A_NUMBER, SHAPE} & set(found)
    assert len(feed.skipped) == 5
    for named in (
        *(f"{number:08d}.jpg" for number in (TRUNCATED, EMPTY, MISSING)),
        f"training_xyz.json: record {NOT_A_NUMBER} holds numbers that are not finite",
        f"training_xyz.json: record {SHAPE} is 20x3, expected 21x3",
    ):
        assert len([line for line in feed.skipped if named in line]) == 1
    resumed = batches(Feed(opened(faulty), 10, seed=0, faults=0.06), 13, first=7)  # without workers
    for one, other in zip(whole[7:], resumed, strict=True):
        assert torch.equal(one.index, other.index) and torch.equal(one.joints, other.joints)


def test_more_faults_than_are_allowed_stop_the_training(faulty):
    with pytest.raises(BadSample, match=r"^5 of 100 samples cannot be read, DATA\.FAULTS allows 0\.04 of them: /"):
        batches(Feed(opened(faulty), 10, seed=0, faults=0.04), 10)
    with pytest.raises(BadSample, match=r"^1 of 100 samples"):
        batches(Feed(opened(faulty), 10, seed=0, faults=0.0), 10)


def test_a_set_of_which_nothing_can_be_read_stops_at_once(tmp_path):
    class Gone(Noise):
        def __getitem__(self, key):
            raise FileNotFoundError(f"no image {key[1]}.jpg")

    message = r"^11 samples of 8 in a row cannot be read: no image \d\.jpg$"
    for workers in (0, 1):
        with pytest.raises(BadSample, match=message):
            batches(Feed(Gone(), 2, seed=0, workers=workers, faults=1.0), 1)
    with pytest.raises(BadSample, match="not one of 8 samples can be read"):
        batches(Feed(Indexed(Gone(), 0, ""), 2, seed=0, faults=1.0), 1)


def test_a_damaged_sample_is_no_obstacle_to_a_fingerprint_and_part_of_it(faulty, tmp_path):
    class Broken(Noise):
        def __getitem__(self, key):
            if key[1] == 0:
                raise ValueError("sample 0: damaged image")
            return super().__getitem__(key)

    assert fingerprint(Broken()) not in (fingerprint(Noise()), fingerprint(opened(faulty)))


class Trouble(Noise):
    """What happens once in a loader process, at the first sample of an epoch of four batches."""

    def __init__(self, done: Path, happens, epoch: int = 1) -> None:
        super().__init__()
        self.done, self.happens, self.epoch = done, happens, epoch

    def __getitem__(self, key):
        if key[0] == self.epoch and get_worker_info() is not None and not self.done.exists():
            self.done.touch()
            self.happens()
        return super().__getitem__(key)


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def crowded() -> None:
    raise MemoryError


def hanging() -> None:
    time.sleep(1000)


@pytest.mark.parametrize(
    ("happens", "message"),
    [
        (killed, r"^a loader process was killed, most often because the machine is short of memory: .*DATA\.WORKERS"),
        (crowded, r"^no memory for the loader processes: .*DATA\.WORKERS"),
        (hanging, r"^the loader processes gave no batch for 3 s: the disk or network folder"),
    ],
    ids=["killed", "out of memory", "hanging"],
)
def test_a_loader_process_in_trouble_is_one_line_that_says_what_to_do(tmp_path, happens, message):
    feed = Feed(Trouble(tmp_path / "done", happens), 2, seed=0, workers=1, patience=3.0)
    with pytest.raises(LoaderError, match=message + r".* with --resume"), loader_errors():
        batches(feed, 8)
    assert happens is not hanging or not multiprocessing.active_children()


def test_a_run_whose_loader_process_was_killed_goes_on_as_if_it_had_not(tmp_path):
    settings = [*TINY, "KD.MODE", "none", "TRAIN.STEPS", "10", "TRAIN.CHECKPOINT_EVERY", "1"]
    cfg = load_config(None, settings)

    def trained(run: Path, images: HandDataset, workers: int, **options) -> dict:
        trainer = DistillTrainer(cfg, tiny(), None, Objective.of(cfg), accelerator_for("cpu", "fp32", 1))
        with loader_errors():
            train(trainer, Feed(images, 2, 0, workers=workers), cfg.TRAIN, run, **options)
        return load_file(run / "checkpoints/step_10/learner.safetensors")

    straight = trained(tmp_path / "straight", Noise(), 0)
    with pytest.raises(LoaderError, match="was killed"):
        trained(tmp_path / "run", Trouble(tmp_path / "done", killed, epoch=2), 1)
    (*_, last) = checkpoints(tmp_path / "run/checkpoints")  # the loader process was four batches ahead at most
    resumed = trained(tmp_path / "run", Noise(), 1, resume_from=last)
    torch.testing.assert_close(straight, resumed, atol=0, rtol=0)
