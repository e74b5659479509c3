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
from fasthamer.distill.evaluate import evaluate, hands, predict, rules_for
from fasthamer.distill.objective import Objective
from fasthamer.distill.submission import write_submission
from fasthamer.distill.trainer import DistillTrainer
from fasthamer.hand.mano import load_hand
from fasthamer.tools import distill
from fasthamer.tools import eval as eval_tool
from fasthamer.training.accelerator import accelerator_for
from fasthamer.training.checkpoint import checkpoints
from fasthamer.training.loop import train
from fasthamer.types import ManoParams

NUMBER = 100
FAULTY = np.random.default_rng(7).permutation(NUMBER - 1)[:5].tolist()  # 1 % of each kind; the last one is whole
TRUNCATED, EMPTY, MISSING, NOT_A_NUMBER, SHAPE = FAULTY


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
    noise = np.random.default_rng(0).integers(256, size=(7, 64, 64, 3), dtype=np.uint8)
    images = [cv2.imencode(".jpg", each)[1].tobytes() for each in noise]
    contents = {TRUNCATED: images[0][:2000], EMPTY: b""}
    for number in set(range(NUMBER)) - {MISSING}:
        (folder / f"{number:08d}.jpg").write_bytes(contents.get(number, images[number % len(images)]))
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
    assert len(found) == 200 and not set(FAULTY) & set(found)
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
    before = set(multiprocessing.active_children())
    with pytest.raises(LoaderError, match=message + r".* with --resume"), loader_errors():
        batches(feed, 8)
    if happens is hanging:
        for process in set(multiprocessing.active_children()) - before:
            process.join(60)
        assert not set(multiprocessing.active_children()) - before


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


class Whole(HandDataset):
    """The samples of a dataset that can be read."""

    def __init__(self, images: FreiHAND) -> None:
        self.images, self.info = images, images.info
        self.kept = [number for number in range(NUMBER) if number not in FAULTY]

    def __len__(self):
        return len(self.kept)

    def __getitem__(self, key):
        return self.images[(key[0], self.kept[key[1]])]

    def camera(self, index):
        return self.images.camera(self.kept[index])


def test_an_evaluation_leaves_unreadable_samples_out_and_counts_them(faulty, tmp_path):
    model, dataset = tiny().eval(), opened(faulty)
    predicted = predict(model, dataset, 16, workers=1, faults=0.06)
    whole = predict(model, Whole(dataset), 16)
    assert predicted.indices.tolist() == Whole(dataset).kept and len(predicted.unreadable) == 5
    regressor = model.hand.J_regressor.numpy()
    scores, expected = (evaluate(each, rules_for(dataset), regressor) for each in (predicted, whole))
    assert scores.pop("unreadable") == 5 and scores["n"] == 95
    assert scores.keys() == expected.keys()
    for key in ("pa_mpjpe_mm", "pa_mpjpe_mm_ci95", "mpjpe_mm", "auc_joints"):
        np.testing.assert_allclose(scores[key], expected[key], rtol=1e-4)
    with pytest.raises(BadSample, match=r"samples cannot be read, DATA\.FAULTS allows 0\.03 of them"):
        predict(model, dataset, 16, faults=0.03)
    seen = hands(predicted, "hamer", regressor)
    with pytest.raises(ValueError, match=r"^no pred\.json: it needs every sample, and 5 cannot be read: "):
        write_submission(tmp_path, dataset, "freihand", predicted, seen)


def test_a_run_on_faulty_data_trains_is_scored_and_names_each_fault_once(faulty, tmp_path, capsys):
    """Fifty images in each of two steps: every sample is met once in training and once in the evaluation."""
    run, out = tmp_path / "run", tmp_path / "eval"
    data = ["--data", "freihand", "--data-root", str(faulty), "DATA.FAULTS", "0.06", "DATA.WORKERS", "0"]
    small = ["--student", "timm:test_resnet", "--decoder-size", "tiny", "STUDENT.PRETRAINED", "False", "DEVICE", "cpu"]
    sizes = ["IMAGE_SIZE", "64", "STUDENT.IMAGE_SIZE", "64", "TRAIN.BATCH", "50", "TRAIN.IMAGE_EVERY", "0"]
    options = ["--kd", "none", "--steps", "2", "DATA.EVAL_SPLIT", "training", *small, *sizes]
    with pytest.warns(UserWarning, match="5 samples cannot be read and are left out"):
        assert distill.main([*data, *options, "--out", str(run)]) == 0
    assert len((run / "skipped.txt").read_text().splitlines()) == 5
    assert json.loads((run / "eval/scores.json").read_text())["unreadable"] == 5
    assert "5 samples that cannot be read are left out" in (run / "report.html").read_text()
    capsys.readouterr()
    assert eval_tool.main(["--model", str(run), *data, "--split", "training", "--out", str(out)]) == 0
    output = capsys.readouterr()
    assert "5 samples could not be read and are left out" in output.out and "no official submission" in output.err
    assert sorted((out / "skipped.txt").read_text().splitlines()) == sorted(
        (run / "skipped.txt").read_text().splitlines()
    )
    assert not (out / "pred.json").exists()
