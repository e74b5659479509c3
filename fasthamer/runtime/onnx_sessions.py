"""Sessions in ONNX Runtime; a file runs with NumPy and onnxruntime alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fasthamer.one_line import one_line
from fasthamer.runtime.contract import INPUT, KEY, Contract
from fasthamer.runtime.onnxruntime_package import import_onnxruntime, int8_problem
from fasthamer.runtime.session import ArraySession, Setting

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
TENSORRT = "TensorrtExecutionProvider"
Providers = list[tuple[str, dict[str, Any]]]  # in order of preference, with their options


class OnnxSession(ArraySession):
    """An exported .onnx file.

    Args:
        path: the file.
        setting: device cpu or cuda; auto = cuda where it works, else cpu.

    Raises:
        ImportError: onnxruntime is not installed.
        ValueError: not such a file, the device cannot be used, or an int8 file and an onnxruntime too old for it.
    """

    def __init__(self, path: Path, setting: Setting) -> None:
        runtime = import_onnxruntime()
        if setting.device == "auto":
            self._session, setting = _on_the_fastest(runtime, path, setting)
        else:
            self._session = _on_its_device(runtime, path, setting)
        contract = Contract.from_json(_header(self._session, path), str(path))
        if setting.precision not in ("auto", contract.precision):
            raise ValueError(f"{path} was exported in {contract.precision}, not in {setting.precision}")
        if contract.precision == "int8" and (problem := int8_problem(runtime.__version__)):
            raise ValueError(f"{path}: {problem}")
        self.setting = setting._replace(precision=contract.precision)
        self.image_size = contract.image_size
        weights = path.with_name(f"{path.name}.data")
        self.size_bytes = sum(each.stat().st_size for each in (path, weights) if each.is_file())
        self.contract, self._outputs = contract, contract.outputs

    def _compute(self, images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(self._outputs, self._session.run(self._outputs, {INPUT: images}), strict=True))


def _on_the_fastest(runtime: Any, path: Path, setting: Setting) -> tuple[Any, Setting]:
    """The runtime's session on cuda, or on the CPU where that fails, and the setting with its device."""
    on_cuda, on_cpu = setting._replace(device="cuda"), setting._replace(device="cpu")
    if PROVIDERS["cuda"] in runtime.get_available_providers():  # what it was built with: there may be no GPU
        try:
            return _on_its_device(runtime, path, on_cuda), on_cuda
        except ValueError:
            if setting.backend == "tensorrt":  # it has no CPU to go to
                raise
    return _on_its_device(runtime, path, on_cpu), on_cpu


def _on_its_device(runtime: Any, path: Path, setting: Setting) -> Any:
    """The runtime's session on the setting's device, and on no other."""
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
        session = runtime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # the runtime's own exceptions have no common base
        raise ValueError(f"{path}: onnxruntime cannot open it ({one_line(error)})") from error
    if session.get_providers()[0] != provider:  # it falls back to the CPU with a warning only
        raise ValueError(
            f"onnxruntime fell back from {provider} to {session.get_providers()[0]}: its CUDA libraries "
            "could not be loaded; repair them, or choose device cpu"
        )
    return session


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
