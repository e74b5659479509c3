"""A step whose loss or gradient is not finite changes nothing and is named; too many of them stop a run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import pytest
import torch
from noise_images import TINY, Noise, tiny
from safetensors.torch import load_file
from torch import nn

from fasthamer.config import load_config
from fasthamer.data.loader import Feed, Stream
from fasthamer.distill.objective import Objective
from fasthamer.distill.trainer import DistillTrainer
from fasthamer.training.accelerator import accelerator_for
from fasthamer.training.loop import train

NAN = float("nan")
ORDER = [key for batch in islice(Stream(8, 2, seed=0), 20) for key in batch]  # what a run with batches of 2 reads
RICH = ("KD.MODE", "hybrid", "TRAIN.EMA", "0.9", "LOSS.ADVERSARIAL", "0.0005", "TRAIN.LOG_EVERY", "1")


class Faulty(Noise):
    """Spoils the samples with these (epoch, index)."""

    def __init__(self, keys: Iterable[tuple[int, int]], spoil: Callable) -> None:
        super().__init__()
        self.keys, self.spoil = set(keys), spoil

    def __getitem__(self, key):
        item = super().__getitem__(key)
        return self.spoil(item) if key in self.keys else item


def nan_joints(item):
    return item._replace(joints=item.joints * NAN)


def trainer_of(*overrides: str, teacher: nn.Module | None = None, scale: float = 0.0) -> DistillTrainer:
    cfg = load_config(None, [*TINY, *overrides])
    teacher = None if cfg.KD.MODE == "none" else teacher or tiny(seed=1).eval().requires_grad_(False)
    accelerator = accelerator_for("cpu", "fp32", cfg.TRAIN.ACCUMULATE)
    if scale:  # as with fp16 on a GPU: the gradient of a scaled loss overflows, here that of fp32
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    return DistillTrainer(cfg, tiny(), teacher, Objective.of(cfg), accelerator)


def run_of(run: Path, images: Noise, *overrides: str, trainer: DistillTrainer | None = None, **options) -> dict:
    """Trains; returns the last checkpoint's tensors."""
    trainer = trainer or trainer_of(*overrides)
    cfg = trainer.cfg
    train(trainer, Feed(images, cfg.TRAIN.BATCH, cfg.SEED), cfg.TRAIN, run, **options)
    return weights(run / "checkpoints" / f"step_{cfg.TRAIN.STEPS}")


def weights(checkpoint: Path) -> dict:
    files = {path.name: load_file(path) for path in sorted(checkpoint.glob("*.safetensors"))}
    optimizers = torch.load(checkpoint / "optimizers.pt", weights_only=True)
    return files | {f"optimizer {name}": each["state"] for name, each in optimizers.items() if "state" in each}


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def same(one: dict, other: dict) -> bool:
    torch.testing.assert_close(one, other, atol=0, rtol=0)
    return True


def test_a_step_with_a_label_that_is_not_a_number_changes_nothing_and_is_named(tmp_path, capsys):
    """Weights, BatchNorm's statistics, optimizer, average, discriminator: as after the step before."""
    bad = ORDER[4]  # of the third step
    options = (*RICH, "TRAIN.STEPS", "3", "TRAIN.CHECKPOINT_EVERY", "2")
    after = run_of(tmp_path, Faulty([bad], nan_joints), *options)
    assert same(after, weights(tmp_path / "checkpoints/step_2"))
    assert [line["skipped_steps"] for line in lines(tmp_path)] == [0, 0, 1]
    assert "total" in lines(tmp_path)[1] and "total" not in lines(tmp_path)[2]
    (line,) = (tmp_path / "skipped.txt").read_text().splitlines()
    named = f"step 3 skipped: label joints is not finite in sample {bad[1]}; so are the loss terms joints"
    assert line.startswith(named) and line.endswith(f"samples of the step: {ORDER[4][1]}, {ORDER[5][1]}")
    assert named in capsys.readouterr().out


def test_one_bad_batch_of_an_accumulated_step_skips_all_of_it(tmp_path):
    options = ("KD.MODE", "none", "TRAIN.ACCUMULATE", "2", "TRAIN.STEPS", "2", "TRAIN.CHECKPOINT_EVERY", "1")
    after = run_of(tmp_path, Faulty([ORDER[4]], nan_joints), *options)  # step 2 reads samples 4 to 7
    assert same(after, weights(tmp_path / "checkpoints/step_1"))
    samples = ", ".join(str(key[1]) for key in ORDER[4:8])
    assert f"samples of the step: {samples}" in (tmp_path / "skipped.txt").read_text()


@pytest.mark.parametrize(
    ("part", "named"),
    [
        ("teacher", "teacher vertices"),
        ("student", "gradient of student.decoder.deccam.bias"),
    ],
)
def test_the_cause_is_the_first_value_that_is_not_finite(tmp_path, part, named):
    if part == "teacher":
        teacher = tiny(seed=1).eval().requires_grad_(False)
        teacher.register_forward_hook(lambda module, _, hand: hand._replace(vertices=hand.vertices * NAN))
        trainer = trainer_of("KD.MODE", "output", "KD.VERTICES", "0.05", "TRAIN.STEPS", "1", teacher=teacher)
    else:  # a loss that is finite, with a gradient that is not
        trainer = trainer_of("KD.MODE", "none", "TRAIN.STEPS", "1")
        trainer.learner.student.decoder.deccam.bias.register_hook(lambda gradient: gradient * NAN)
    with pytest.raises(FloatingPointError, match=rf"^1 steps in a row .* the last of them: {named} is not finite"):
        run_of(tmp_path, Noise(), trainer=trainer)
    assert f"step 1 skipped: {named}" in (tmp_path / "skipped.txt").read_text()


def test_too_many_skipped_steps_in_a_row_stop_the_run_with_a_diagnosis_and_the_last_good_state(tmp_path):
    class Late(Noise):
        def __getitem__(self, key):
            return super().__getitem__(key) if key[0] == 0 else nan_joints(super().__getitem__(key))

    options = ("KD.MODE", "none", "TRAIN.STEPS", "20", "TRAIN.CHECKPOINT_EVERY", "4", "TRAIN.SKIPS", "3")
    message = (  # 8 images, 2 a step: the second epoch begins after step 4
        r"^3 steps in a row were skipped \(TRAIN\.SKIPS\), the last of them: label joints is not finite in sample \d, "
        r"sample \d; so are the loss terms joints, total; samples of the step: \d, \d; correct these samples, or "
        r"remove them\. All are in .*skipped\.txt; checkpoint step_7 holds the last good state$"
    )
    with pytest.raises(FloatingPointError, match=message):
        run_of(tmp_path, Late(), *options)
    assert same(weights(tmp_path / "checkpoints/step_7"), weights(tmp_path / "checkpoints/step_4"))
    assert len((tmp_path / "skipped.txt").read_text().splitlines()) == 3


def test_a_resumed_run_with_skipped_steps_is_the_uninterrupted_one(tmp_path):
    """The checkpoint lies between two skipped steps: the number in a row goes on."""
    keys = [ORDER[4], ORDER[6], ORDER[8]]  # steps 3, 4 and 5
    options = (*RICH, "TRAIN.STEPS", "6", "TRAIN.CHECKPOINT_EVERY", "3", "TRAIN.SKIPS", "4")
    straight = run_of(tmp_path / "straight", Faulty(keys, nan_joints), *options)
    (tmp_path / "resumed").mkdir()
    shutil.copytree(tmp_path / "straight/checkpoints/step_3", tmp_path / "resumed/checkpoints/step_3")
    first = tmp_path / "resumed/checkpoints/step_3"
    resumed = run_of(tmp_path / "resumed", Faulty(keys, nan_joints), *options, resume_from=first)
    assert same(straight, resumed)
    pace = {"images_per_second": 0}
    assert [line | pace for line in lines(tmp_path / "straight")[3:]] == [
        line | pace for line in lines(tmp_path / "resumed")
    ]
    with pytest.raises(FloatingPointError, match=r"^3 steps in a row"):
        run_of(tmp_path / "resumed", Faulty(keys, nan_joints), *options[:-1], "3", resume_from=first)


def test_an_overflow_of_the_gradient_scaler_is_no_fault_of_the_data(tmp_path):
    """Its scale halves until the gradient fits; a bad label leaves it as it is."""
    options = ("KD.MODE", "none", "TRAIN.STEPS", "4", "TRAIN.LOG_EVERY", "1", "TRAIN.CHECKPOINT_EVERY", "1")
    trainer = trainer_of(*options, scale=2.0**124)
    run_of(tmp_path, Faulty([ORDER[6]], nan_joints), trainer=trainer)
    counts = [(line["skipped_steps"], line["overflows"]) for line in lines(tmp_path)]
    overflows = sum(overflow for _, overflow in counts)
    assert counts[0] == (0, 1) and counts[3] == (1, 0) and counts[1:3] != [(0, 1)] * 2
    assert trainer.accelerator.scaler.get_scale() == 2.0 ** (124 - overflows)
    assert re.findall("^step .", (tmp_path / "skipped.txt").read_text(), re.MULTILINE) == ["step 4"]


def test_a_gradient_that_never_fits_fp16_stops_the_run(tmp_path):
    trainer = trainer_of("KD.MODE", "none", "TRAIN.STEPS", "20", "TRAIN.SKIPS", "5", scale=2.0**30)
    trainer.learner.student.decoder.deccam.bias.register_hook(lambda gradient: gradient * NAN)
    with pytest.raises(FloatingPointError, match=r"^5 steps .* fp16 gradient .* use TRAIN\.PRECISION bf16 or fp32"):
        run_of(tmp_path, Noise(), trainer=trainer)
    assert not (tmp_path / "skipped.txt").exists()


def test_below_a_scale_of_one_a_gradient_that_is_not_finite_is_a_fault(tmp_path):
    trainer = trainer_of("KD.MODE", "none", "TRAIN.STEPS", "1", scale=0.5)
    trainer.learner.student.decoder.deccam.bias.register_hook(lambda gradient: gradient * NAN)
    with pytest.raises(FloatingPointError, match=r"gradient of student\.decoder\.deccam\.bias is not finite"):
        run_of(tmp_path, Noise(), trainer=trainer)
    assert "step 1 skipped: gradient of student.decoder.deccam.bias" in (tmp_path / "skipped.txt").read_text()
    assert trainer.accelerator.scaler.get_scale() == 0.5


def skipping_key() -> tuple[int, int]:
    """Of two processes with two samples each, the second one's first sample in the second step."""
    return ORDER[6]


def test_all_processes_skip_a_step_together_and_only_one_names_the_cause(tmp_path):
    """The loss is not finite in one process only, and its gradient is: a label that is NaN gives an L1 loss none."""
    tests = Path(__file__).parent
    options = ("KD.MODE", "none", "LOSS.ADVERSARIAL", "0.0005", "TRAIN.EMA", "0.9", "TRAIN.STEPS", "3")
    options += ("TRAIN.LOG_EVERY", "1", "TRAIN.CHECKPOINT_EVERY", "1", "TRAIN.KEEP", "3")
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    path = os.pathsep.join([str(tests), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path}
    command = [*launcher, str(tests / "skipping_process.py"), str(tmp_path), *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    assert [line["skipped_steps"] for line in lines(run)] == [0, 1, 0]
    (line,) = (run / "skipped.txt").read_text().splitlines()
    assert line.startswith(f"step 2 skipped: label joints is not finite in sample {skipping_key()[1]};")
    assert same(weights(run / "checkpoints/step_2"), weights(run / "checkpoints/step_1"))
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert same(one, other) and all(value.isfinite().all() for value in one.values())
    saved = load_file(run / "checkpoints/step_2/learner.safetensors")
    assert not torch.equal(saved["student.decoder.decpose.weight"], one["student.decoder.decpose.weight"])
