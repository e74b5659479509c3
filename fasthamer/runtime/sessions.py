"""One call for every way to run a hand model: `open_session(model, backend)(crops)`.

Opening an exported .onnx or .xml file needs NumPy and its runtime, not torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fasthamer.registry import unknown
from fasthamer.runtime.contract import Contract

BACKENDS = {  # backend: the module that opens it, and its precisions
    "torch": ("torch_sessions", ("fp32", "bf16", "fp16")),
    "folded": ("torch_sessions", ("fp32", "bf16", "fp16")),
    "compile": ("torch_sessions", ("fp32", "bf16", "fp16")),
    "cudagraphs": ("torch_sessions", ("fp32", "bf16", "fp16")),
    "onnxruntime": ("onnx_sessions", ("fp32", "fp16", "int8")),
    "tensorrt": ("onnx_sessions", ("fp32", "fp16", "int8")),
    "openvino": ("openvino_sessions", ("fp32", "bf16", "fp16", "int8")),
}
SUFFIXES = {".onnx": "onnxruntime", ".xml": "openvino", ".pt2": "folded"}


class Setting(NamedTuple):
    """How a session computes."""

    backend: str
    precision: str  # of backbone and decoder; the hand is skinned in fp32
    device: str
    batch: int  # the number of images that graphs of fixed size are made for
    threads: int  # of the CPU; 0 = as many as the runtime takes by itself


class Session(ABC):
    """`session(images) -> {name: array}` with the names of `fasthamer.runtime.contract.OUTPUTS`.

    Images are uint8 crops (B, 3, S, S), RGB. Arrays give arrays; tensors give tensors, on the session's device where
    the runtime computes in torch.
    """

    setting: Setting
    size_bytes: int  # of the exported file or, in torch, of the weights
    image_size: int | None = None  # S, where only one will do
    contract: Contract | None = None  # of an exported file

    def __call__(self, images: Any) -> dict[str, Any]:
        shape = tuple(images.shape)
        if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3] or str(images.dtype).split(".")[-1] != "uint8":
            raise ValueError(f"images must be square crops (B, 3, S, S) uint8, RGB; got {shape} {images.dtype}")
        if self.image_size not in (None, shape[-1]):
            raise ValueError(f"this model was exported for crops of {self.image_size} pixels; got {shape[-1]}")
        return self._run(images)

    @abstractmethod
    def _run(self, images: Any) -> dict[str, Any]: ...


class ArraySession(Session):
    """A runtime that takes and gives NumPy arrays."""

    def _run(self, images: Any) -> dict[str, Any]:
        if isinstance(images, np.ndarray):
            return self._compute(np.ascontiguousarray(images))
        import torch

        return {name: torch.from_numpy(value) for name, value in self._compute(images.cpu().numpy()).items()}

    @abstractmethod
    def _compute(self, images: np.ndarray) -> dict[str, np.ndarray]: ...


def open_session(
    model: Any, backend: str = "torch", precision: str = "fp32", device: str = "cpu", batch: int = 1, threads: int = 0
) -> Session:
    """A hand model ready to run.

    Args:
        model: a student or teacher (a module in eval mode; it is moved to `device`), or an exported .onnx, .xml or
            .pt2 file. A module is folded and exported as the backend needs, which takes a while.
        backend: torch (the training graph), folded (the inference graph in torch), compile (that, compiled),
            cudagraphs (that, recorded; on cuda), onnxruntime, tensorrt (in ONNX Runtime, on cuda), openvino (CPU).
        precision: fp32, bf16, fp16 or int8; auto = a file's own, fp32 of a module.
        device: a torch device, or auto = the best that the backend can use here. One that it cannot use is an error,
            never a slower one instead.
        batch: for graphs of fixed size (cudagraphs); the others take any.
        threads: of the CPU; 0 = as many as the runtime takes by itself, which differs between them.

    Raises:
        KeyError: no such backend or precision.
        ValueError: the combination, the device or the file cannot be used here; the message says why.
        FileNotFoundError: no such file.
        ImportError: the runtime is not installed; the message says how to get it.
    """
    if backend not in BACKENDS:
        raise KeyError(unknown("backend", backend, BACKENDS))
    module, precisions = BACKENDS[backend]
    if precision != "auto" and precision not in precisions:
        raise KeyError(f"{backend} computes in {', '.join(precisions)}, not {precision!r}")
    if isinstance(model, str | Path):
        model = _checked_file(Path(model), backend)
    setting = Setting(backend, precision, device, batch, threads)
    return import_module(f"fasthamer.runtime.{module}").open_session(model, setting)


def _checked_file(path: Path, backend: str) -> Path:
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"{path}: not an exported model ({', '.join(SUFFIXES)}); open others with fasthamer.predict.open_model "
            "and give the module"
        )
    if not path.is_file():
        raise FileNotFoundError(f"exported model {path}: no such file")
    usable = {".onnx": ("onnxruntime", "tensorrt", "openvino"), ".xml": ("openvino",), ".pt2": ("folded", "compile")}
    if backend not in usable[path.suffix]:
        raise ValueError(f"{path}: a {path.suffix} file runs in {' or '.join(usable[path.suffix])}, not in {backend}")
    return path
