"""The number of steps of a run that names none: timed, rounded, announced, kept; and the timing changes nothing."""

from __future__ import annotations

import pytest
import torch
from noise_images import TINY, Noise, tiny

from fasthamer.config import load_config
from fasthamer.data.loader import Feed
from fasthamer.distill.objective import Objective
from fasthamer.distill.preparation import prepare
from fasthamer.distill.run import execute
from fasthamer.distill.tokenizer import prepare_tokenizer
from fasthamer.distill.trainer import DistillTrainer
from fasthamer.tools.distill import main
from fasthamer.training.accelerator import accelerator_for
from fasthamer.training.loop import train
from fasthamer.training.pace import seconds_per_step, steps_within

SMALL = [
    *("STUDENT.NAME", "timm:test_resnet", "STUDENT.DECODER_SIZE", "tiny", "KD.MODE", "none"),
    *("IMAGE_SIZE", "64", "STUDENT.IMAGE_SIZE", "64", "STUDENT.PRETRAINED", "False", "DEVICE", "cpu"),
    *("DATA.WORKERS", "0", "DATA.SYNTHETIC_SIZE", "2", "DATA.SYNTHETIC_EVAL_SIZE", "1", "TRAIN.BATCH", "1"),
]


@pytest.mark.parametrize(
    ("hours", "seconds", "steps"),
    [
        (20, 10.0, 7000),  # 72000 / 10 = 7200
        (20, 0.5, 100000),  # 144000
        (20, 0.01, 1000000),  # 7.2 million: the paper's number is the most
        (20, 72.0, 1000),
        (20, 73.0, 900),  # 986.3
        (20, 80000.0, 1),
    ],
)
def test_steps_are_rounded_down_to_one_digit(hours, seconds, steps):
    assert steps_within(hours, seconds) == steps


def test_timing_leaves_no_trace_in_the_run(tmp_path):
    """With all that has a state: hybrid distillation, an average, the discriminator, accumulation."""
    options = ("KD.MODE", "hybrid", "TRAIN.STEPS", "3", "TRAIN.EMA", "0.9", "TRAIN.ACCUMULATE", "2")
    cfg = load_config(None, [*TINY, *options, "LOSS.ADVERSARIAL", "0.0005", "TRAIN.SCHEDULE", "cosine"])

    def trained(name: str, timed: bool) -> dict[str, torch.Tensor]:
        accelerator = accelerator_for("cpu", "fp32", 2)
        trainer = DistillTrainer(cfg, tiny(), tiny(seed=1).eval(), Objective.of(cfg), accelerator)
        feed = Feed(Noise(), cfg.TRAIN.BATCH, cfg.SEED)
        if timed:
            assert seconds_per_step(trainer, feed, 2, most=4) > 0
        train(trainer, feed, cfg.TRAIN, tmp_path / name)
        modules = trainer.state.modules
        return {f"{part}.{key}": value for part in modules for key, value in modules[part].state_dict().items()}

    plain, timed = trained("plain", False), trained("timed", True)
    assert not [name for name, value in plain.items() if not torch.equal(value, timed[name])]
    files = [tmp_path / name / "checkpoints/step_3/optimizers.pt" for name in ("plain", "timed")]
    one, other = (torch.load(file, weights_only=True)["learner"]["state"] for file in files)
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert all(torch.equal(value[name], other[key][name]) for name in value)


def test_a_run_without_steps_takes_what_fits_says_so_and_keeps_the_number(tmp_path, capsys):
    run = tmp_path / "run"
    prepared = prepare(load_config(None, SMALL), run)
    assert "steps    as many as fit into 20 hours (a few are timed first) of 1 images" in prepared.announcement
    execute(prepared, hours=1e-6)  # 3.6 ms, in which nothing fits
    output = capsys.readouterr().out
    assert "steps    1 (about " in output and "the paper's recipe takes 1,000,000: --steps" in output
    saved = load_config(run / "config.yaml").TRAIN.STEPS
    assert saved == 1
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step_1"]
    assert main(["--resume", "--out", str(run)]) == 0
    assert "steps    1 of 1 images" in capsys.readouterr().out


def test_a_negative_number_of_steps_and_a_resumed_run_without_one_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"TRAIN\.STEPS is -1: give a number of steps, or 0"):
        prepare(load_config(None, [*SMALL, "TRAIN.STEPS", "-1"]), tmp_path / "run")
    with pytest.raises(ValueError, match=r"TRAIN\.STEPS is -1"):
        prepare_tokenizer(load_config("tokenizer/default", ["TRAIN.STEPS", "-1"]), tmp_path / "run")
    run = tmp_path / "run"
    execute(prepare(load_config(None, [*SMALL, "TRAIN.STEPS", "1"]), run), shown=1)
    with pytest.raises(ValueError, match="a resumed run needs its number of steps"):
        prepare(load_config(run / "config.yaml", ["TRAIN.STEPS", "0"]), run, resume=True)
