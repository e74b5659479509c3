"""What follows a step now and then: the scores of the model so far, and an image of its predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import NamedTuple, TypeVar

import numpy as np
from torch import nn
from yacs.config import CfgNode

from fasthamer.training.interrupt import Interrupted, InterruptHandler
from fasthamer.training.log import RunLog
from fasthamer.training.trainer import Trainer

# Both get the number of steps done and the model as it would be saved, in eval mode.
Evaluate = Callable[[int, nn.Module], Mapping[str, float]]  # scores for the log
Draw = Callable[[int, nn.Module], np.ndarray]  # an image (H, W, 3) uint8 RGB
Result = TypeVar("Result")


class Evaluations(NamedTuple):
    """The evaluations of a run."""

    trainer: Trainer
    settings: CfgNode  # the config's section TRAIN
    log: RunLog
    evaluate: Evaluate | None  # every EVAL_EVERY steps but the last, in every process
    image: Draw | None  # every IMAGE_EVERY steps, in the main process

    def run(self, done: int, interrupt: InterruptHandler) -> bool:
        """Makes those that are due after a step; False if a signal cut them short: then the log has none of them."""
        accelerator, settings = self.trainer.accelerator, self.settings
        alone = accelerator.num_processes == 1  # several evaluate together: none can stop before the others
        scores, image = None, None
        try:
            with self.log.paused(), interrupt.cutting() if alone else nullcontext():
                if self.evaluate and due(done, settings.EVAL_EVERY) and done < settings.STEPS:
                    scores = self._call(self.evaluate, done)
                if self.image and accelerator.is_main_process and due(done, settings.IMAGE_EVERY):
                    image = self._call(self.image, done)
        except Interrupted:
            return False
        if scores is not None:
            self.log.scalars(done, scores, "eval")
        if image is not None:
            self.log.image(done, "predictions", image)
        return True

    def _call(self, callback: Callable[[int, nn.Module], Result], done: int) -> Result:
        model = self.trainer.model
        mode = model.training
        try:
            return callback(done, model.eval())
        finally:
            model.train(mode)


def due(done: int, every: int) -> bool:
    """Whether a step that is done is one of every so many; 0 is never."""
    return every > 0 and done % every == 0
