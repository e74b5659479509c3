"""Trainings of the smallest real student on made-up images, without a dataset."""

from __future__ import annotations

import json
from pathlib import Path

from noise_images import TINY, Noise, tiny
from torch import nn

from fasthamer.config import load_config
from fasthamer.data.dataset import HandDataset
from fasthamer.data.loader import Feed
from fasthamer.distill.objective import Objective
from fasthamer.distill.trainer import DistillTrainer
from fasthamer.training.accelerator import accelerator_for
from fasthamer.training.loop import train


def train_student(
    run: Path,
    *overrides: str,
    images: HandDataset | None = None,
    student: nn.Module | None = None,
    teacher: nn.Module | None = None,
    **options,
):
    """Trains and returns the student and its teacher; `options` are those of `train`."""
    cfg = load_config(None, [*TINY, *overrides])
    teacher = None if cfg.KD.MODE == "none" else teacher or tiny(seed=1).eval().requires_grad_(False)
    accelerator = accelerator_for(cfg.DEVICE, cfg.TRAIN.PRECISION, cfg.TRAIN.ACCUMULATE)
    trainer = DistillTrainer(cfg, student or tiny(), teacher, Objective.of(cfg), accelerator)
    feed = Feed(images or Noise(), cfg.TRAIN.BATCH, cfg.SEED, workers=cfg.DATA.WORKERS)
    return train(trainer, feed, cfg.TRAIN, run, **options), teacher


def lines(run: Path, phase: str = "train") -> list[dict]:
    """What the run logged in a phase."""
    read = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in read if line["phase"] == phase]
