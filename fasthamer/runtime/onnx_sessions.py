"""Sessions in ONNX Runtime; a file runs with NumPy and onnxruntime alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from fasthamer.one_line import one_line
from fasthamer.runtime.contract import INPUT, KEY, Contract
from fasthamer.runtime.session import ArraySession, Setting

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
TENSORRT = "TensorrtExecutionProvider"
Providers = list[tuple[str, dict[str, Any]]]  # in order of preference, with their options
OLDEST = (1, 20)  # the first that fasthamer is tested with
INSTALL = "pip install onnxruntime (or onnxruntime-gpu)"


class OnnxSession(ArraySession):
    """An exported .onnx file.

    Args:
        path: the file.
        setting: device cpu or cuda.

    Raises:
        ImportError: onnxruntime is not installed.
        ValueError: not such a file, or the device cannot be used.
    """

    def __init__(self, path: Path, setting: Setting) -> None:
        runtime = import_onnxruntime()
        if setting.device == "auto":
            has_cuda = PROVIDERS["cuda"] in runtime.get_available_providers()
            setting = setting._replace(device="cuda" if has_cuda else "cpu")
        if setting.device != "cpu" and hasattr(runtime, "preload_dlls"):  # 1.21 or newer
            runtime.preload_dlls()  # CUDA's libraries from their Python packages, where torch has not loaded them
        providers = _providers(setting)
        provider = providers[0][0]
        if provider not in runtime.get_available_providers():
            raise ValueError(
                f"this onnxruntime has no {provider} ({', '.join(runtime.get_available_providers())}), so "
                f"{setting.backend} cannot use device {setting.device!r}: install onnxruntime-gpu, or choose cpu"
            )
        options = runtime.SessionOptions()
        options.intra_op_num_threads = setting.threads
        options.log_severity_level = 3  # errors
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # the runtime's own exceptions have no common base
            raise ValueError(f"{path}: onnxruntime cannot open it ({one_line(error)})") from error
        if self._session.get_providers()[0] != provider:  # it falls back to the CPU with a warning only
            raise ValueError(
                f"onnxruntime fell back from {provider} to {self._session.get_providers()[0]}: its CUDA libraries "
                "could not be loaded; repair them, or choose device cpu"
            )
        contract = Contract.from_json(_header(self._session, path), str(path))
        if setting.precision not in ("auto", contract.precision):
            raise ValueError(f"{path} was exported in {contract.precision}, not in {setting.precision}")
        self.setting = setting._replace(precision=contract.precision)
        self.image_size = contract.image_size
        weights = path.with_name(f"{path.name}.data")
        self.size_bytes = sum(each.stat().st_size for each in (path, weights) if each.is_file())
        self.contract, self._outputs = contract, contract.outputs

    def _compute(self, images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(self._outputs, self._session.run(self._outputs, {INPUT: images}), strict=True))


def _header(session: Any, path: Path) -> str | None:
    try:
        return session.get_modelmeta().custom_metadata_map.get(KEY)
    except UnicodeDecodeError:
        raise ValueError(f"{path}: its description is no UTF-8 text: the file is damaged") from None


def open_onnx(model: Any, setting: Setting) -> OnnxSession:
    """See `fasthamer.runtime.sessions.open_session`."""
    if isinstance(model, Path):
        return OnnxSession(model, setting)
    import_onnxruntime()
    from fasthamer.runtime.temporary_export import temporary_onnx_file

    return OnnxSession(temporary_onnx_file(model, setting.precision.replace("auto", "fp32")), setting)


def _providers(setting: Setting) -> Providers:
    kind, _, index = setting.device.partition(":")
    if setting.backend == "tensorrt" and kind != "cuda":
        raise ValueError(f"tensorrt needs a CUDA device, not {setting.device!r}")
    if kind not in PROVIDERS or not (index or "0").isdigit():
        raise ValueError(f"onnxruntime runs on cpu or cuda here, not on {setting.device!r}")
    which = {"device_id": int(index or 0)} if kind == "cuda" else {}
    own: Providers = [(PROVIDERS[kind], which)]
    if setting.backend != "tensorrt":
        return own
    # Without these TensorRT computes in fp32. CUDA takes the nodes that it does not have.
    halves = {"trt_fp16_enable": setting.precision == "fp16", "trt_int8_enable": setting.precision == "int8"}
    return [(TENSORRT, which | halves), *own]


def import_onnxruntime() -> Any:
    """The package onnxruntime; it is heavy, so it is imported when it is first needed.

    Raises:
        ImportError: it is not installed, or too old.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(f"onnxruntime is not installed: {INSTALL}") from error
    if problem := version_problem(onnxruntime.__version__):
        raise ImportError(problem)
    return onnxruntime


def version_problem(version: str) -> str | None:
    """Why a version of onnxruntime, such as 1.20.1, cannot be used; None if it can."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is not None and (int(numbers[1]), int(numbers[2])) >= OLDEST:
        return None
    oldest = ".".join(map(str, OLDEST))
    return f"onnxruntime {version} is too old, {oldest} or newer is needed: pip install 'onnxruntime>={oldest}'"
