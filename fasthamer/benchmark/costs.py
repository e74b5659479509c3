"""Costs of a model besides time: operations, bytes of weights, peak memory."""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

_MEGABYTE = 1e6


class Work(NamedTuple):
    """Operations and weights of a module."""

    gflops: float  # 1e9 operations of one image, 2 per multiply-add: matrix products, convolutions and attention
    weights_mb: float  # 1e6 bytes of parameters and buffers


@torch.no_grad()
def peak_memory(model: nn.Module, image: Tensor) -> int:
    """Bytes of weights and buffers, plus the largest total of activations alive at once; runs `model(image)` twice."""
    return _resident(model) + _activations(model, image)


@torch.no_grad()
def work_of(parts: dict[str, nn.Module], model: nn.Module, image: Tensor) -> dict[str, Work]:
    """Operations and weights of parts of a model.

    Args:
        parts: modules of `model`, or `model` itself, by name.
        model: run once.
        image: (B, 3, S, S); the first one is used.
    """
    with (
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):  # operations in fused kernels are not counted
        counts = {name: _OperationCount(part, counter) for name, part in parts.items()}
        model(image[:1])
    return {name: Work(counts[name].close() / 1e9, _resident(part) / _MEGABYTE) for name, part in parts.items()}


class _OperationCount:
    """Operations counted while a module runs."""

    def __init__(self, module: nn.Module, counter: FlopCounterMode) -> None:
        self.total = 0
        self._started: list[int] = []
        enter = module.register_forward_pre_hook(lambda *_: self._started.append(counter.get_total_flops()))
        leave = module.register_forward_hook(lambda *_: self._add(counter.get_total_flops()))
        self._handles = (enter, leave)

    def _add(self, counted: int) -> None:
        self.total += counted - self._started.pop()

    def close(self) -> int:
        for handle in self._handles:
            handle.remove()
        return self.total


def _resident(module: nn.Module) -> int:
    """Bytes of parameters and buffers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in [*module.parameters(), *module.buffers()])


def _activations(model: nn.Module, image: Tensor) -> int:
    """Bytes: from the allocator on cuda, elsewhere from tracking every tensor that an operation returns."""
    model(image)
    if image.device.type == "cuda":
        torch.cuda.synchronize(image.device)
        torch.cuda.reset_peak_memory_stats(image.device)
        before = torch.cuda.memory_allocated(image.device)
        model(image)
        torch.cuda.synchronize(image.device)
        return torch.cuda.max_memory_allocated(image.device) - before
    with _LiveBytes() as counter:
        model(image)
    return counter.peak


class _LiveBytes(TorchDispatchMode):
    """Bytes of the storages that operations return, each counted until its last tensor is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in inputs and storage._cdata not in self._known:
                    self._add(storage)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        self._known[key] = weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self.now -= size
        del self._known[key]
