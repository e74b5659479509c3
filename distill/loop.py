"""The training loop: one function, read from top to bottom."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import Dataset
from yacs.config import CfgNode

from fasthamer.distill.learner import Learner
from fasthamer.distill.objective import Objective
from fasthamer.distill.prior import Prior, mocap_sampler, procedural_sampler
from fasthamer.training.checkpoint import Trainable, load_checkpoint, save_checkpoint
from fasthamer.training.ema import MovingAverage
from fasthamer.training.interrupt import Interrupted, StopWish
from fasthamer.training.meter import Meter
from fasthamer.training.runlog import RunLog
from fasthamer.training.schedule import learning_rate
from fasthamer.training.stream import Stream, batches
from fasthamer.types import Batch

Watch = Callable[[int, nn.Module, RunLog], None]  # steps done, the student as it would be saved, the log


class Classroom(NamedTuple):
    """Who learns from whom, and from what."""

    student: nn.Module
    teacher: nn.Module | None  # frozen; None without distillation
    images: Dataset  # training set, indexed by (epoch, index)


def train(
    cfg: CfgNode,
    room: Classroom,
    run: Path,
    accelerator: Accelerator,
    resume_from: Path | None = None,
    evaluate: Watch | None = None,
    picture: Watch | None = None,
) -> nn.Module:
    """Trains the student for TRAIN.STEPS steps.

    Everything random in step k is drawn from (SEED, k, process) and everything scheduled is a function of k, so a
    checkpoint needs neither, and a resumed run is the uninterrupted one.

    Args:
        cfg: the resolved config.
        room: the models and the data.
        run: the run directory; gets `metrics.jsonl`, `tensorboard/` and `checkpoints/`.
        accelerator: devices, precision, accumulation, processes.
        resume_from: a checkpoint of the same run.
        evaluate: called every EVAL_EVERY steps, on the main process.
        picture: called every PICTURE_EVERY steps, on the main process.

    Returns:
        The student to keep: the moving average if there is one.

    Raises:
        Interrupted: on Ctrl-C, after a checkpoint.
        FloatingPointError: a loss term is not finite; the last checkpoint is of before.
        BadSample: the data has a broken sample.
    """
    rank, processes = accelerator.process_index, accelerator.num_processes
    objective = Objective.of(cfg)
    teacher = None if room.teacher is None else room.teacher.to(accelerator.device)
    torch.manual_seed(cfg.SEED)  # of the projection and the discriminator
    learner = Learner(room.student)
    if objective.features:
        assert teacher is not None
        learner.compare_features(teacher.feature_channels, teacher.view, cfg.KD.DIRECTION, cfg.KD.ALIGNMENT)
    learner.to(accelerator.device)
    average = MovingAverage(learner.student, cfg.TRAIN.EMA) if cfg.TRAIN.EMA else None
    kept = average.model if average else learner.student
    moving = [parameter for parameter in learner.parameters() if parameter.requires_grad]  # all but frozen stages
    optimizer = torch.optim.AdamW(moving, lr=cfg.TRAIN.LR, weight_decay=cfg.TRAIN.WEIGHT_DECAY)
    shared, optimizer = accelerator.prepare(learner, optimizer)
    prior = _prior(cfg, accelerator)
    state = _trainable(learner, optimizer, average, prior, accelerator)
    first = 0 if resume_from is None else int(load_checkpoint(resume_from, state)["step"])

    steps, accumulate = cfg.TRAIN.STEPS, cfg.TRAIN.ACCUMULATE
    stream = Stream(len(room.images), cfg.TRAIN.BATCH, cfg.SEED, first * accumulate, rank, processes)  # type: ignore[arg-type]
    source = batches(room.images, stream, cfg.DATA.WORKERS, pin=accelerator.device.type == "cuda")
    log = RunLog(run, first, steps, cfg.TRAIN.BATCH * accumulate * processes, muted=not accelerator.is_main_process)
    meter = Meter(accelerator)
    learner.train()
    with StopWish() as wish:
        for step in range(first, steps):
            random = _seed(cfg.SEED, step, rank)
            rate = learning_rate(step, steps, cfg.TRAIN.LR, cfg.TRAIN.WARMUP, cfg.TRAIN.SCHEDULE)
            for group in optimizer.param_groups:
                group["lr"] = rate
            for batch in islice(source, accumulate):
                batch = Batch(*(each.to(accelerator.device, non_blocking=True) for each in batch))
                with accelerator.accumulate(shared):
                    with torch.no_grad():
                        target = None if teacher is None else teacher(batch.image)
                    lesson = shared(batch.image, target.features if target and objective.features else None)
                    terms = objective(lesson, batch, target)
                    if prior:
                        terms["adversarial"] = prior.fool(lesson.hand.mano)
                        terms["total"] = terms["total"] + terms["adversarial"]
                    accelerator.backward(terms["total"])
                    if cfg.TRAIN.CLIP > 0 and accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(moving, cfg.TRAIN.CLIP)
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
                    if prior:
                        terms["discriminator"] = prior.learn(lesson.hand.mano, random)
                meter.add(step, terms)
            done = step + 1
            if average:
                average.update(learner.student, done)
            log.stepped(done)

            last = done == steps
            at = {name: every and done % every == 0 for name, every in _rhythm(cfg).items()}
            stop = (at["log"] or processes == 1) and _anyone(wish.made, accelerator)
            if at["log"] or at["checkpoint"] or stop or last:
                log.scalars(done, meter.read() | {"learning_rate": rate})
            if (at["checkpoint"] or stop or last) and accelerator.is_main_process:
                with log.paused():
                    save_checkpoint(run / "checkpoints", done, state, {})
            for watch, due in ((evaluate, at["evaluate"] and not last), (picture, at["picture"])):
                if watch and due and accelerator.is_main_process:
                    with log.paused():
                        _look(watch, done, kept, log)
            if stop and not last:
                log.close()
                raise Interrupted(f"stopped after step {done} of {steps}; its checkpoint is saved")
    accelerator.wait_for_everyone()
    log.close()
    return kept.eval()


def _rhythm(cfg: CfgNode) -> dict[str, int]:
    return {
        "log": cfg.TRAIN.LOG_EVERY,
        "checkpoint": cfg.TRAIN.CHECKPOINT_EVERY,
        "evaluate": cfg.TRAIN.EVAL_EVERY,
        "picture": cfg.TRAIN.PICTURE_EVERY,
    }


def _seed(seed: int, step: int, rank: int) -> np.random.Generator:
    """Seeds torch for this step (drop-path, dropout) and returns a generator for the rest."""
    sequence = np.random.SeedSequence([seed, step, rank])
    torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
    return np.random.default_rng(sequence)


def _prior(cfg: CfgNode, accelerator: Accelerator) -> Prior | None:
    if not cfg.LOSS.ADVERSARIAL:
        return None
    sampler = mocap_sampler(cfg.LOSS.MOCAP) if cfg.LOSS.MOCAP else procedural_sampler
    return Prior(cfg.LOSS.ADVERSARIAL, cfg.TRAIN.LR, cfg.TRAIN.WEIGHT_DECAY, sampler, accelerator)


def _trainable(
    learner: Learner, optimizer: Any, average: MovingAverage | None, prior: Prior | None, accelerator: Accelerator
) -> Trainable:
    modules: dict[str, nn.Module] = {"learner": learner}
    optimizers: dict[str, Any] = {"learner": optimizer}
    if average:
        modules["average"] = average.model
    if prior:
        modules["discriminator"], optimizers["discriminator"] = prior.discriminator, prior.optimizer
    if accelerator.scaler is not None:
        optimizers["scaler"] = accelerator.scaler
    return Trainable(modules, optimizers)


def _anyone(wish: bool, accelerator: Accelerator) -> bool:
    """Whether any process was asked to stop: all must stop at the same step."""
    if accelerator.num_processes == 1:
        return wish
    return bool(accelerator.reduce(torch.tensor(float(wish), device=accelerator.device)) > 0)


def _look(watch: Watch, done: int, student: nn.Module, log: RunLog) -> None:
    mode = student.training
    watch(done, student.eval(), log)
    student.train(mode)
