"""What a GPU would meet first, as far as a machine without one can see: devices of tensors, providers, lifetimes."""

from __future__ import annotations

import copy
import gc
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch

from fasthamer.config import load_config
from fasthamer.data.build import build_dataset
from fasthamer.runtime.onnx_sessions import _providers
from fasthamer.runtime.session import Setting
from fasthamer.runtime.sessions import open_session
from fasthamer.students import build_student
from fasthamer.training.accelerator import accelerator_for


def small_student():
    return build_student("timm:test_resnet", decoder_size="tiny", image_size=64).eval()


def test_a_session_keeps_the_weights_that_its_kernels_read():
    """Nothing else does: of a recorded CUDA graph's weights the kernels hold the addresses alone."""
    session = open_session(small_student(), "folded")
    weights = weakref.ref(session.model.backbone)
    session.run = None  # as a recording, which has no reference to the module
    gc.collect()
    assert weights() is not None


@pytest.mark.parametrize(
    ("backend", "precision", "device", "expected"),
    [
        ("onnxruntime", "fp32", "cpu", [("CPUExecutionProvider", {})]),
        ("onnxruntime", "fp16", "cuda", [("CUDAExecutionProvider", {"device_id": 0})]),
        ("onnxruntime", "fp32", "cuda:1", [("CUDAExecutionProvider", {"device_id": 1})]),
        (
            "tensorrt",
            "fp16",
            "cuda:1",
            [
                (
                    "TensorrtExecutionProvider",
                    {"device_id": 1, "trt_fp16_enable": True, "trt_int8_enable": False},
                ),
                ("CUDAExecutionProvider", {"device_id": 1}),
            ],
        ),
    ],
)
def test_onnxruntime_computes_on_the_device_that_is_named(backend, precision, device, expected):
    assert _providers(Setting(backend, precision, device, 1, 0)) == expected


@pytest.mark.parametrize("device", ["mps", "cuda:x"])
def test_onnxruntime_refuses_other_devices(device):
    with pytest.raises(ValueError, match=f"cpu or cuda here, not on '{device}'"):
        _providers(Setting("onnxruntime", "fp32", device, 1, 0))


def test_a_cpu_may_have_a_number():
    assert accelerator_for("cpu:0", "fp32", 1).device.type == "cpu"


def test_a_dataset_keeps_its_hand_when_the_model_takes_its_own_to_a_device(embedded, dexycb_root):
    hand = copy.deepcopy(embedded)
    settings = ["DATA.NAME", "dexycb", "DATA.ROOT", str(dexycb_root), "DATA.BOX_SHAPE", "hamer"]
    dataset = build_dataset(load_config(None, settings), hand, train=True)
    before = dataset[(0, 0)].vertices
    hand.to("meta")
    np.testing.assert_array_equal(dataset[(0, 0)].vertices, before)


DEVICES = '''
"""Runs models on a device that has no kernels: only shapes, types and devices are computed.

An operation that mixes devices fails, and so does a tensor that is made on the CPU and copied to the device.
"""
import copy

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import backend_registration as registration

from fasthamer.hand.mano import load_hand
from fasthamer.config import defaults
from fasthamer.runtime.deploy import inference_graph, named
from fasthamer.students import build_student
from fasthamer.students.tokenhand.tokenizer import Tokenizer, spec_of
from fasthamer.teachers.vit import TokenViT
from fasthamer.teachers.wilor import RefiningDecoder, WiLoR

registration._setup_privateuseone_for_python_backend("gpu")
mode = FakeTensorMode()


def fake(tensor):
    return FakeTensor(mode, tensor.detach().to("meta"), torch.device("gpu:0"))


def moved(module):
    for part in module.modules():
        for name, value in part._parameters.items():
            part._parameters[name] = None if value is None else nn.Parameter(fake(value), requires_grad=False)
        for name, value in part._buffers.items():
            part._buffers[name] = None if value is None else fake(value)
    return module


hand = load_hand("embedded")
tokenizer = Tokenizer(spec_of(defaults().TOKENIZER), hand)
small = "timm:test_resnet"
models = {
    "mano": build_student(small, "mano", "tiny", 64, hand=hand),
    "token": build_student(small, "token", image_size=64, hand=hand, tokenizer=tokenizer),
    "wilor": WiLoR(TokenViT(64, 1, 4), RefiningDecoder(64), hand),
}
for name, model in models.items():
    for precision in (torch.float32, torch.float16):
        graph = moved(copy.deepcopy(inference_graph(model.eval()).in_precision(precision)))
        image = fake(torch.zeros(2, 3, graph.image_size, graph.image_size, dtype=torch.uint8))
        with mode, torch.no_grad():
            found = named(graph(image))
        assert all(value.device.type == "gpu" for value in found.values()), name
        assert all(value.dtype == torch.float32 for value in found.values()), name
print("done")
'''


def test_inference_graphs_touch_no_tensor_of_another_device():
    """A copy from the CPU would also end the recording of a CUDA graph."""
    if not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this torch cannot register a device from Python")
    finished = subprocess.run([sys.executable, "-c", DEVICES], capture_output=True, text=True)
    assert finished.stdout == "done\n", finished.stderr[-3000:]
