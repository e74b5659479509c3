"""What a model costs apart from time: arithmetic, weights to read, memory."""

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
    """What a module has to do."""

    gflops: float  # of one image, 2 per multiply-add: matrix products, convolutions and attention
    weights_mb: float  # 1e6 bytes that it reads: parameters and buffers


@torch.no_grad()
def peak_memory(model: nn.Module, image: Tensor) -> int:
    """Bytes: weights and buffers, plus the most that is alive at once while `model(image)` runs (twice)."""
    return _resident(model) + _activations(model, image)


@torch.no_grad()
def work_of(parts: dict[str, nn.Module], model: nn.Module, image: Tensor) -> dict[str, Work]:
    """Arithmetic and weights of some parts of a model, or of itself, when it is given an image."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # fused kernels hide their products
        spent = {name: _Spent(part, counter) for name, part in parts.items()}
        model(image[:1])
    return {name: Work(spent[name].close() / 1e9, _resident(part) / _MEGABYTE) for name, part in parts.items()}


class _Spent:
    """Operations that a counter counts while a module runs."""

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
    """Bytes of its parameters and buffers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in [*module.parameters(), *module.buffers()])


def _activations(model: nn.Module, image: Tensor) -> int:
    """Bytes: from the allocator on cuda, elsewhere from the life of every tensor that an operation returns."""
    model(image)
    if image.device.type == "cuda":
        torch.cuda.synchronize(image.device)
        torch.cuda.reset_peak_memory_stats(image.device)
        before = torch.cuda.memory_allocated(image.device)
        model(image)
        torch.cuda.synchronize(image.device)
        return torch.cuda.max_memory_allocated(image.device) - before
    with _LiveBytes() as live:
        model(image)
    return live.peak


class _LiveBytes(TorchDispatchMode):
    """Counts the storages that operations return, from their birth until the last tensor on them is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in given and storage._cdata not in self._known:
                    self._born(storage)
        return result

    def _born(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        self._known[key] = weakref.finalize(storage, self._died, key, size)

    def _died(self, key: int, size: int) -> None:
        self.now -= size
        del self._known[key]
