"""Writes the detector's networks as ONNX files of half the size: weights stored in fp16, computation in fp32."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch

from fasthamer.detect.networks import LandmarkNetwork, PalmNetwork
from fasthamer.files.atomic import replacing

OPSET = 18
SMALL = 16  # numbers; smaller constants keep their type: limits of a clip, factors of a resize


def write_onnx(network: LandmarkNetwork | PalmNetwork, path: Path) -> None:
    """Writes a network with a dynamic batch; its outputs are called as the fields of its result.

    Args:
        network: in eval mode.
        path: an existing file is replaced.

    Raises:
        ImportError: onnx or onnxscript is not installed.
        OSError: the disk is full, or the folder cannot be written to.
    """
    import onnx

    example = torch.zeros(2, 3, network.image_size, network.image_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=list(network(example)._fields),
            dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
        )
    assert program is not None
    model = program.model_proto
    for part in (model.graph, *model.graph.node):
        del part.metadata_props[:]  # stack traces of the machine that exported
    del model.graph.value_info[:]
    _store_in_fp16(model)
    onnx.checker.check_model(model)
    with replacing(path) as draft:
        onnx.save(model, draft)


def _store_in_fp16(model) -> None:  # type: ignore[no-untyped-def]  # onnx has no types
    """Each large constant becomes fp16, followed by a cast that runtimes compute once, when they load the file."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for constant in model.graph.initializer:
        if constant.data_type != TensorProto.FLOAT or int(np.prod(constant.dims)) < SMALL:
            continue
        name, stored = constant.name, f"{constant.name}_fp16"
        constant.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(constant).astype(np.float16), stored))
        casts.append(helper.make_node("Cast", [stored], [name], name=f"{name}_cast", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
