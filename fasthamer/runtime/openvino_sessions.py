"""Sessions in OpenVINO, on the CPU: an exported .xml or .onnx file, or a module through ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fasthamer.one_line import one_line
from fasthamer.runtime.contract import INPUT, KEY, Contract
from fasthamer.runtime.session import ArraySession, Setting

# The arithmetic of the CPU: by default, OpenVINO takes bf16 wherever the CPU has it.
HINTS = {"fp32": "f32", "int8": "f32", "bf16": "bf16", "fp16": "f16"}


class OpenVinoSession(ArraySession):
    """A compiled model.

    Args:
        path: an .xml or .onnx file.
        setting: device cpu; precision is that of the arithmetic.

    Raises:
        ImportError: openvino is not installed.
        ValueError: not such a file, or an unsupported device or precision.
    """

    def __init__(self, path: Path, setting: Setting) -> None:
        openvino = _runtime()
        if setting.device not in ("auto", "cpu"):
            raise ValueError(f"openvino runs on cpu here, not on {setting.device!r}")
        core = openvino.Core()
        try:
            model = core.read_model(path)
        except RuntimeError as error:
            raise ValueError(f"{path}: openvino cannot read it ({one_line(error)})") from error
        contract = Contract.from_json(_header(model), str(path))
        precision = contract.precision if setting.precision == "auto" else setting.precision
        if (precision == "int8") != (contract.precision == "int8"):
            raise ValueError(f"{path} was exported in {contract.precision}, not in {precision}")
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": HINTS[precision], "PERFORMANCE_HINT": "LATENCY"}
        if setting.threads:
            options["INFERENCE_NUM_THREADS"] = setting.threads
        self._request = core.compile_model(model, "CPU", options).create_infer_request()
        self.setting = setting._replace(precision=precision, device="cpu")
        self.image_size = contract.image_size
        weights = path.with_suffix(".bin") if path.suffix == ".xml" else path.with_name(f"{path.name}.data")
        self.size_bytes = sum(each.stat().st_size for each in (path, weights) if each.is_file())
        self.contract, self._outputs = contract, contract.outputs

    def _compute(self, images: np.ndarray) -> dict[str, np.ndarray]:
        self._request.infer({INPUT: images})
        return {name: self._request.get_tensor(name).data.copy() for name in self._outputs}


def open_openvino(model: Any, setting: Setting) -> OpenVinoSession:
    """See `fasthamer.runtime.sessions.open_session`."""
    if isinstance(model, Path):
        return OpenVinoSession(model, setting)
    _runtime()
    from fasthamer.runtime.temporary_export import temporary_onnx_file

    stored = "int8" if setting.precision == "int8" else "fp32"  # half precision is chosen when it is compiled
    chosen = setting._replace(precision=setting.precision.replace("auto", "fp32"))
    return OpenVinoSession(temporary_onnx_file(model, stored), chosen)


def _header(model: Any) -> str | None:
    for path in ([KEY], ["framework", KEY]):  # of an .xml, and as the ONNX reader keeps a file's properties
        if model.has_rt_info(path):
            return model.get_rt_info(path).astype(str)
    return None


def _runtime() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise ImportError("openvino is not installed: pip install openvino") from error
    return openvino
