"""Optimizer steps are taken only where loss and gradient are finite; a step that is not taken changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

Values = Sequence[tuple[str, Tensor]]  # named tensors (B, ...), in the order in which they are computed


class Skip(NamedTuple):
    """Why an optimizer step was not taken, as far as this process knows."""

    cause: str  # the first thing that is not finite, such as `label joints`; empty: it is in another process
    terms: list[str]  # the loss terms that are not finite
    at: list[int]  # the samples in which the cause is
    samples: list[int]  # all samples of the step
    overflow: bool = False  # the gradient scaler of fp16 was too high, and is lower now: nothing is wrong


class _Seen(NamedTuple):
    terms: dict[str, Tensor]
    values: Values
    samples: Tensor | None

    def numbers(self) -> list[int]:
        return [] if self.samples is None else self.samples.tolist()


class StepGuard:
    """Lets optimizers step where the loss and the gradient are finite in every process, else in none.

    The gradient's norm, which clipping needs anyway, is finite only if the whole gradient is, and processes share the
    gradient. So an optimizer step waits once for the device, for two numbers; with fp16 this takes the place of the
    gradient scaler's own wait. What a forward pass changes, such as the statistics of BatchNorm, is copied before it
    and put back.

    `skip` says after an optimizer step why it was not taken; None if it was.
    """

    def __init__(self, accelerator: Accelerator, module: nn.Module, optimizers: Sequence[Any], clip: float) -> None:
        """
        Args:
            accelerator: devices, accumulation, processes, the gradient scaler.
            module: what is trained.
            optimizers: of its parameters, prepared by the accelerator.
            clip: the largest norm of the gradient; 0 = no clipping.
        """
        self.accelerator, self.optimizers, self.clip = accelerator, optimizers, clip
        self.parameters = {name: each for name, each in module.named_parameters() if each.requires_grad}
        kinds: dict[torch.dtype, list[Tensor]] = {}  # one launch copies all of a kind
        for each in module.buffers():
            kinds.setdefault(each.dtype, []).append(each)
        self.buffers = [(kind, [each.clone() for each in kind]) for kind in kinds.values()]
        self.seen: list[_Seen] = []
        self.skip: Skip | None = None

    def begin(self) -> None:
        """Before the first batch of an optimizer step."""
        self.skip = None
        for buffers, before in self.buffers:
            torch._foreach_copy_(before, buffers)

    def step(self, terms: dict[str, Tensor], values: Values, samples: Tensor | None = None) -> bool:
        """After the backward pass of a batch: the optimizers step with the last batch of an accumulated step.

        Args:
            terms: the loss terms of the batch; `total` is what was differentiated.
            values: what the loss was computed from.
            samples: (B,) numbers of the samples; None: they have none.

        Returns:
            False if a step was due and not taken.
        """
        self.seen.append(_Seen(terms, values, samples))
        if not self.accelerator.sync_gradients:
            return True
        scaler, optimizers = self.accelerator.scaler, [each.optimizer for each in self.optimizers]
        if scaler is not None:
            for optimizer in optimizers:
                scaler.unscale_(optimizer)
        gradients = [each.grad for each in self.parameters.values() if each.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        loss, gradient = self._finite(norm)
        if loss and gradient:
            if self.clip > 0:
                torch._foreach_mul_(gradients, torch.clamp(self.clip / (norm + 1e-6), max=1.0))
            for optimizer in optimizers:
                optimizer.step()
        else:
            self.skip = self._described(loss)
            for buffers, before in self.buffers:
                torch._foreach_copy_(buffers, before)
        if scaler is not None:  # what is not finite for another reason leaves the scale as it is
            scaler.update(None if self.skip is None or self.skip.overflow else scaler.get_scale())
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        self.seen = []
        return self.skip is None

    def _finite(self, norm: Tensor) -> tuple[bool, bool]:
        """Whether the loss and the gradient are finite in all processes."""
        loss = torch.stack([each.terms["total"] for each in self.seen]).isfinite().all()
        found = torch.stack([loss, norm.isfinite()]).float()
        if self.accelerator.num_processes > 1:
            found = self.accelerator.reduce(found, reduction="mean")
        loss_share, gradient_share = found.tolist()  # the wait for the device
        return loss_share == 1, gradient_share == 1

    def _described(self, loss_is_finite: bool) -> Skip:
        samples = [number for each in self.seen for number in each.numbers()]
        scaler = self.accelerator.scaler
        if loss_is_finite and scaler is not None and scaler.get_scale() >= 1:
            return Skip("fp16 gradient", [], [], samples, overflow=True)
        terms = [name for each in self.seen for name, term in each.terms.items() if not term.isfinite()]
        terms = list(dict.fromkeys(terms))
        for each in self.seen:
            for name, value in each.values:
                wrong = ~value.isfinite().reshape(len(value), value[0].numel()).all(1)  # (B,)
                if wrong.any():
                    rows, numbers = wrong.nonzero()[:, 0].tolist(), each.numbers()
                    return Skip(name, terms, [numbers[row] for row in rows] if numbers else [], samples)
        if not loss_is_finite:
            return Skip("loss" if terms else "", terms, [], samples)
        found = (name for name, each in self.parameters.items() if each.grad is not None and _has_bad(each.grad))
        return Skip(f"gradient of {next(found, 'all parameters together')}", terms, [], samples)


def _has_bad(gradient: Tensor) -> bool:
    return not bool(gradient.isfinite().all())
