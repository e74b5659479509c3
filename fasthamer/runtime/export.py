"""Writes hand models as ONNX, OpenVINO's IR or torch.export's archive, each with its contract inside."""

from __future__ import annotations

import copy
import importlib.util
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fasthamer.files.atomic import replacing
from fasthamer.hand.skinning import Skinning
from fasthamer.runtime.contract import INPUT, KEY, PARAMETERS, Contract
from fasthamer.runtime.deploy import Deployed, crop_size, inference_graph, named
from fasthamer.runtime.pt2_archive import save_pt2
from fasthamer.runtime.quantise import SCOPES, quantise

BIG = 1_500_000_000  # bytes of weights above which ONNX keeps them in a file beside it (protobuf ends at 2 GiB)
OPSET = 20  # the first with GELU
HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}
FORMATS = {  # by the file's suffix: packages that writing takes, precisions
    ".onnx": (("onnx", "onnxscript", "onnxruntime"), ("fp32", "fp16", "int8")),
    ".xml": (("onnx", "onnxscript", "onnxruntime", "openvino"), ("fp32", "fp16", "int8")),
    ".pt2": ((), ("fp32", "fp16", "bf16")),
}


class ExportGraph(nn.Module):
    """The inference graph with a plain tuple as its result, in the order of `outputs`.

    It has only the modules that these need: an export without mesh has no hand model.
    """

    def __init__(self, graph: Deployed, outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.with_mesh = "vertices" in outputs
        self.model = graph.parts(("normalise", "backbone", "head", "mesh")[: 4 if self.with_mesh else 3])
        self.outputs = outputs
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        if self.with_mesh:
            results = named(self.model(image))
        else:
            (mano, camera), _ = self.model.read(image)
            results = {"camera": camera, **mano._asdict()}
        return tuple(results[name] for name in self.outputs)


class TooLarge(ValueError):
    """A model too large for a precision; smaller ones are not."""


def check_int8(graph: Deployed) -> None:
    """Checks the size before anything is computed.

    Raises:
        TooLarge: the graph cannot be quantised.
    """
    if (size := _size(graph)) > BIG:
        raise TooLarge(f"int8 is made of one .onnx file of at most 2 GB; this model has {size / 1e9:.1f} GB")


def contract_of(graph: Deployed, precision: str, with_mesh: bool = True) -> Contract:
    """The contract of a graph's export.

    Raises:
        ValueError: an export without mesh of a model that gives no MANO parameters, or not without a mesh.
    """
    if not (with_mesh or set(PARAMETERS) <= set(graph.outputs)):
        raise ValueError(
            "--without-mano exports MANO parameters, and a token decoder has none: export its mesh, and fit parameters "
            "to that where they are needed (fasthamer.hand.fit.fit_mano)"
        )
    if not with_mesh and any(isinstance(part, Skinning) for part in graph.head.modules()):
        raise ValueError(
            "--without-mano leaves the hand model out, but this network needs it to predict its parameters (WiLoR "
            "refines them at the vertices of a first mesh): export it with its mesh"
        )
    normalise, hand = graph.normalise, graph.hand
    std = 1 / (255 * normalise.scale.flatten())
    return Contract(
        image_size=crop_size(graph),
        view=(*graph.view,),
        outputs=graph.outputs if with_mesh else PARAMETERS,
        precision=precision,
        hand=hand.fingerprint,
        hand_name=hand.name,
        faces=hand.faces.tolist() if with_mesh else None,
        mean=tuple((-normalise.shift.flatten() * std).tolist()),
        std=tuple(std.tolist()),
        box_shape=graph.box_shape,
        weights_licence=graph.licence,
    )


def export(
    model: nn.Module,
    path: str | Path,
    precision: str = "fp32",
    with_mesh: bool = True,
    crops: NDArray[np.uint8] | None = None,
) -> Contract:
    """Writes a model as a file with a dynamic batch; the format is that of the file's name.

    Args:
        model: a student or teacher in eval mode, or its inference graph.
        path: ends in .onnx, .xml (OpenVINO; a .bin comes beside it) or .pt2 (torch.export); replaced whole or not at
            all. ONNX puts more than 1.5 GB of weights in a second file, `<name>.onnx.data`.
        precision: fp32; fp16 or bf16 (.pt2 alone) for backbone and decoder; int8 (not .pt2), see `quantise`.
        with_mesh: False leaves the hand model out: the outputs are then camera, rotations and betas.
        crops: (N, 3, S, S) to calibrate int8 with, see `quantise`.

    Raises:
        ValueError: an operator that the format does not have, a model without an inference graph, a precision
            that cannot be written, or no parameters to export without mesh.
        ImportError: a package is not installed.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: an export is called {', '.join('*' + suffix for suffix in FORMATS)}")
    packages, precisions = FORMATS[path.suffix]
    if precision not in precisions:
        raise ValueError(f"a {path.suffix} file is written in {', '.join(precisions)}, not in {precision}")
    _need(*packages)
    if precision == "int8" and crops is None:
        raise ValueError("int8 is calibrated: give crops like those the model will see")
    graph = inference_graph(model)
    if graph.normalise.scale.device.type != "cpu":  # files are the same wherever the model is
        graph = copy.deepcopy(graph).cpu()
    if precision in HALVES and path.suffix != ".xml":  # OpenVINO rounds when it saves
        graph = graph.in_precision(HALVES[precision])
    if precision == "int8":
        check_int8(graph)
    contract = contract_of(graph, precision, with_mesh)
    with replacing(path) as draft:
        if path.suffix == ".pt2":
            save_pt2(ExportGraph(graph, contract.outputs), _example(graph, contract), contract, draft)
        elif path.suffix == ".onnx":
            _write_onnx(graph, contract, draft, crops)
        else:
            _write_openvino(graph, contract, draft, crops)
    return contract


def _write_onnx(graph: Deployed, contract: Contract, path: Path, crops: NDArray[np.uint8] | None) -> None:
    if contract.precision == "int8":
        assert crops is not None
        with tempfile.TemporaryDirectory(dir=path.parent.parent, prefix=f".{path.name}.") as folder:
            exact = Path(folder) / path.name
            _write_onnx(graph, contract._replace(precision="fp32"), exact, None)
            quantise(exact, path, crops)
        return
    program = _in_onnx(graph, contract)
    for node in program.model.graph:
        for key in set(node.metadata_props) - {SCOPES}:  # stack traces of the machine that exported
            del node.metadata_props[key]
    program.model.metadata_props[KEY] = contract.to_json()
    program.save(path, external_data=_size(graph) > BIG)


def _write_openvino(graph: Deployed, contract: Contract, path: Path, crops: NDArray[np.uint8] | None) -> None:
    import openvino

    with tempfile.TemporaryDirectory(dir=path.parent.parent, prefix=f".{path.name}.") as folder:
        between = Path(folder) / "model.onnx"
        stored = "int8" if contract.precision == "int8" else "fp32"
        _write_onnx(graph, contract._replace(precision=stored), between, crops)
        model = openvino.Core().read_model(between)
        model.set_rt_info(contract.to_json(), [KEY])
        openvino.save_model(model, path, compress_to_fp16=contract.precision == "fp16")


def _in_onnx(graph: Deployed, contract: Contract) -> Any:
    """torch.onnx's program of the graph.

    Raises:
        ValueError: an operator that ONNX does not have.
    """
    from torch.onnx import OnnxExporterError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.onnx.export(
                ExportGraph(graph, contract.outputs),
                (_example(graph, contract),),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(contract.outputs),
                dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
            )
    except OnnxExporterError as error:
        raise ValueError(f"this model cannot be written as ONNX: {_last_line(error)}") from error


def _size(graph: Deployed) -> int:
    return sum(value.nbytes for value in graph.state_dict().values())


def _example(graph: Deployed, contract: Contract) -> Tensor:
    size = contract.image_size
    return torch.zeros(2, 3, size, size, dtype=torch.uint8)


def _last_line(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _need(*packages: str) -> None:
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ImportError(f"{', '.join(missing)} is not installed: pip install 'fasthamer-kd[export]'")
