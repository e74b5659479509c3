"""Opens a hand model in any runtime: `open_session(model, backend)(crops)`.

Opening an exported .onnx or .xml file needs NumPy and its runtime, not torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fasthamer.registry import unknown
from fasthamer.runtime.session import Session, Setting

BACKENDS = {  # backend: its precisions
    "torch": ("fp32", "bf16", "fp16"),
    "folded": ("fp32", "bf16", "fp16"),
    "compile": ("fp32", "bf16", "fp16"),
    "cudagraphs": ("fp32", "bf16", "fp16"),
    "onnxruntime": ("fp32", "fp16", "int8"),
    "tensorrt": ("fp32", "fp16", "int8"),
    "openvino": ("fp32", "bf16", "fp16", "int8"),
}
SUFFIXES = {".onnx": "onnxruntime", ".xml": "openvino", ".pt2": "folded"}


def open_session(
    model: Any, backend: str = "torch", precision: str = "fp32", device: str = "cpu", batch: int = 1, threads: int = 0
) -> Session:
    """A hand model ready to run.

    Args:
        model: a student or teacher (a module in eval mode; it is moved to `device`), or an exported .onnx, .xml or
            .pt2 file. A module is folded and exported as the backend needs, which takes seconds to minutes.
            After its weights change, open another session.
        backend: torch (the training graph), folded (the inference graph in torch), compile (that, compiled),
            cudagraphs (that, recorded; on cuda), onnxruntime, tensorrt (in ONNX Runtime, on cuda), openvino (CPU).
        precision: fp32, bf16, fp16 or int8; auto = a file's own, fp32 of a module.
        device: a torch device, or auto = the fastest that the backend can use here. A device that it cannot use is an
            error, never replaced by a slower one.
        batch: that the graph is recorded for (cudagraphs, which takes no other) or compiled for first (compile).
        threads: of the CPU; 0 = the runtime's default.

    Raises:
        KeyError: no such backend or precision.
        ValueError: the combination, the device or the file cannot be used here; the message gives the reason.
        FileNotFoundError: no such file.
        ImportError: the runtime is not installed; the message gives the command.
    """
    if backend not in BACKENDS:
        raise KeyError(unknown("backend", backend, BACKENDS))
    precisions = BACKENDS[backend]
    if precision != "auto" and precision not in precisions:
        raise KeyError(f"{backend} computes in {', '.join(precisions)}, not {precision!r}")
    if isinstance(model, str | Path):
        model = _checked_file(Path(model), backend)
    setting = Setting(backend, precision, device, batch, threads)
    return _open(model, setting)


def _open(model: Any, setting: Setting) -> Session:
    """Imports only the requested runtime: the others may not be installed, torch included."""
    if setting.backend in ("onnxruntime", "tensorrt"):
        from fasthamer.runtime.onnx_sessions import open_onnx

        return open_onnx(model, setting)
    if setting.backend == "openvino":
        from fasthamer.runtime.openvino_sessions import open_openvino

        return open_openvino(model, setting)
    from fasthamer.runtime.torch_sessions import open_torch

    return open_torch(model, setting)


def _checked_file(path: Path, backend: str) -> Path:
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"{path}: not an exported model ({', '.join(SUFFIXES)}); open others with fasthamer.predict.open_model "
            "and give the module"
        )
    if not path.is_file():
        raise FileNotFoundError(f"exported model {path}: no such file")
    usable = {".onnx": ("onnxruntime", "tensorrt", "openvino"), ".xml": ("openvino",), ".pt2": ("folded",)}
    if backend not in usable[path.suffix]:
        raise ValueError(f"{path}: a {path.suffix} file runs in {' or '.join(usable[path.suffix])}, not in {backend}")
    return path
