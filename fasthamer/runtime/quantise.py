"""Post-training int8 of an exported ONNX model: the backbone's arithmetic and the decoder's weights.

The backbone, which has nearly all of the arithmetic, is quantised statically: its activations have fixed scales. The
decoder reads each weight for few operations, so its large products keep 8-bit weights only, with ONNX Runtime's
operator MatMulNBits: it has a scale for each block of a row and quantises its input by the same blocks, which loses
far less than one scale for a whole tensor; OpenVINO reads it too. Read-out and mesh stay in fp32: a step of 1/256 of a
rotation's range would be millimetres at the fingertips.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthamer.runtime.contract import INPUT, KEY, Contract
from fasthamer.runtime.onnxruntime_package import import_onnxruntime, int8_problem

SCOPES = "pkg.torch.onnx.name_scopes"  # metadata entry of a node: the modules it was traced in
BACKBONE, DECODER = "model.backbone", "model.head.summary"  # scopes of their nodes in the graph
PRODUCTS = ("Conv", "MatMul", "Gemm")  # whose inputs and weights become int8
# quantised too, so that activations stay int8 between the products
BETWEEN = ("Add", "MaxPool", "AveragePool", "GlobalAveragePool", "Relu", "Clip", "Concat")
FEWEST = 8  # calibration crops; activation ranges of fewer are unreliable
BLOCK = 128  # weights of a row that share a scale
LARGE = 1 << 16  # fewest weights of a product that is worth narrowing
_EIGHT_BIT_KERNEL = 4  # MatMulNBits' accuracy_level; the others would unpack the weights in every pass


def quantise(source: Path, target: Path, crops: NDArray[np.uint8]) -> Contract:
    """An int8 copy of an .onnx file, quantised by channel; scales come from running the crops through it.

    Args:
        source: an fp32 export.
        target: ends in .onnx.
        crops: (N, 3, S, S) like those the model will see.

    Raises:
        ValueError: too few crops, a file that is not an fp32 export, or an onnxruntime too old for int8.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    if problem := int8_problem(import_onnxruntime().__version__):
        raise ValueError(problem)
    if len(crops) < FEWEST:
        raise ValueError(f"int8 needs at least {FEWEST} crops to calibrate with, better 100; got {len(crops)}")
    model = onnx.load(source)
    contract = Contract.from_json(next((p.value for p in model.metadata_props if p.key == KEY), None), str(source))
    if contract.precision != "fp32":
        raise ValueError(f"{source} was exported in {contract.precision}: int8 is made of an fp32 export")
    contract = contract._replace(precision="int8")
    with _quiet():
        quantize_static(
            str(source),
            str(target),
            _Crops(crops),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=[*PRODUCTS, *BETWEEN],
            nodes_to_exclude=[node.name for node in model.graph.node if not _is_in(node, BACKBONE)],
        )
    made = onnx.load(target)
    narrow_weights(made, lambda node: _is_in(node, DECODER))
    onnx.helper.set_model_props(made, {KEY: contract.to_json()})
    onnx.save(made, target)
    return contract


def narrow_weights(model: Any, chosen: Callable[[Any], bool]) -> int:
    """Replaces the large products with constant weights among the chosen nodes, in place; gives their number.

    Args:
        model: an onnx.ModelProto.
        chosen: whether a node may be replaced.
    """
    from onnx import helper, numpy_helper

    constants = {each.name: each for each in model.graph.initializer}
    nodes, replaced = [], set()
    for node in model.graph.node:
        if not (chosen(node) and _is_linear(node, constants)):
            nodes.append(node)
            continue
        name = node.input[1]
        packed, scales = pack(numpy_helper.to_array(constants[name]))
        model.graph.initializer.extend(
            numpy_helper.from_array(array, f"{name}.{kind}") for array, kind in ((packed, "int8"), (scales, "scale"))
        )
        inputs = [node.input[0], f"{name}.int8", f"{name}.scale"]
        if len(node.input) > 2:
            inputs += ["", "", node.input[2]]  # neither zero points nor an order of columns, but a bias
        rows, columns = constants[name].dims
        options = {"N": rows, "K": columns, "bits": 8, "block_size": BLOCK, "accuracy_level": _EIGHT_BIT_KERNEL}
        kind = "com.microsoft"
        made = helper.make_node("MatMulNBits", inputs, node.output, name=node.name, domain=kind, **options)
        nodes.append(made)
        replaced.add(name)
    kept = [each for each in model.graph.initializer if each.name not in replaced]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(kept)
    if replaced and not any(each.domain == "com.microsoft" for each in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return len(replaced)


def pack(weight: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """(N, K) to (N, blocks, BLOCK) with 128 for zero, and scales (N, blocks): weight = (packed - 128) * scale."""
    rows, columns = weight.shape
    blocks = -(-columns // BLOCK)
    padded = np.zeros((rows, blocks * BLOCK), np.float32)
    padded[:, :columns] = weight
    padded = padded.reshape(rows, blocks, BLOCK)
    scales = np.abs(padded).max(-1) / 127
    scales[scales == 0] = 1
    return (np.round(padded / scales[..., None]) + 128).astype(np.uint8), scales.astype(np.float32)


def _is_linear(node: Any, constants: dict[str, Any]) -> bool:
    """Whether the node is x W^T + b, as `nn.Linear` is exported, with at least `LARGE` constant weights."""
    if node.op_type != "Gemm" or node.input[1] not in constants:
        return False
    options = {each.name: each.i if each.name.startswith("trans") else each.f for each in node.attribute}
    plain = {"transA": 0, "transB": 0, "alpha": 1.0, "beta": 1.0} | options
    return (
        plain == {"transA": 0, "transB": 1, "alpha": 1.0, "beta": 1.0}
        and np.prod(constants[node.input[1]].dims) >= LARGE
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the library's advice to fold batch norms first: they are folded already."""
    log = logging.getLogger()
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _is_in(node: Any, scope: str) -> bool:
    return any(entry.key == SCOPES and scope in entry.value for entry in node.metadata_props)


class _Crops:
    """ONNX Runtime's calibration reader: one crop at a time."""

    def __init__(self, crops: NDArray[np.uint8]) -> None:
        self._each: Iterator[NDArray[np.uint8]] = iter(crops)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        crop = next(self._each, None)
        return None if crop is None else {INPUT: crop[None]}
