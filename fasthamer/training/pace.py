"""A number of steps that fits into a day: a few real steps are timed, and everything they changed is put back."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from contextlib import closing
from itertools import islice

import torch
from yacs.config import CfgNode

from fasthamer.config import replaced
from fasthamer.training.interrupt import InterruptHandler
from fasthamer.training.log import duration
from fasthamer.training.trainer import Feed, Trainer

HOURS = 20.0  # how long a run without TRAIN.STEPS takes at most, about
MOST_STEPS = 1_000_000  # even where more would fit: the number of Fast-HaMeR's recipe
TIMED_SECONDS, FEWEST, MOST = 20.0, 2, 40  # steps are timed for so long; how many at least and at most


def with_timed_steps(
    cfg: CfgNode, trainer: Trainer, feed: Feed, hours: float, note: str, message: Callable[[str], None]
) -> CfgNode:
    """The config with TRAIN.STEPS set to the largest round number of steps that fits into some hours.

    Args:
        cfg: frozen; its TRAIN.STEPS is 0.
        trainer: a new one; it is left as it came.
        feed: its batches.
        hours: for the training, without evaluation.
        note: what else the message says of the number.
        message: gets one line.

    Raises:
        Interrupted: on Ctrl-C.
        BadSample: the data has a broken sample.
    """
    seconds = seconds_per_step(trainer, feed, cfg.TRAIN.ACCUMULATE)
    steps = steps_within(hours, seconds)
    message(f"steps    {steps} (about {duration(steps * seconds)} on this machine, {seconds:.2g} s a step; {note})")
    return replaced(cfg, {"TRAIN.STEPS": steps})


def check_steps(steps: int, resumed: bool = False) -> None:
    """
    Raises:
        ValueError: a negative number, or none for a run that goes on from a checkpoint.
    """
    if steps < 0:
        raise ValueError(f"TRAIN.STEPS is {steps}: give a number of steps, or 0 for as many as fit into a day")
    if resumed and not steps:
        raise ValueError("a resumed run needs its number of steps: TRAIN.STEPS (--steps)")


def described_steps(steps: int) -> str:
    """For the announcement, before anything is timed."""
    return str(steps) if steps else f"as many as fit into {HOURS:g} hours (a few are timed first)"


def steps_within(hours: float, seconds: float) -> int:
    """The largest number of steps of so many seconds that fits, rounded down to one digit and zeros; at least 1."""
    fitting = 3600 * hours / seconds
    magnitude = 10 ** max(math.floor(math.log10(max(fitting, 1.0))), 0)
    return min(max(int(fitting // magnitude * magnitude), 1), MOST_STEPS)


def seconds_per_step(trainer: Trainer, feed: Feed, accumulate: int, most: int = MOST) -> float:
    """The mean duration of an optimizer step, its data included, the same number in every process.

    The first half of the timed steps is left out: it compiles, allocates, and consumes batches that loader processes
    have prepared in the meantime. The trainer's state and torch's random generator are put back afterwards.

    Args:
        trainer: a new one.
        feed: its batches.
        accumulate: batches per optimizer step.
        most: steps to time; fewer if they are slow.
    """
    state, accelerator = trainer.state, trainer.accelerator
    modules = {name: copy.deepcopy(each.state_dict()) for name, each in state.modules.items()}
    optimizers = {name: copy.deepcopy(each.state_dict()) for name, each in state.optimizers.items()}
    generator = torch.get_rng_state()
    times = [_now(trainer)]
    with InterruptHandler() as interrupt, closing(feed.batches()) as source:
        while len(times) <= FEWEST or (len(times) <= most and times[-1] - times[0] < TIMED_SECONDS):
            step = len(times) - 1
            trainer.begin(step, MOST_STEPS)
            for number, batch in enumerate(islice(source, accumulate)):
                trainer.training_step(batch, number)["total"].item()  # waits for the device
            trainer.end(step + 1)
            times.append(_now(trainer))
            if interrupt.requested_anywhere(accelerator):
                raise interrupt.error("stopped while steps were timed")
    for name, module in state.modules.items():
        module.load_state_dict(modules[name])
    for name, optimizer in state.optimizers.items():
        optimizer.load_state_dict(optimizers[name])
    torch.set_rng_state(generator)
    half = len(times) // 2
    return (times[-1] - times[half]) / (len(times) - 1 - half)


def _now(trainer: Trainer) -> float:
    """Seconds, a mean over all processes, so that they agree on when to stop."""
    now = torch.tensor(time.perf_counter(), dtype=torch.float64)
    if trainer.accelerator.num_processes == 1:
        return now.item()
    return trainer.accelerator.reduce(now.to(trainer.accelerator.device), reduction="mean").item()
