"""What a model costs apart from time: parameters, arithmetic, memory."""

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


class Cost(NamedTuple):
    """Of one forward pass."""

    params_m: float  # millions; the hand model's arrays are not parameters
    gflops: float  # of one image, 2 per multiply-add: matrix products, convolutions and attention
    peak_mb: float  # 1e6 bytes: weights and buffers, plus the most that was alive at once during the pass


@torch.no_grad()
def measure(model: nn.Module, image: Tensor) -> Cost:
    """Runs `model(image)` three times, image (B, 3, S, S) on the model's device."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # fused kernels hide their products
        model(image[:1])
    tensors = [*model.parameters(), *model.buffers()]
    resident = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return Cost(parameters / 1e6, counter.get_total_flops() / 1e9, (resident + _activations(model, image)) / _MEGABYTE)


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
