"""Temporary ONNX files for sessions of modules: each model is exported once per precision, while it is the same."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import weakref
from itertools import chain
from pathlib import Path

import torch
from torch import nn

from fasthamer.runtime.calibration import synthetic_crops
from fasthamer.runtime.deploy import crop_size, inference_graph
from fasthamer.runtime.export import check_int8, export
from fasthamer.runtime.quantise import quantise

CALIBRATION = 32  # synthetic crops; tools/export.py uses more
_files: weakref.WeakKeyDictionary[nn.Module, dict[tuple[str, str], Path]] = weakref.WeakKeyDictionary()


def temporary_onnx_file(model: nn.Module, precision: str) -> Path:
    """A temporary .onnx file of the model with its present weights; deleted with the model."""
    made = _files.setdefault(model, {})
    key = precision, _content(model)
    if key not in made:
        folder = tempfile.mkdtemp(prefix="fasthamer-")
        weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)
        path = Path(folder) / "model.onnx"
        graph = inference_graph(model)
        if precision == "int8":
            check_int8(graph)
            crops = synthetic_crops(graph.hand, CALIBRATION, crop_size(graph), 1, graph.box_shape).images
            quantise(temporary_onnx_file(model, "fp32"), path, crops)
        else:
            export(graph, path, precision)
        made[key] = path
    return made[key]


def _content(model: nn.Module) -> str:
    """The weights' digest. Their version counters would not do: changes through `.data` do not count."""
    digest = hashlib.sha256()
    for value in chain(model.parameters(), model.buffers()):
        digest.update(value.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
