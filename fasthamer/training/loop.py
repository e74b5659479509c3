"""The training loop: one function, read from top to bottom."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from itertools import islice
from pathlib import Path

from torch import nn

from fasthamer.data.dataset import HandDataset
from fasthamer.data.loader import Feed
from fasthamer.data.streams import HandStream
from fasthamer.distill.trainer import DistillTrainer
from fasthamer.training.checkpoint import load_checkpoint, save_checkpoint
from fasthamer.training.interrupt import Interrupted, InterruptHandler
from fasthamer.training.lane_places import lane_facts, noting_skipped, places_of
from fasthamer.training.log import RunLog
from fasthamer.training.meter import Meter
from fasthamer.types import Batch

Watch = Callable[[int, nn.Module, RunLog], None]  # steps done, the student as it would be saved, the log


def train(
    trainer: DistillTrainer,
    images: HandDataset | HandStream,
    run: Path,
    resume_from: Path | None = None,
    evaluate: Watch | None = None,
    image: Watch | None = None,
) -> nn.Module:
    """Trains for TRAIN.STEPS optimizer steps.

    Everything random in step k is drawn from (SEED, k, process) and everything scheduled is a function of k, so a
    checkpoint needs neither, and a resumed run is the uninterrupted one.

    Args:
        trainer: the student and whoever teaches it.
        images: training set, indexed by (epoch, index) or walked.
        run: the run directory; gets `metrics.jsonl`, `tensorboard/`, `checkpoints/` and, where samples of a walked set
            could not be read, `skipped.txt`.
        resume_from: a checkpoint of the same run.
        evaluate: called every EVAL_EVERY steps but the last, on the main process.
        image: called every PICTURE_EVERY steps, on the main process.

    Returns:
        The student to keep, in eval mode.

    Raises:
        Interrupted: on Ctrl-C, after a checkpoint.
        FloatingPointError: a loss term is not finite; the last checkpoint is of before.
        BadSample: the data has a broken sample.
    """
    cfg, accelerator = trainer.cfg, trainer.accelerator
    rank, processes, device = accelerator.process_index, accelerator.num_processes, accelerator.device
    facts = {"step": 0} if resume_from is None else load_checkpoint(resume_from, trainer.state)
    first, places = int(facts["step"]), places_of(facts, rank)
    batch_size, accumulate, steps = cfg.TRAIN.BATCH, cfg.TRAIN.ACCUMULATE, cfg.TRAIN.STEPS
    begin, pin = first * accumulate, device.type == "cuda"
    feed = Feed(images, batch_size, cfg.SEED, begin, rank, processes, cfg.DATA.WORKERS, pin, places)
    source = feed.batches()
    meter = Meter(accelerator)
    log = RunLog(run, first, steps, batch_size * accumulate * processes, muted=not accelerator.is_main_process)
    with InterruptHandler() as interrupt, closing(log), closing(source), noting_skipped(feed, run / "skipped.txt", log):
        for step in range(first, steps):
            trainer.begin(step)
            for number, batch in enumerate(islice(source, accumulate)):
                meter.add(step, trainer.training_step(Batch(*batch), number))
            done = step + 1
            trainer.end(done)
            log.stepped(done)

            last, logs = done == steps, _due(done, cfg.TRAIN.LOG_EVERY)
            stops = (logs or processes == 1) and interrupt.requested_anywhere(accelerator)
            saves = _due(done, cfg.TRAIN.CHECKPOINT_EVERY) or stops or last
            if logs or saves:
                log.scalars(done, meter.read() | {"learning_rate": trainer.rate})  # the only wait for the device
            place = lane_facts(feed, accelerator) if saves else {}
            if accelerator.is_main_process:
                with log.paused():
                    if saves:
                        save_checkpoint(run / "checkpoints", done, trainer.state, place)
                    if evaluate and _due(done, cfg.TRAIN.EVAL_EVERY) and not last:
                        _watch(evaluate, done, trainer.student, log)
                    if image and _due(done, cfg.TRAIN.IMAGE_EVERY):
                        _watch(image, done, trainer.student, log)
            if stops and not last:
                raise Interrupted(f"stopped after step {done} of {steps}; its checkpoint is saved")
    accelerator.wait_for_everyone()
    return trainer.student.eval()


def _due(done: int, every: int) -> bool:
    return every > 0 and done % every == 0


def _watch(watch: Watch, done: int, student: nn.Module, log: RunLog) -> None:
    mode = student.training
    watch(done, student.eval(), log)
    student.train(mode)
