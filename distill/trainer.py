"""One student at work: its learner, objective, optimizer, and what follows it (average, prior)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from yacs.config import CfgNode

from fasthamer.distill.adversarial import AdversarialLoss, mocap_sampler, procedural_sampler
from fasthamer.distill.learner import Learner
from fasthamer.distill.objective import Objective
from fasthamer.distill.token_targets import TokenTargetEncoder
from fasthamer.students.tokenhand.tokenizer import Tokenizer
from fasthamer.teachers.cache.cached_teacher import CachedTeacher
from fasthamer.training.checkpoint import Trainable
from fasthamer.training.ema import MovingAverage
from fasthamer.training.schedule import learning_rate
from fasthamer.types import Batch, HandOutput


class DistillTrainer:
    """`training_step(batch)` is one forward and backward pass; all that a step changes is in `state`.

    `student` is the one to keep: the moving average if there is one, else the student that learns.
    """

    def __init__(
        self,
        cfg: CfgNode,
        student: nn.Module,
        teacher: nn.Module | None,
        accelerator: Accelerator,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        """
        Args:
            cfg: the resolved config.
            student: moves to the accelerator's device.
            teacher: frozen and in eval mode, or a `CachedTeacher`; None without distillation.
            accelerator: devices, precision, accumulation, processes.
            tokenizer: frozen; of a student that speaks tokens.
        """
        self.cfg, self.accelerator = cfg, accelerator
        words = TokenTargetEncoder(tokenizer.to(accelerator.device), cfg.KD.TEMPERATURE) if tokenizer else None
        self.objective = Objective.of(cfg, words)
        self.teacher = None if teacher is None else self._placed(teacher)
        torch.manual_seed(cfg.SEED)  # of the projection and the discriminator
        self.learner = Learner(student)
        if self.objective.features:
            assert self.teacher is not None
            channels, view = self.teacher.feature_channels, self.teacher.view
            self.learner.compare_features(channels, view, cfg.KD.DIRECTION, cfg.KD.ALIGNMENT)  # type: ignore[arg-type]
        self._placed(self.learner).train()
        self.average = MovingAverage(student, cfg.TRAIN.EMA) if cfg.TRAIN.EMA else None
        self.student = self.average.model if self.average else student
        if cfg.TRAIN.COMPILE:
            student.backbone.compile()  # type: ignore[operator, union-attr]
        self.moving = [each for each in self.learner.parameters() if each.requires_grad]  # all but frozen stages
        optimizer = torch.optim.AdamW(self.moving, lr=cfg.TRAIN.LR, weight_decay=cfg.TRAIN.WEIGHT_DECAY)
        self.shared, self.optimizer = accelerator.prepare(self.learner, optimizer)
        self.adversarial = _adversarial(cfg, accelerator)

    def begin(self, step: int) -> None:
        """Readies the optimizer for a step."""
        train = self.cfg.TRAIN
        self.step = step
        self.rate = learning_rate(step, train.STEPS, train.LR, train.WARMUP, train.SCHEDULE)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate

    def training_step(self, batch: Batch, number: int) -> dict[str, Tensor]:
        """One batch: the teacher's answer, the student's, the loss, and the optimizer's step if one is due.

        Args:
            batch: as the loader gives it.
            number: of the batch within its step, when gradients are accumulated.

        Returns:
            The weighted terms, scalars; `total` is what was minimised.
        """
        random = self._seed(number)
        recalled = self._recall(batch)
        batch = Batch(*(each.to(self.accelerator.device, non_blocking=True) for each in batch))
        with self.accelerator.accumulate(self.shared):
            with torch.no_grad():
                target = self.teacher(batch.image) if self.teacher and recalled is None else recalled
            output = self.shared(batch.image, target.features if target and self.objective.features else None)
            terms = self.objective(output, batch, target)
            if self.adversarial:
                terms["adversarial"] = self.adversarial.generator_loss(output.hand.mano)
                terms["total"] = terms["total"] + terms["adversarial"]
            self.accelerator.backward(terms["total"])
            if self.cfg.TRAIN.CLIP > 0 and self.accelerator.sync_gradients:
                self.accelerator.clip_grad_norm_(self.moving, self.cfg.TRAIN.CLIP)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            if self.adversarial:
                terms["discriminator"] = self.adversarial.discriminator_step(output.hand.mano, random)
        return terms

    def _recall(self, batch: Batch) -> HandOutput | None:
        """A cached answer, looked up before the batch goes to the device: its numbers would have to be waited for."""
        if isinstance(self.teacher, CachedTeacher):
            return self.teacher.recall(batch, self.accelerator.device)
        return None

    def _placed(self, module: nn.Module) -> nn.Module:
        """On the device, where mps knows one memory layout only."""
        module, device = module.to(self.accelerator.device), self.accelerator.device
        if self.cfg.TRAIN.CHANNELS_LAST and device.type != "mps":
            return module.to(memory_format=torch.channels_last)
        return module

    def _seed(self, number: int) -> np.random.Generator:
        """All that is random in a batch (drop-path, dropout, the prior's samples) is a function of its number.

        Seeded once the batch is there: making a loader's iterator draws from torch's generator too.
        """
        sequence = np.random.SeedSequence([self.cfg.SEED, self.step, number, self.accelerator.process_index])
        torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
        return np.random.default_rng(sequence)

    def end(self, done: int) -> None:
        """After an optimizer step; `done` of them are done."""
        if self.average:
            self.average.update(self.learner.student, done)

    @property
    def state(self) -> Trainable:
        """What a checkpoint holds."""
        modules: dict[str, nn.Module] = {"learner": self.learner}
        optimizers: dict[str, Any] = {"learner": self.optimizer}
        if self.average:
            modules["average"] = self.average.model
        if self.adversarial:
            modules["discriminator"], optimizers["discriminator"] = (
                self.adversarial.discriminator,
                self.adversarial.optimizer,
            )
        if self.accelerator.scaler is not None:
            optimizers["scaler"] = self.accelerator.scaler
        return Trainable(modules, optimizers)


def _adversarial(cfg: CfgNode, accelerator: Accelerator) -> AdversarialLoss | None:
    if not cfg.LOSS.ADVERSARIAL:
        return None
    sampler = mocap_sampler(cfg.LOSS.MOCAP) if cfg.LOSS.MOCAP else procedural_sampler
    return AdversarialLoss(cfg.LOSS.ADVERSARIAL, cfg.TRAIN.LR, cfg.TRAIN.WEIGHT_DECAY, sampler, accelerator)
