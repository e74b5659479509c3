"""The training loop, with the smallest real student and made-up images."""

from __future__ import annotations

import shutil
import signal
from itertools import islice

import numpy as np
import pytest
import torch
from noise_images import TINY, Noise, tiny
from safetensors.torch import load_file
from tiny_trainings import lines, train_student
from torch import nn

from fasthamer.config import load_config
from fasthamer.data.faults import BadSample
from fasthamer.data.loader import Stream
from fasthamer.distill.learner import Learner
from fasthamer.training.accelerator import accelerator_for
from fasthamer.training.checkpoint import Trainable, checkpoints
from fasthamer.training.interrupt import Interrupted
from fasthamer.training.loop import train
from fasthamer.training.schedule import learning_rate
from fasthamer.training.trainer import Report


def test_the_loss_falls_on_one_batch(tmp_path):
    class One(Noise):
        def __getitem__(self, key):
            return super().__getitem__((0, key[1] % 2))

    train_student(tmp_path, "KD.MODE", "none", "TRAIN.STEPS", "40", "TRAIN.LOG_EVERY", "1", images=One())
    totals = [line["total"] for line in lines(tmp_path)]
    assert len(totals) == 40
    assert np.mean(totals[-5:]) < 0.5 * np.mean(totals[:3])


HYBRID = ("KD.MODE", "hybrid", "TRAIN.WEIGHT_DECAY", "0.01", "TRAIN.LOG_EVERY", "1")


@pytest.mark.parametrize("direction", ["teacher_to_student", "student_to_teacher"])
def test_all_of_the_learner_moves_and_the_teacher_does_not(tmp_path, direction):
    options = (
        *HYBRID,
        "KD.DIRECTION",
        direction,
        "TRAIN.STEPS",
        "3",
    )  # BatchNorms that start at 0 pass no gradient at first
    before = tiny(seed=1).state_dict()
    start = {f"student.{name}" for name, _ in tiny().named_parameters()}
    _, teacher = train_student(tmp_path, *options)
    assert not teacher.training
    torch.testing.assert_close(teacher.state_dict(), before, atol=0, rtol=0)
    after = load_file(tmp_path / "checkpoints" / "step_3" / "learner.safetensors")
    cfg = load_config(None, [*TINY, *options])
    torch.manual_seed(cfg.SEED)
    learner = Learner(tiny()).compare_features(teacher.feature_channels, teacher.view, direction, "exact")
    torch.manual_seed(cfg.SEED)
    learner.projection.reset_parameters()  # as the trainer initialises it
    still = [name for name, old in learner.named_parameters() if torch.equal(old, after[name])]
    assert not still, f"training never moved {still}"
    assert {"projection.weight", "projection.bias"} | start == {name for name, _ in learner.named_parameters()}
    assert not [name for name in after if "teacher" in name]


@pytest.mark.parametrize(("mode", "runs"), [("none", 0), ("output", 1), ("feature", 1), ("hybrid", 1)])
def test_the_teacher_runs_once_a_step_in_every_mode_in_eval_mode_without_gradient(tmp_path, mode, runs):
    calls = []
    teacher = tiny(seed=1).eval().requires_grad_(False)
    teacher.register_forward_hook(lambda module, *_: calls.append((module.training, torch.is_grad_enabled())))
    train_student(tmp_path, "KD.MODE", mode, "TRAIN.STEPS", "2", teacher=teacher)
    assert calls == [(False, False)] * 2 * runs


def test_without_labels_the_teacher_terms_remain(tmp_path):
    train_student(tmp_path, *HYBRID, "TRAIN.STEPS", "2", images=Noise(labelled=0.0))
    last = lines(tmp_path)[-1]
    assert last["joints"] == last["keypoints_2d"] == last["hand_pose"] == 0
    assert min(last[name] for name in last if name.startswith("kd_")) > 0
    assert "kd_features" in last


def test_a_resumed_run_is_the_uninterrupted_one_bit_by_bit(tmp_path):
    """With all that has a state: hybrid distillation, average, discriminator, accumulation, a cosine, dropout."""

    def noisy(seed: int) -> nn.Module:
        student = tiny(seed)
        student.normalise.register_forward_hook(lambda module, _, image: torch.dropout(image, 0.2, module.training))
        return student

    options = (*HYBRID, "TRAIN.STEPS", "6", "TRAIN.CHECKPOINT_EVERY", "3", "TRAIN.EMA", "0.9", "TRAIN.ACCUMULATE", "2")
    options += ("LOSS.ADVERSARIAL", "0.0005", "TRAIN.SCHEDULE", "cosine", "TRAIN.WARMUP", "2")
    straight, _ = train_student(tmp_path / "straight", *options, student=noisy(0))
    shutil.copytree(tmp_path / "straight/checkpoints/step_3", tmp_path / "resumed/checkpoints/step_3")
    lines_before = (tmp_path / "straight/metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "resumed/metrics.jsonl").write_text("".join(lines_before[:5]) + '{"step": 6, "ph')  # killed in a write
    resumed, _ = train_student(
        tmp_path / "resumed", *options, student=noisy(7), resume_from=tmp_path / "resumed/checkpoints/step_3"
    )
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    final = [load_file(tmp_path / run / "checkpoints/step_6/learner.safetensors") for run in ("straight", "resumed")]
    assert all(torch.equal(final[0][name], final[1][name]) for name in final[0])
    for one, other in zip(lines(tmp_path / "straight"), lines(tmp_path / "resumed"), strict=True):
        assert {**one, "images_per_second": 0} == {**other, "images_per_second": 0}


def test_accumulating_two_batches_is_one_batch_twice_as_large(tmp_path):
    """In eval mode, where BatchNorm has no statistics of the batch."""

    class Fixed(Noise):
        def __getitem__(self, key):
            return super().__getitem__((0, key[1]))

    def weights(batch, accumulate):
        student = tiny()
        student.eval()
        student.train = lambda mode=True: student  # type: ignore[method-assign]
        run = tmp_path / str(batch)
        options = ("KD.MODE", "none", "TRAIN.STEPS", "2", "TRAIN.BATCH", batch, "TRAIN.ACCUMULATE", accumulate)
        return train_student(run, *options, "TRAIN.LR", "1e-4", images=Fixed(), student=student)[0].state_dict()

    torch.testing.assert_close(weights("4", "1"), weights("2", "2"), atol=2e-5, rtol=1e-3)


def test_the_moving_average_is_kept_and_follows_the_student(tmp_path):
    kept, _ = train_student(tmp_path, "KD.MODE", "none", "TRAIN.STEPS", "3", "TRAIN.EMA", "0.5")
    learner = load_file(tmp_path / "checkpoints/step_3/learner.safetensors")
    average = load_file(tmp_path / "checkpoints/step_3/average.safetensors")
    name = "decoder.decpose.weight"
    assert torch.equal(kept.state_dict()[name], average[name])
    assert not torch.equal(learner[f"student.{name}"], average[name])
    running = next(name for name in average if name.endswith("running_mean"))
    assert torch.equal(learner[f"student.{running}"], average[running])  # batch statistics are copied


def test_a_broken_sample_ends_the_run_with_the_datasets_own_message(tmp_path):
    class Broken(Noise):
        def __getitem__(self, key):
            raise ValueError(f"sample {key[1]}: damaged image")

    with pytest.raises(BadSample, match=r"^11 samples of 8 in a row cannot be read: sample \d: damaged image$"):
        train_student(tmp_path, "KD.MODE", "none", "TRAIN.STEPS", "1", "DATA.WORKERS", "1", images=Broken())


def test_an_interrupt_stops_the_run_after_the_step_with_a_checkpoint(tmp_path):
    second_epoch = next(islice(Stream(8, 2, seed=0), 4, None))[0]

    class Interrupting(Noise):
        def __getitem__(self, key):
            if key == second_epoch:
                signal.raise_signal(signal.SIGINT)
            return super().__getitem__(key)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match="after step 5 of 20"):
        train_student(tmp_path, "KD.MODE", "none", "TRAIN.STEPS", "20", images=Interrupting())
    assert [path.name for path in checkpoints(tmp_path / "checkpoints")] == ["step_5"]
    assert signal.getsignal(signal.SIGINT) is handler


class Counter:
    """The smallest trainer: its one number grows by the batch."""

    def __init__(self) -> None:
        self.accelerator, self.model = accelerator_for("cpu", "fp32", 1), torch.nn.Linear(1, 1)

    @property
    def state(self) -> Trainable:
        return Trainable({"model": self.model}, {})

    def begin(self, step: int, steps: int) -> None:
        self.remaining = steps - step

    def training_step(self, batch: float, number: int) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            self.model.bias += batch
        return {"total": self.model.bias.sum()}

    def end(self, done: int) -> None:
        pass

    def report(self) -> Report:
        return Report({"remaining": float(self.remaining)}, "running out of steps" if self.remaining == 1 else "")


class Numbers:
    """Batches that are their own number; the position is another value."""

    position = "half"
    skipped = ("sample 3: damaged", "sample 5: damaged")

    def describe(self, sample):
        return f"sample {sample}"

    def batches(self, first_batch=0, position=None):
        self.began = first_batch, position
        yield from map(float, range(first_batch, 100))


def test_any_trainer_and_feed_will_do_and_a_checkpoint_keeps_the_feeds_position(tmp_path, capsys):
    settings = load_config(None, ["TRAIN.STEPS", "2", "TRAIN.LOG_EVERY", "1", "TRAIN.CHECKPOINT_EVERY", "1"]).TRAIN
    feed = Numbers()
    model = train(Counter(), feed, settings, tmp_path)
    assert feed.began == (0, None) and not model.training
    assert [line["remaining"] for line in lines(tmp_path)] == [2.0, 1.0]
    output = capsys.readouterr().out
    assert "step 2: running out of steps" in output and "2 samples or places in the shards could not be read" in output
    assert (tmp_path / "skipped.txt").read_text().splitlines() == list(feed.skipped)
    resumed = train(Counter(), feed, settings, tmp_path, resume_from=tmp_path / "checkpoints/step_1")
    assert feed.began == (1, "half")
    assert torch.equal(resumed.bias, model.bias)
    assert len((tmp_path / "skipped.txt").read_text().splitlines()) == 2  # each once


def test_only_the_last_two_checkpoints_stay(tmp_path):
    train_student(tmp_path, "KD.MODE", "none", "TRAIN.STEPS", "5", "TRAIN.CHECKPOINT_EVERY", "1")
    assert [path.name for path in checkpoints(tmp_path / "checkpoints")] == ["step_4", "step_5"]


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    train_student(tmp_path, "KD.MODE", "none", "TRAIN.STEPS", "1")
    with pytest.raises(ValueError, match="is of another model: 2 tensors differ, such as projection"):
        train_student(tmp_path, "KD.MODE", "hybrid", "TRAIN.STEPS", "2", resume_from=tmp_path / "checkpoints/step_1")


def test_bf16_trains_on_a_cpu_and_fp16_is_refused_there(tmp_path):
    train_student(tmp_path, *HYBRID, "TRAIN.STEPS", "2", "TRAIN.PRECISION", "bf16")
    assert np.isfinite(lines(tmp_path)[-1]["total"])
    with pytest.raises(ValueError, match="fp16 needs a GPU"):
        accelerator_for("cpu", "fp16", 1)
    with pytest.raises(KeyError, match="did you mean 'bf16'"):
        accelerator_for("cpu", "bf61", 1)
    with pytest.raises(ValueError, match="'cuda:77' cannot be used here"):
        accelerator_for("cuda:77", "auto", 1)


def test_each_epoch_is_a_new_shuffle_of_everything_and_processes_share_it():
    one = list(islice(Stream(10, 4, seed=3), 5))  # 20 keys: two epochs
    keys = [key for batch in one for key in batch]
    for epoch in (0, 1):
        assert sorted(index for e, index in keys if e == epoch) == list(range(10))
    assert [i for e, i in keys if e == 0] != [i for e, i in keys if e == 1]
    shared = [list(islice(Stream(10, 2, seed=3, rank=rank, processes=2), 5)) for rank in (0, 1)]
    assert [a + b for a, b in zip(*shared, strict=True)] == one
    assert list(islice(Stream(10, 4, seed=3, first_batch=3), 2)) == one[3:]


def test_the_learning_rate_rises_then_falls_to_nothing():
    rates = [learning_rate(step, 10, 1.0, 2, "cosine") for step in range(11)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[6] == pytest.approx(0.5)
    assert rates[10] == pytest.approx(0.0)
    assert learning_rate(9, 10, 1.0, 0, "constant") == 1.0
    with pytest.raises(KeyError, match="did you mean 'cosine'"):
        learning_rate(0, 10, 1.0, 0, "cosin")
