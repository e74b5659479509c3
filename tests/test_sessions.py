"""`open_session`: every backend gives the same hands behind one call, or says why it cannot."""

import os
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fasthamer.runtime.contract import OUTPUTS
from fasthamer.runtime.session import Setting
from fasthamer.runtime.sessions import BACKENDS, open_session
from fasthamer.runtime.temporary_export import temporary_onnx_file
from fasthamer.students import build_student

SIZE = 224  # of the embedded teacher's crops
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.fixture(scope="module")
def student():
    return build_student("timm:test_resnet", decoder_size="tiny", image_size=64).eval()


def crops(batch: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(batch).integers(0, 256, (batch, 3, size, size), dtype=np.uint8)


def farthest_mm(found, expected) -> float:
    return 1000 * float(np.linalg.norm(np.asarray(found["vertices"]) - np.asarray(expected["vertices"]), axis=-1).max())


@pytest.mark.parametrize("backend", ["folded", "onnxruntime", "openvino"])
def test_backends_agree_on_any_number_of_images(backend, exported_teacher):
    pytest.importorskip("openvino")
    teacher, path = exported_teacher
    session = open_session(teacher if backend == "folded" else path, backend, threads=1)
    assert session.setting == Setting(backend, "fp32", "cpu", 1, 1)
    assert session.size_bytes > 5e6
    original = open_session(teacher, "torch", threads=1)
    for batch in (1, 3):
        found, expected = session(crops(batch)), original(crops(batch))
        assert tuple(found) == tuple(expected) == OUTPUTS
        assert all(isinstance(value, np.ndarray) and value.dtype == np.float32 for value in found.values())
        assert {name: value.shape for name, value in found.items()} == {
            name: value.shape for name, value in expected.items()
        }
        assert farthest_mm(found, expected) < 0.01
        np.testing.assert_allclose(found["keypoints_2d"], expected["keypoints_2d"], atol=1e-5)
        np.testing.assert_allclose(found["camera"], expected["camera"], rtol=1e-4)


@pytest.mark.parametrize("backend", ["folded", "onnxruntime"])
def test_tensors_give_tensors(backend, exported_teacher):
    teacher, path = exported_teacher
    session = open_session(teacher if backend == "folded" else path, backend)
    image = torch.from_numpy(crops(2))
    found = session(image)
    assert all(isinstance(value, torch.Tensor) for value in found.values())
    np.testing.assert_array_equal(found["vertices"].numpy(), session(crops(2))["vertices"])


def test_half_precision_rounds_a_little(student, exported_teacher):
    exact = open_session(student, "torch")(crops(2, 64))
    for backend in ("torch", "folded"):
        rounded = open_session(student, backend, "bf16")(crops(2, 64))
        assert 1e-4 < farthest_mm(rounded, exact) < 5
    assert next(student.parameters()).dtype == torch.float32
    pytest.importorskip("openvino")
    exact = open_session(exported_teacher[1], "openvino", "fp32")(crops(1))
    # The mesh is rounded too, where the CPU has such arithmetic: 8 bits of metres are up to a millimetre.
    assert farthest_mm(open_session(exported_teacher[1], "openvino", "bf16")(crops(1)), exact) < 30


def test_a_module_is_exported_once_while_it_lives():
    pytest.importorskip("onnxruntime")
    model = build_student("timm:test_resnet", decoder_size="tiny", image_size=64).eval()
    first = open_session(model, "onnxruntime")
    path = temporary_onnx_file(model, "fp32")
    written = path.stat().st_mtime_ns
    second = open_session(model, "onnxruntime")
    assert temporary_onnx_file(model, "fp32") == path and path.stat().st_mtime_ns == written
    np.testing.assert_array_equal(first(crops(1, 64))["vertices"], second(crops(1, 64))["vertices"])
    del model
    assert not path.parent.exists()


def test_the_error_for_what_does_not_exist_names_the_nearest(student):
    with pytest.raises(KeyError, match="no backend named 'onnx'; did you mean 'onnxruntime'"):
        open_session(student, "onnx")
    with pytest.raises(KeyError, match=r"folded computes in fp32, bf16, fp16, not 'int8'"):
        open_session(student, "folded", "int8")
    with pytest.raises(ValueError, match="fp16 needs a GPU"):
        open_session(student, "folded", "fp16")


@pytest.mark.parametrize(
    "wrong", [crops(1)[0], crops(1)[:, :, :9], crops(1).astype(np.float32), crops(1).transpose(0, 2, 3, 1)]
)
def test_images_of_another_form_are_explained(student, wrong):
    with pytest.raises(ValueError, match=r"square crops \(B, 3, S, S\) uint8"):
        open_session(student)(wrong)


def test_an_exported_model_takes_crops_of_its_own_size_only(exported_teacher):
    with pytest.raises(ValueError, match="exported for crops of 224 pixels; got 64"):
        open_session(exported_teacher[1], "onnxruntime")(crops(1, 64))


@no_gpu
@pytest.mark.parametrize("backend", BACKENDS)
def test_no_backend_falls_back_from_a_missing_gpu(backend, student, exported_teacher):
    model = exported_teacher[1] if backend in ("onnxruntime", "tensorrt", "openvino") else student
    with pytest.raises(ValueError, match="cuda"):
        open_session(model, backend, device="cuda")


@pytest.mark.parametrize(("backend", "message"), [("cudagraphs", "CUDA device"), ("tensorrt", "CUDA device")])
def test_backends_of_the_gpu_do_not_run_on_the_cpu(backend, message, student, exported_teacher):
    with pytest.raises(ValueError, match=f"{backend} needs a {message}, not 'cpu'"):
        open_session(exported_teacher[1] if backend == "tensorrt" else student, backend)


def without_a_gpu(version):
    """The package onnxruntime as built for CUDA, on a machine without a GPU."""
    import onnxruntime

    def opened(path, options, providers):
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    return SimpleNamespace(
        __version__=version,
        get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
        SessionOptions=onnxruntime.SessionOptions,
        InferenceSession=opened,
    )


def test_auto_is_the_cpu_where_onnxruntime_has_no_usable_gpu(exported_teacher, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", without_a_gpu("1.20.0"))
    session = open_session(exported_teacher[1], "onnxruntime", device="auto")
    assert session.setting.device == "cpu" and session(crops(1))["vertices"].shape == (1, 778, 3)


def test_int8_needs_an_onnxruntime_that_computes_it_right(exported_teacher, monkeypatch, tmp_path):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(exported_teacher[1])
    for each in model.metadata_props:
        each.value = each.value.replace('"fp32"', '"int8"')
    onnx.save(model, tmp_path / "int8.onnx")
    assert open_session(tmp_path / "int8.onnx", "onnxruntime", "int8").setting.precision == "int8"
    monkeypatch.setitem(sys.modules, "onnxruntime", without_a_gpu("1.24.0"))
    with pytest.raises(ValueError, match=r"int8 would be wrong by millimetres: onnxruntime 1\.24\.0 is too old, 1\.32"):
        open_session(tmp_path / "int8.onnx", "onnxruntime", "int8")


@pytest.mark.parametrize("backend", ["torch", "folded"])
def test_flipped_arrays_are_taken(backend, student):
    session, images = open_session(student, backend), crops(2, 64)
    flipped = session(images[:, ::-1])
    assert farthest_mm(flipped, session(np.ascontiguousarray(images[:, ::-1]))) < 1e-3


def test_new_weights_are_exported_anew():
    model = build_student("timm:test_resnet", decoder_size="tiny", image_size=64).eval()
    before = open_session(model, "onnxruntime")(crops(1, 64))
    with torch.no_grad():
        for each in model.parameters():
            each.mul_(1.1)
    after = open_session(model, "onnxruntime")(crops(1, 64))
    assert farthest_mm(after, open_session(model, "torch")(crops(1, 64))) < 0.01 < farthest_mm(after, before)


def test_onnxruntimes_silent_fallback_to_the_cpu_is_an_error(exported_teacher, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", without_a_gpu("1.20.0"))
    with pytest.raises(ValueError, match="fell back from CUDAExecutionProvider to CPUExecutionProvider"):
        open_session(exported_teacher[1], "onnxruntime", device="cuda")


@pytest.mark.parametrize(("backend", "package"), [("onnxruntime", "onnxruntime"), ("openvino", "openvino")])
def test_a_missing_runtime_is_named(backend, package, exported_teacher, student, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    for model in (exported_teacher[1], student):
        with pytest.raises(ImportError, match=f"{package} is not installed: pip install"):
            open_session(model, backend)


def test_a_missing_compiler_is_named(tmp_path):
    code = """
        from fasthamer.runtime.sessions import open_session
        from fasthamer.students import build_student

        open_session(build_student("timm:test_resnet", decoder_size="tiny", image_size=32).eval(), "compile")
    """
    missing = {"CXX": str(tmp_path / "c++"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    finished = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env={**os.environ, **missing}, capture_output=True, text=True
    )
    last = finished.stderr.strip().splitlines()[-1]
    assert finished.returncode == 1
    assert last.startswith("ValueError: torch.compile cannot build this model here") and "C++ compiler" in last


def test_files_that_cannot_be_opened_are_explained(exported_teacher, tmp_path):
    onnx = pytest.importorskip("onnx")
    path = exported_teacher[1]
    with pytest.raises(FileNotFoundError, match="no such file"):
        open_session(tmp_path / "gone.onnx", "onnxruntime")
    with pytest.raises(ValueError, match=r"not an exported model .*open_model"):
        open_session(tmp_path / "student.safetensors", "onnxruntime")
    with pytest.raises(ValueError, match=r"a \.onnx file runs in onnxruntime or tensorrt or openvino, not in folded"):
        open_session(path, "folded")
    with pytest.raises(ValueError, match="exported in fp32, not in int8"):
        open_session(path, "onnxruntime", "int8")
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(path.read_bytes()[:100_000])
    for backend in ("onnxruntime", "openvino"):
        with pytest.raises(ValueError, match=r"cut\.onnx: .* cannot"):
            open_session(cut, backend)
    model = onnx.load(path)
    for entry in model.metadata_props:
        entry.value = entry.value.replace("fasthamer-export-1", "fasthamer-export-0")
    onnx.save(model, tmp_path / "old.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(ValueError, match=r"exported by another version \('fasthamer-export-0'"):
        open_session(tmp_path / "old.onnx", "onnxruntime")
    for backend in ("onnxruntime", "openvino"):
        with pytest.raises(ValueError, match=r"foreign.onnx: no model that fasthamer exported"):
            open_session(tmp_path / "foreign.onnx", backend)
