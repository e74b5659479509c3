"""The detector's networks: the shipped files in torch and in ONNX Runtime, and files that are something else."""

import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fasthamer.detect.detector import MediaPipeDetector
from fasthamer.detect.export import write_onnx
from fasthamer.detect.inference import (
    LANDMARK_OUTPUTS,
    LANDMARK_SIZE,
    PALM_OUTPUTS,
    PALM_SIZE,
    OnnxNetwork,
    onnx_networks,
    torch_networks,
)
from fasthamer.detect.networks import (
    LandmarkOutput,
    PalmNetwork,
    PalmOutput,
    SameConv2d,
    load_landmark_network,
    load_palm_network,
)
from fasthamer.detect.shipped import FOLDER, KINDS
from fasthamer.runtime.onnxruntime_package import version_problem

IMAGE = np.zeros((90, 120, 3), np.uint8)


def noise(batch, size):
    return np.random.default_rng(0).random((batch, 3, size, size), np.float32)


@pytest.mark.parametrize("name", ["palm", "landmark"])
def test_the_shipped_onnx_files_compute_what_the_torch_networks_compute(name):
    size = PALM_SIZE if name == "palm" else LANDMARK_SIZE
    images = noise(3, size)
    in_onnx = getattr(onnx_networks(threads=1), name)(images)
    in_torch = getattr(torch_networks("lite", "cpu"), name)(images)
    for found, expected in zip(in_onnx, in_torch, strict=True):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * max(1, np.abs(expected).max()) * 10)


def test_the_outputs_have_the_names_and_sizes_that_the_arrays_are_read_by():
    assert PalmOutput._fields == PALM_OUTPUTS and LandmarkOutput._fields == LANDMARK_OUTPUTS
    assert PalmNetwork.image_size == PALM_SIZE
    assert load_landmark_network("lite").image_size == LANDMARK_SIZE


@pytest.mark.parametrize(("kind", "channels"), [("lite", 672), ("full", 1152)])
def test_the_landmark_network_is_a_backbone_for_any_multiple_of_32(kind, channels):
    network = load_landmark_network(kind)
    assert not network.training and network.channels == channels
    with torch.no_grad():
        assert network.features(torch.rand(2, 3, 224, 224)).shape == (2, channels, 7, 7)
        features = network.features(torch.rand(1, 3, 96, 64))
    assert features.shape == (1, channels, 3, 2) and features.min() >= 0 and 0 < features.max() <= 6


@pytest.mark.parametrize("kind", KINDS)
def test_the_palm_network_gives_a_palm_for_each_anchor(kind):
    with torch.no_grad():
        found = load_palm_network(kind)(torch.rand(2, 3, 192, 192))
    assert found.palms.shape == (2, 2016, 18) and found.scores.shape == (2, 2016)


@pytest.mark.parametrize("kernel", [3, 5])
def test_a_convolution_with_stride_two_is_padded_as_in_tensorflow(kernel):
    # TensorFlow's "same": ceil(size / stride) outputs, of (outputs - 1) * stride + kernel - size = kernel - 2 pixels
    # of padding the smaller half before the image and the larger one after it.
    conv, image = SameConv2d(2, 3, kernel, 2), torch.randn(1, 2, 8, 6)
    before = (kernel - 2) // 2
    after = kernel - 2 - before
    padded = torch.zeros(1, 2, 8 + before + after, 6 + before + after)
    padded[:, :, before : before + 8, before : before + 6] = image
    torch.testing.assert_close(conv(image), F.conv2d(padded, conv.weight, conv.bias, 2))
    assert conv(image).shape == (1, 3, 4, 3)


class SmallNetwork(nn.Module):
    """One convolution, of which an export has everything that matters."""

    image_size = 16

    def __init__(self):
        super().__init__()
        self.conv = SameConv2d(3, 40, 5, 2)

    def forward(self, image):
        x = F.relu6(self.conv(image))
        return PalmOutput(x.flatten(2), x.mean((2, 3)))


def test_an_exported_network_stores_16_bits_computes_in_32_and_names_no_file_of_this_machine(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    network, path = SmallNetwork().eval(), tmp_path / "small.onnx"
    network.load_state_dict({name: value.half().float() for name, value in network.state_dict().items()})
    write_onnx(network, path)
    stored = {value.data_type for value in onnx.load(path).graph.initializer if len(value.raw_data) > 64}
    assert stored == {onnx.TensorProto.FLOAT16}
    images = noise(3, 16)
    with torch.no_grad():
        expected = network(torch.from_numpy(images))
    for found, each in zip(OnnxNetwork(path, 16, PALM_OUTPUTS, 1)(images), expected, strict=True):
        np.testing.assert_allclose(found, each.numpy(), atol=1e-5)
    for written in (path, FOLDER / "palm_lite.onnx", FOLDER / "landmark_lite.onnx"):
        assert b".py" not in written.read_bytes()
    for name, parameters in (("palm", 963_064), ("landmark", 1_011_712)):
        assert (FOLDER / f"{name}_lite.onnx").stat().st_size < 2.1 * parameters


def test_the_licence_and_the_source_are_beside_the_weights():
    assert "Apache License" in (FOLDER / "LICENSE").read_text(encoding="utf-8")
    assert "MediaPipe" in (FOLDER / "ATTRIBUTION.md").read_text(encoding="utf-8")


def test_the_shipped_pair_needs_no_torch():
    code = """
        import sys
        sys.modules["torch"] = None
        import numpy as np
        from fasthamer.detect.detector import MediaPipeDetector
        print(len(MediaPipeDetector(threads=1)(np.zeros((90, 120, 3), np.uint8)).boxes))
    """
    finished = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert (finished.returncode, finished.stdout.strip()) == (0, "0"), finished.stderr


# ------------------------------------------------------------------------------------------------- files of other kinds


@pytest.fixture
def folder(tmp_path):
    """A copy of the shipped lite pair, to damage."""
    for name in ("palm_lite.onnx", "landmark_lite.onnx", "palm_lite.safetensors", "landmark_lite.safetensors"):
        shutil.copy(FOLDER / name, tmp_path / name)
    return tmp_path


def test_another_networks_file_is_named(folder):
    shutil.copy(folder / "landmark_lite.onnx", folder / "palm_lite.onnx")
    with pytest.raises(
        ValueError, match=r"palm_lite\.onnx: not this network.*gives \['landmarks'.*expected image.*192"
    ):
        MediaPipeDetector(onnx_networks(1, folder))(IMAGE)
    shutil.copy(folder / "landmark_lite.safetensors", folder / "palm_lite.safetensors")
    with pytest.raises(ValueError, match=r"palm_lite\.safetensors: holds .*landmark.*, not the lite palm network"):
        load_palm_network("lite", folder)


@pytest.mark.parametrize("content", [b"", b"no network", None])
def test_a_damaged_file_is_named(folder, content):
    path = folder / "palm_lite.onnx"
    path.write_bytes(path.read_bytes()[:100_000] if content is None else content)
    with pytest.raises(ValueError, match=r"palm_lite\.onnx: (onnxruntime cannot open it, it may be damaged|not this)"):
        MediaPipeDetector(onnx_networks(1, folder))(IMAGE)


def test_a_missing_file_is_named(folder):
    (folder / "palm_lite.onnx").unlink()
    with pytest.raises(FileNotFoundError, match=r"palm_lite\.onnx: the detector's network is missing"):
        onnx_networks(1, folder)
    with pytest.raises(FileNotFoundError, match=r"palm_full\.safetensors: no such file"):
        load_palm_network("full", folder)


def test_another_kind_is_refused():
    for make in (load_palm_network, load_landmark_network, torch_networks):
        with pytest.raises(ValueError, match="no detector of kind 'heavy': choose lite or full"):
            make("heavy")


@pytest.mark.parametrize("version", ["1.20", "1.20.0", "1.20.1", "1.27.0.dev20260101", "2.0"])
def test_this_onnxruntime_can_be_used(version):
    assert version_problem(version) is None


@pytest.mark.parametrize("version", ["1.19.2", "1.2.0", "0.30", "nightly"])
def test_an_onnxruntime_that_is_too_old_is_named_with_the_remedy(version):
    assert f"{version} is too old, 1.20 or newer is needed: pip install 'onnxruntime>=1.20'" in version_problem(version)


def test_a_missing_onnxruntime_is_named_when_it_is_needed(monkeypatch):
    detector = MediaPipeDetector()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match="onnxruntime is not installed: pip install"):
        detector(IMAGE)
