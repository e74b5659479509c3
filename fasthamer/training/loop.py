"""The training loop: one function, read from top to bottom."""

from __future__ import annotations

from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn
from yacs.config import CfgNode

from fasthamer.training.checkpoint import load_checkpoint, save_checkpoint
from fasthamer.training.evaluations import Draw, Evaluate, Evaluations, due
from fasthamer.training.interrupt import InterruptHandler
from fasthamer.training.log import RunLog
from fasthamer.training.meter import Meter
from fasthamer.training.skipped import Skipped
from fasthamer.training.trainer import Feed, Trainer


def train(
    trainer: Trainer,
    feed: Feed,
    settings: CfgNode,
    run: Path,
    resume_from: Path | None = None,
    evaluate: Evaluate | None = None,
    image: Draw | None = None,
) -> nn.Module:
    """Trains for STEPS optimizer steps.

    Everything random in step k is drawn from (SEED, k, process) and everything scheduled is a function of k, so a
    checkpoint needs neither, and a resumed run is the uninterrupted one, its log included: whatever a step adds to the
    log is on the disk before the step's checkpoint, or the checkpoint says that it is still to come.

    Args:
        trainer: the model in training.
        feed: its batches.
        settings: the config's section TRAIN.
        run: the run directory; gets `metrics.jsonl`, `tensorboard/`, `checkpoints/` and, where anything was skipped,
            `skipped.txt`.
        resume_from: a checkpoint of the same run.
        evaluate: called every EVAL_EVERY steps but the last, in every process.
        image: called every IMAGE_EVERY steps, on the main process.

    Returns:
        The model to keep, in eval mode.

    Raises:
        Interrupted: on Ctrl-C or SIGTERM, after a checkpoint.
        OSError: the disk is full; the last checkpoint is intact.
        FloatingPointError: loss or gradient were not finite for SKIPS steps in a row, after a checkpoint.
        BadSample: too many samples cannot be read.
    """
    accelerator, steps, accumulate = trainer.accelerator, settings.STEPS, settings.ACCUMULATE
    processes, main = accelerator.num_processes, accelerator.is_main_process
    facts: dict[str, Any] = {"step": 0} if resume_from is None else load_checkpoint(resume_from, trainer.state)
    first = int(facts["step"])
    source = feed.batches(first * accumulate, _position_in(facts, accelerator))
    meter = Meter(accelerator, facts.get("unlogged"))
    pending = bool(facts.get("unevaluated"))  # what is due after step `first`
    log = RunLog(run, first, steps, settings.BATCH * accumulate * processes, not main, pending)
    evaluations = Evaluations(trainer, settings, log, evaluate, image)
    skipped = Skipped(run, feed, log, accelerator, settings.SKIPS, steps, facts.get("skipped_in_a_row", 0))
    with InterruptHandler() as interrupt, closing(log), closing(source), skipped:
        if pending and not evaluations.run(first, interrupt):
            raise interrupt.error(f"stopped after step {first} of {steps}; its checkpoint is saved")
        for step in range(first, steps):
            trainer.begin(step, steps)
            terms = [trainer.training_step(batch, number) for number, batch in enumerate(islice(source, accumulate))]
            done = step + 1
            skip = trainer.end(done)
            meter.add(terms, skip)
            skipped.step(done, skip)
            log.stepped(done)

            last, logs = done == steps, due(done, settings.LOG_EVERY)
            saves = due(done, settings.CHECKPOINT_EVERY) or last or skipped.too_many
            if logs or saves:
                report = trainer.report()
                log.scalars(done, meter.read() | report.values)
                if report.warning:
                    log.message(f"step {done}: {report.warning}")
            stops = (logs or processes == 1) and interrupt.requested_anywhere(accelerator)
            complete = not stops and evaluations.run(done, interrupt)
            if saves or not complete:
                facts = _facts(feed, meter, skipped, complete, accelerator)
                log.flush()
                if main:
                    with log.paused():
                        save_checkpoint(run / "checkpoints", done, trainer.state, facts, settings.KEEP)
            skipped.check(done)
            if not complete:
                raise interrupt.error(f"stopped after step {done} of {steps}; its checkpoint is saved")
    accelerator.wait_for_everyone()
    return trainer.model.eval()


def _facts(feed: Feed, meter: Meter, skipped: Skipped, complete: bool, accelerator: Accelerator) -> dict[str, Any]:
    """For a checkpoint, what the step does not say. Every process calls this.

    Args:
        feed: gives the position where each process reads on.
        meter: may hold terms that are not in the log yet.
        skipped: writes the samples of before the checkpoint, which a resumed run does not read again.
        complete: the evaluation that is due after the step is done.
        accelerator: of the run.
    """
    skipped.write_samples()
    facts: dict[str, Any] = {"processes": accelerator.num_processes} | ({} if complete else {"unevaluated": True})
    if skipped.in_a_row:
        facts["skipped_in_a_row"] = skipped.in_a_row
    if unlogged := meter.unlogged():
        facts["unlogged"] = unlogged
    if feed.position is not None:
        own = [feed.position]
        facts["lanes"] = gather_object(own) if accelerator.num_processes > 1 else own
    return facts


def _position_in(facts: dict[str, Any], accelerator: Accelerator) -> Any:
    """This process's position in a checkpoint's facts."""
    return facts["lanes"][accelerator.process_index] if "lanes" in facts else None
