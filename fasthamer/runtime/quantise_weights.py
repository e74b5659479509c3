"""The decoder's weights in 8 bits: for one image it does little else than read them.

ONNX Runtime's operator MatMulNBits keeps a scale for each block of a row, and so does its kernel with the input, which
loses far less than one scale for a whole tensor. OpenVINO reads it too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 128  # weights of a row that share a scale
LARGE = 1 << 16  # weights of a product that is worth it
_EIGHT_BIT_KERNEL = 4  # MatMulNBits' accuracy_level; the others would unpack the weights in every pass


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
    """x W^T + b, as `nn.Linear` is exported, with many weights of its own."""
    if node.op_type != "Gemm" or node.input[1] not in constants:
        return False
    options = {each.name: each.i if each.name.startswith("trans") else each.f for each in node.attribute}
    plain = {"transA": 0, "transB": 0, "alpha": 1.0, "beta": 1.0} | options
    return (
        plain == {"transA": 0, "transB": 1, "alpha": 1.0, "beta": 1.0}
        and np.prod(constants[node.input[1]].dims) >= LARGE
    )
