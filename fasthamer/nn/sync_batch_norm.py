"""Batch norm with the statistics of all processes' batches, so that they train as one process with the joint batch.

PyTorch's own SyncBatchNorm computes on GPUs only, and replaces modules, to which others may hold references.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import BatchNormAct2d
from timm.layers.norm_act import SyncBatchNormAct
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _Sum(torch.autograd.Function):
    """The sum over all processes; so is its gradient, since every process's loss depends on every process's input."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradient)


def mean_over_processes(values: Tensor) -> Tensor:
    """The mean of each number over all processes, each with as many samples; the values themselves in a single one."""
    alone = not distributed.is_initialized() or distributed.get_world_size() == 1
    return values if alone else _Sum.apply(values) / distributed.get_world_size()


def _normalised(norm: _BatchNorm, batch: Tensor) -> Tensor:
    """(B, C, ...) with mean 0 and variance 1 over all processes, and the affine part; updates running statistics."""
    assert norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None
    axes, shape = [0, *range(2, batch.ndim)], [1, -1, *[1] * (batch.ndim - 2)]
    values = batch.float()
    mean = mean_over_processes(values.mean(axes))
    centred = values - mean.view(shape)
    variance = mean_over_processes(centred.square().mean(axes))
    with torch.no_grad():
        norm.num_batches_tracked += 1
        rate = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
        number = distributed.get_world_size() * batch.numel() / batch.shape[1]
        norm.running_mean.lerp_(mean, rate)
        norm.running_var.lerp_(variance * (number / (number - 1)), rate)
    scale = (variance + norm.eps).rsqrt()
    found = centred * (scale if norm.weight is None else scale * norm.weight).view(shape)
    return (found if norm.bias is None else found + norm.bias.view(shape)).to(batch.dtype)


class _Plain1d(nn.BatchNorm1d):
    def forward(self, batch: Tensor) -> Tensor:
        return _normalised(self, batch) if self.training else super().forward(batch)


class _Plain2d(nn.BatchNorm2d):
    def forward(self, batch: Tensor) -> Tensor:
        return _normalised(self, batch) if self.training else super().forward(batch)


class _WithActivation(BatchNormAct2d):
    def forward(self, batch: Tensor) -> Tensor:
        return self.act(self.drop(_normalised(self, batch))) if self.training else super().forward(batch)


_ON_GPU = {nn.BatchNorm1d: nn.SyncBatchNorm, nn.BatchNorm2d: nn.SyncBatchNorm, BatchNormAct2d: SyncBatchNormAct}
_ELSEWHERE = {nn.BatchNorm1d: _Plain1d, nn.BatchNorm2d: _Plain2d, BatchNormAct2d: _WithActivation}


def synchronise_batch_norms(model: nn.Module, device: torch.device) -> None:
    """From now on the model's batch norms in train mode take the statistics of all processes; changed in place.

    Modules keep their names, weights, hooks and places. Those in eval mode (frozen stages) communicate nothing.

    Args:
        model: trains in several processes, each with the same number of samples.
        device: where it trains; on cuda PyTorch's kernels are used.

    Raises:
        ValueError: a batch norm of another kind.
    """
    kinds = _ON_GPU if device.type == "cuda" else _ELSEWHERE
    for name, part in model.named_modules():
        if isinstance(part, _BatchNorm):
            if type(part) not in kinds:
                raise ValueError(f"{name} is a {type(part).__name__}, which several processes cannot train: use one")
            part.__class__ = kinds[type(part)]  # type: ignore[assignment]
            part.process_group = None  # type: ignore[assignment]  # torch's SyncBatchNorm: of all processes
