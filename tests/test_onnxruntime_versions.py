"""The onnxruntime that int8 needs, wherever it is made or run; and `auto` where CUDA raises."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fasthamer.runtime.onnxruntime_package import OLDEST_INT8
from fasthamer.runtime.quantise import FEWEST, quantise
from fasthamer.runtime.sessions import open_session


def test_an_old_onnxruntime_does_not_quantise(exported_teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(pytest.importorskip("onnxruntime"), "__version__", "1.31.4")
    with pytest.raises(ValueError, match=r"1\.31\.4 is too old, 1\.32 or newer is needed"):
        quantise(exported_teacher[1], tmp_path / "made.onnx", np.zeros((FEWEST, 3, 224, 224), np.uint8))
    assert not (tmp_path / "made.onnx").exists()


def test_int8s_bound_is_that_of_the_installation():
    setup = (Path(__file__).parents[1] / "setup.py").read_text(encoding="utf-8")
    assert re.search(r'"onnxruntime>=(\d+)\.(\d+),', setup).groups() == tuple(map(str, OLDEST_INT8))


def test_auto_is_the_cpu_where_cuda_raises_but_tensorrt_has_none(exported_teacher, monkeypatch):
    import onnxruntime

    def opened(path, options, providers):
        if providers[0][0] != "CPUExecutionProvider":
            raise RuntimeError("CUDA failure 100: no CUDA-capable device is detected")
        return onnxruntime.InferenceSession(path, options, providers=providers)

    built_for_cuda = SimpleNamespace(
        __version__="1.32.0",
        get_available_providers=lambda: ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
        SessionOptions=onnxruntime.SessionOptions,
        InferenceSession=opened,
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", built_for_cuda)
    assert open_session(exported_teacher[1], "onnxruntime", device="auto").setting.device == "cpu"
    with pytest.raises(ValueError, match="no CUDA-capable device"):
        open_session(exported_teacher[1], "tensorrt", device="auto")
