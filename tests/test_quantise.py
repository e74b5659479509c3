"""int8: the backbone's arithmetic and the decoder's weights, described as such, and hardly worse."""

import numpy as np
import pytest

from fasthamer.runtime.calibration import synthetic_crops
from fasthamer.runtime.parity import cost, differences, run_session
from fasthamer.runtime.quantise import BLOCK, FEWEST, pack, quantise
from fasthamer.runtime.sessions import open_session

SIZE = 224  # of the embedded teacher's crops
ALLOWED_MM = 0.3


@pytest.fixture(scope="module")
def int8(exported_teacher, tmp_path_factory):
    """The embedded teacher in int8, calibrated on synthetic crops."""
    teacher, exact = exported_teacher
    path = tmp_path_factory.mktemp("int8") / "hand.onnx"
    quantise(exact, path, synthetic_crops(teacher.hand, 24, SIZE, 1_000_001, teacher.box_shape).images)
    return path


def test_the_backbones_arithmetic_and_the_decoders_weights_are_int8_and_nothing_else(int8):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(int8)
    made = {node.output[0]: node for node in model.graph.node}
    constants = {each.name for each in model.graph.initializer}
    kinds = {}
    for node in model.graph.node:
        if node.op_type in ("Conv", "MatMul", "Gemm"):
            weight = node.input[1]
            stored = weight not in constants and weight in made and made[weight].op_type == "DequantizeLinear"
            kinds.setdefault((node.op_type, stored), []).append(node.name)
    assert len(kinds["Conv", True]) > 40  # MediaPipe's landmark network
    assert len(kinds.get(("Conv", False), [])) <= 1  # the flat decoder's
    assert not any(stored for op, stored in kinds if op != "Conv")
    narrow = [node for node in model.graph.node if node.op_type == "MatMulNBits"]
    assert len(narrow) == 2  # the flat decoder's; the read-out and the mesh are not among them
    shapes = {each.name: list(each.dims) for each in model.graph.initializer}
    kept = [shapes[each] for node in model.graph.node for each in node.input if each in shapes]
    assert any(109 in shape for shape in kept) and [145, 778 * 3] in kept


def test_int8_is_smaller_and_costs_at_most_a_third_of_a_millimetre(int8, exported_teacher):
    teacher, exact = exported_teacher
    session = open_session(int8, "onnxruntime", "int8", threads=1)
    assert session.setting.precision == session.contract.precision == "int8"
    assert session.size_bytes < 0.6 * exact.stat().st_size
    truth = synthetic_crops(teacher.hand, 40, SIZE, 1_000_002, teacher.box_shape)
    original, rounded = run_session(open_session(teacher), truth.images), run_session(session, truth.images)
    found = cost(original, rounded, truth)
    assert found["pa_mpjpe_mm_cost"] < ALLOWED_MM and found["pa_mpvpe_mm_cost"] < ALLOWED_MM
    assert 0.01 < differences(original, rounded)["vertices_mm_mean"] < 10
    pytest.importorskip("openvino")
    other = cost(original, run_session(open_session(int8, "openvino", "int8"), truth.images), truth)
    assert other["pa_mpjpe_mm_cost"] < ALLOWED_MM and other["pa_mpvpe_mm_cost"] < ALLOWED_MM


def test_weights_are_rounded_by_blocks_of_a_row():
    weight = np.random.default_rng(0).normal(size=(3, BLOCK + 5)).astype(np.float32)
    weight[1, :BLOCK] = 0  # a block of zeros has no scale of its own
    weight[2, BLOCK:] *= 1000  # and a large one must not coarsen its neighbour
    packed, scales = pack(weight)
    assert packed.dtype == np.uint8 and packed.shape == (3, 2, BLOCK) and scales.shape == (3, 2)
    opened = ((packed.astype(np.float32) - 128) * scales[..., None]).reshape(3, -1)[:, : BLOCK + 5]
    step = np.repeat(scales, BLOCK, axis=1)[:, : BLOCK + 5]
    assert (np.abs(opened - weight) <= 0.501 * step).all()
    assert (opened[1, :BLOCK] == 0).all()
    assert np.abs(opened[2, :BLOCK] - weight[2, :BLOCK]).max() < 0.02


def test_what_cannot_be_calibrated_is_explained(int8, exported_teacher, tmp_path):
    crops = np.zeros((FEWEST, 3, SIZE, SIZE), np.uint8)
    with pytest.raises(ValueError, match="at least 8 crops to calibrate with, better 100; got 7"):
        quantise(exported_teacher[1], tmp_path / "x.onnx", crops[1:])
    with pytest.raises(ValueError, match="exported in int8: int8 is made of an fp32 export"):
        quantise(int8, tmp_path / "x.onnx", crops)
    for backend in ("onnxruntime", "openvino"):
        with pytest.raises(ValueError, match="exported in int8, not in fp32"):
            open_session(int8, backend, "fp32")
    assert not (tmp_path / "x.onnx").exists()
