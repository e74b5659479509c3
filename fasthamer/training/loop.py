"""The training loop: one function, read from top to bottom."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn
from yacs.config import CfgNode

from fasthamer.training.checkpoint import load_checkpoint, save_checkpoint
from fasthamer.training.interrupt import Interrupted, InterruptHandler
from fasthamer.training.log import RunLog
from fasthamer.training.meter import Meter
from fasthamer.training.skipped import recording_skipped
from fasthamer.training.trainer import Feed, Trainer

Callback = Callable[[int, nn.Module, RunLog], None]  # steps done, the model as it would be saved, the log


def train(
    trainer: Trainer,
    feed: Feed,
    settings: CfgNode,
    run: Path,
    resume_from: Path | None = None,
    evaluate: Callback | None = None,
    image: Callback | None = None,
) -> nn.Module:
    """Trains for STEPS optimizer steps.

    Everything random in step k is drawn from (SEED, k, process) and everything scheduled is a function of k, so a
    checkpoint needs neither, and a resumed run is the uninterrupted one.

    Args:
        trainer: the model in training.
        feed: its batches.
        settings: the config's section TRAIN.
        run: the run directory; gets `metrics.jsonl`, `tensorboard/`, `checkpoints/` and, where samples could not be
            read, `skipped.txt`.
        resume_from: a checkpoint of the same run.
        evaluate: called every EVAL_EVERY steps but the last, on the main process.
        image: called every IMAGE_EVERY steps, on the main process.

    Returns:
        The model to keep, in eval mode.

    Raises:
        Interrupted: on Ctrl-C, after a checkpoint.
        FloatingPointError: a loss term is not finite; the last checkpoint is of before.
        BadSample: the data has a broken sample.
    """
    accelerator, steps, accumulate = trainer.accelerator, settings.STEPS, settings.ACCUMULATE
    processes, main = accelerator.num_processes, accelerator.is_main_process
    facts = {"step": 0} if resume_from is None else load_checkpoint(resume_from, trainer.state)
    first = int(facts["step"])
    source = feed.batches(first * accumulate, _position_in(facts, accelerator))
    meter = Meter(accelerator)
    log = RunLog(run, first, steps, settings.BATCH * accumulate * processes, muted=not main)
    with (
        InterruptHandler() as interrupt,
        closing(log),
        closing(source),
        recording_skipped(feed, run / "skipped.txt", log),
    ):
        for step in range(first, steps):
            trainer.begin(step, steps)
            for number, batch in enumerate(islice(source, accumulate)):
                meter.add(step, trainer.training_step(batch, number))
            done = step + 1
            trainer.end(done)
            log.stepped(done)

            last, logs = done == steps, _due(done, settings.LOG_EVERY)
            stops = (logs or processes == 1) and interrupt.requested_anywhere(accelerator)
            saves = _due(done, settings.CHECKPOINT_EVERY) or stops or last
            if logs or saves:
                terms, report = meter.read(), trainer.report()  # the only wait for the device
                log.scalars(done, terms | report.values)
                if report.warning:
                    log.message(f"step {done}: {report.warning}")
            positions = _positions(feed, accelerator) if saves else {}
            if main:
                with log.paused():
                    if saves:
                        save_checkpoint(run / "checkpoints", done, trainer.state, positions)
                    if evaluate and _due(done, settings.EVAL_EVERY) and not last:
                        _call(evaluate, done, trainer.model, log)
                    if image and _due(done, settings.IMAGE_EVERY):
                        _call(image, done, trainer.model, log)
            if stops and not last:
                raise Interrupted(f"stopped after step {done} of {steps}; its checkpoint is saved")
    accelerator.wait_for_everyone()
    return trainer.model.eval()


def _due(done: int, every: int) -> bool:
    return every > 0 and done % every == 0


def _call(callback: Callback, done: int, model: nn.Module, log: RunLog) -> None:
    mode = model.training
    callback(done, model.eval(), log)
    model.train(mode)


def _positions(feed: Feed, accelerator: Accelerator) -> dict[str, Any]:
    """For a checkpoint: where each process reads on, if the step does not say it. Every process calls this."""
    if feed.position is None:
        return {}
    own = [feed.position]
    return {"lanes": gather_object(own) if accelerator.num_processes > 1 else own}


def _position_in(facts: dict[str, Any], accelerator: Accelerator) -> Any:
    """This process's position in a checkpoint's facts."""
    return facts["lanes"][accelerator.process_index] if "lanes" in facts else None
