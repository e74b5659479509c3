"""A student in training: its learner, objective and optimizer, the average that follows it, the discriminator."""

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
from fasthamer.nn.sync_batch_norm import synchronise_batch_norms
from fasthamer.teachers.cache.cached_teacher import CachedTeacher
from fasthamer.training.accelerator import sharded, sharding
from fasthamer.training.checkpoint import Trainable
from fasthamer.training.ema import MovingAverage
from fasthamer.training.guard import Skip, StepGuard
from fasthamer.training.schedule import learning_rate
from fasthamer.training.trainer import Report
from fasthamer.types import Batch, HandOutput


class DistillTrainer:
    """A `fasthamer.training.trainer.Trainer`: distillation, or training from labels alone.

    `model` is the student to keep: its moving average if there is one, else the trained student itself.
    """

    def __init__(
        self,
        cfg: CfgNode,
        student: nn.Module,
        teacher: nn.Module | None,
        objective: Objective,
        accelerator: Accelerator,
        frozen: CachedTeacher | None = None,
    ) -> None:
        """
        Args:
            cfg: the resolved config.
            student: moves to the accelerator's device.
            teacher: frozen and in eval mode, or a `CachedTeacher`; None without distillation.
            objective: the loss; with the token targets of a token student, on the accelerator's device.
            accelerator: devices, precision, accumulation, processes.
            frozen: the stored maps of the student's frozen stages, see `fasthamer.distill.frozen_backbone`.
        """
        self.cfg, self.accelerator, self.objective, self.frozen = cfg, accelerator, objective, frozen
        self.teacher = None if teacher is None else self._placed_teacher(teacher)
        torch.manual_seed(cfg.SEED)  # of the projection and the discriminator
        self.learner = Learner(student)
        if objective.features:
            assert self.teacher is not None
            channels, view = self.teacher.feature_channels, self.teacher.view
            orthogonal = objective.feature_loss == "vkd"
            self.learner.compare_features(channels, view, cfg.KD.DIRECTION, cfg.KD.ALIGNMENT, orthogonal)  # type: ignore[arg-type]
        self._placed(self.learner).train()
        if frozen is not None:
            self.learner.start_at_frozen_maps()
        if accelerator.num_processes > 1:
            synchronise_batch_norms(self.learner, accelerator.device)
        self.average = MovingAverage(student, cfg.TRAIN.EMA) if cfg.TRAIN.EMA else None
        self.model = self.average.model if self.average else student
        if cfg.TRAIN.COMPILE:
            student.backbone.compile()  # type: ignore[operator, union-attr]
        trained = [each for each in self.learner.parameters() if each.requires_grad]  # all but frozen stages
        optimizer = torch.optim.AdamW(trained, lr=cfg.TRAIN.LR, weight_decay=cfg.TRAIN.WEIGHT_DECAY)
        self.shared, self.optimizer = accelerator.prepare(self.learner, optimizer)
        self.guard = StepGuard(accelerator, self.learner, [self.optimizer], cfg.TRAIN.CLIP)
        self.adversarial = _adversarial(cfg, accelerator)

    def begin(self, step: int, steps: int) -> None:
        """Sets the learning rate of an optimizer step."""
        train = self.cfg.TRAIN
        self.step = step
        self.teacher_share = self.objective.teacher_share(step, steps)
        self.rate = learning_rate(step, steps, train.LR, train.WARMUP, train.SCHEDULE)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        self.guard.begin()

    def training_step(self, batch: Any, number: int) -> dict[str, Tensor]:
        """One batch: the outputs of teacher and student, the loss, and the optimizer's step if one is due.

        Args:
            batch: a collated `Batch`, on the CPU.
            number: of the batch within its optimizer step, when gradients are accumulated.

        Returns:
            The weighted terms, scalars; `total` is what is minimised.
        """
        random = self._seed(number)
        batch = Batch(*batch)
        cached = self._cached(batch)
        maps = self.frozen.recall_maps(batch, self.accelerator.device) if self.frozen else None
        batch = Batch(*(each.to(self.accelerator.device, non_blocking=True) for each in batch))
        with self.accelerator.accumulate(self.shared):
            with torch.no_grad():
                target = self.teacher(batch.image) if self.teacher and cached is None else cached
            output = self.shared(batch.image, target.features if target and self.objective.features else None, maps)
            terms = self.objective(output, batch, target, self.teacher_share)
            if self.adversarial:
                terms["adversarial"] = self.adversarial.generator_loss(output.hand.mano)
                terms["total"] = terms["total"] + terms["adversarial"]
            self.accelerator.backward(terms["total"])
            taken = self.guard.step(terms, _values(batch, target, output.hand), batch.index)
            if self.adversarial:
                terms["discriminator"] = self.adversarial.discriminator_step(output.hand.mano, random, taken)
        return terms

    def end(self, done: int) -> Skip | None:
        """Updates the moving average after an optimizer step; `done` of them are done."""
        if self.average and self.guard.skip is None:
            self.average.update(done)
        return self.guard.skip

    def report(self) -> Report:
        """The learning rate."""
        return Report({"learning_rate": self.rate})

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

    def _cached(self, batch: Batch) -> HandOutput | None:
        """The teacher's cached output; read while the batch is on the CPU: its indices would have to be waited for."""
        if isinstance(self.teacher, CachedTeacher):
            return self.teacher.recall(batch, self.accelerator.device)
        return None

    def _placed_teacher(self, teacher: nn.Module) -> nn.Module:
        if not sharding():
            return self._placed(teacher)
        if isinstance(teacher, CachedTeacher):
            raise ValueError(
                "under FSDP all processes run the teacher at once, but each fills the teacher's cache at its own pace: "
                "leave out --teacher-cache or FSDP"
            )
        teacher.convert(self.accelerator.device)  # type: ignore[operator]
        return sharded(teacher, self.accelerator.device)

    def _placed(self, module: nn.Module) -> nn.Module:
        """On the device; mps supports one memory layout only."""
        module, device = module.to(self.accelerator.device), self.accelerator.device
        if self.cfg.TRAIN.CHANNELS_LAST and device.type != "mps":
            return module.to(memory_format=torch.channels_last)
        return module

    def _seed(self, number: int) -> np.random.Generator:
        """Seeds all that is random in a batch: drop-path and dropout with step, batch and process.

        Called once the batch is there: making a loader's iterator draws from torch's generator too.

        Returns:
            A generator of step and batch alone, for the discriminator's samples.
        """
        own, shared = (
            np.random.SeedSequence([self.cfg.SEED, self.step, number, rank])
            for rank in (self.accelerator.process_index, 0)
        )
        torch.manual_seed(int(own.generate_state(1, np.uint64)[0]))
        return np.random.default_rng(shared)


def _values(batch: Batch, teacher: HandOutput | None, student: HandOutput) -> list[tuple[str, Tensor]]:
    """What a loss is computed from, in the order in which it is: the image, the labels, the two outputs."""
    values = [("image" if name == "image" else f"label {name}", each) for name, each in batch._asdict().items()]
    for who, hand in (("teacher", teacher), ("student", student)):
        if hand is not None:
            fields = hand._asdict() | (hand.mano._asdict() if hand.mano else {})
            values += [(f"{who} {name}", each.detach()) for name, each in fields.items() if isinstance(each, Tensor)]
    return values


def _adversarial(cfg: CfgNode, accelerator: Accelerator) -> AdversarialLoss | None:
    if not cfg.LOSS.ADVERSARIAL:
        return None
    sampler = mocap_sampler(cfg.LOSS.MOCAP) if cfg.LOSS.MOCAP else procedural_sampler
    return AdversarialLoss(cfg.LOSS.ADVERSARIAL, cfg.TRAIN.LR, cfg.TRAIN.WEIGHT_DECAY, sampler, accelerator)
