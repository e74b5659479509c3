"""Post-training int8 of an exported ONNX model: the backbone's arithmetic and the decoder's weights.

The backbone, which has nearly all of the arithmetic, is quantised statically: its activations have fixed scales. The
decoder reads a weight for each of its few operations, so its large products get narrow weights
(`fasthamer.runtime.quantise_weights`). Read-out and mesh stay in fp32: a step of 1/256 of a rotation's range would be
millimetres at the fingertips.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthamer.runtime.contract import INPUT, KEY, Contract
from fasthamer.runtime.quantise_weights import narrow_weights

SCOPES = "pkg.torch.onnx.name_scopes"  # entry of a node that says which module it comes from
BACKBONE, DECODER = "model.backbone", "model.head.summary"  # scopes of their nodes in the graph
PRODUCTS = ("Conv", "MatMul", "Gemm")  # whose inputs and weights become int8
BETWEEN = ("Add", "MaxPool", "AveragePool", "GlobalAveragePool", "Relu", "Clip", "Concat")  # so that it stays int8
FEWEST = 8  # crops; ranges of fewer are an accident


def quantise(source: Path, target: Path, crops: NDArray[np.uint8]) -> Contract:
    """An int8 copy of an .onnx file, quantised by channel; scales come from running the crops through it.

    Args:
        source: an fp32 export.
        target: ends in .onnx.
        crops: (N, 3, S, S) like those the model will see.

    Raises:
        ValueError: too few crops, or a file that is not an fp32 export.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

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
            nodes_to_exclude=[node.name for node in model.graph.node if not _of(node, BACKBONE)],
        )
    made = onnx.load(target)
    narrow_weights(made, lambda node: _of(node, DECODER))
    onnx.helper.set_model_props(made, {KEY: contract.to_json()})
    onnx.save(made, target)
    return contract


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's advice to fold batch norms first: they are folded."""
    log = logging.getLogger()
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _of(node: Any, scope: str) -> bool:
    return any(entry.key == SCOPES and scope in entry.value for entry in node.metadata_props)


class _Crops:
    """What ONNX Runtime's calibration draws its inputs from, one crop at a time."""

    def __init__(self, crops: NDArray[np.uint8]) -> None:
        self._each: Iterator[NDArray[np.uint8]] = iter(crops)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        crop = next(self._each, None)
        return None if crop is None else {INPUT: crop[None]}
