"""Sessions in torch: the training graph, the inference graph, and that one compiled or recorded."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fasthamer.runtime.deploy import inference_graph, named
from fasthamer.runtime.device import pick_device
from fasthamer.runtime.sessions import Session, Setting

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
Run = Callable[[Tensor], dict[str, Tensor]]


class TorchSession(Session):
    """Calls a function of a tensor on the session's device."""

    def __init__(self, run: Run, setting: Setting, size_bytes: int, image_size: int | None = None) -> None:
        self.run, self.setting, self.size_bytes, self.image_size = run, setting, size_bytes, image_size
        self.device = torch.device(setting.device)

    @torch.no_grad()
    def _run(self, images: Any) -> dict[str, Any]:
        if self.setting.threads and torch.get_num_threads() != self.setting.threads:
            torch.set_num_threads(self.setting.threads)
        if not isinstance(images, np.ndarray):
            return self.run(images.to(self.device))
        return {name: value.cpu().numpy() for name, value in self.run(torch.from_numpy(images).to(self.device)).items()}


def open_session(model: nn.Module | Path, setting: Setting) -> Session:
    """See `fasthamer.runtime.sessions.open_session`."""
    device = pick_device(setting.device)
    setting = setting._replace(device=str(device), precision=setting.precision.replace("auto", "fp32"))
    if setting.precision == "fp16" and device.type == "cpu":
        raise ValueError(f"{setting.backend} in fp16 needs a GPU; on a CPU choose fp32 or bf16")
    if setting.backend == "cudagraphs" and device.type != "cuda":
        raise ValueError(f"cudagraphs needs a CUDA device, not {setting.device!r}")
    if isinstance(model, Path):
        raise NotImplementedError
    graph = model.eval() if setting.backend == "torch" else inference_graph(model)
    size = sum(value.nbytes for value in graph.state_dict().values())
    graph = graph.to(device)
    if setting.backend == "torch":
        return TorchSession(_training_graph(graph, setting, device), setting, size)
    graph.to_precision(DTYPES[setting.precision])
    return TorchSession(_eager(graph), setting, size)


def _training_graph(model: nn.Module, setting: Setting, device: torch.device) -> Run:
    half = setting.precision != "fp32"

    def run(images: Tensor) -> dict[str, Tensor]:
        with torch.autocast(device.type, dtype=DTYPES[setting.precision]) if half else nullcontext():
            return named(model(images))

    return run


def _eager(graph: nn.Module) -> Run:
    return lambda images: named(graph(images))
