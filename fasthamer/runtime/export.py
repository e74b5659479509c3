"""Hand models as files: ONNX, OpenVINO's IR, torch.export's archive; each with its contract inside."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fasthamer.runtime.contract import INPUT, KEY, OUTPUTS, PARAMETERS, Contract
from fasthamer.runtime.deploy import Deployed, crop_size, inference_graph, named

BIG = 1_500_000_000  # bytes of weights above which ONNX keeps them in a file beside it (protobuf ends at 2 GiB)
OPSET = 20  # the first with GELU


class Exported(nn.Module):
    """The inference graph with a plain tuple as its result, in the order of `outputs`."""

    def __init__(self, graph: Deployed, outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.outputs = graph, outputs
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        results = named(self.model(image))
        return tuple(results[name] for name in self.outputs)


def contract_of(graph: Deployed, precision: str, with_mesh: bool = True) -> Contract:
    """What the export of a graph says about itself."""
    normalise, hand = graph.normalise, graph.hand
    std = 1 / (255 * normalise.scale.flatten())
    return Contract(
        image_size=crop_size(graph),
        view=tuple(graph.view),
        outputs=OUTPUTS if with_mesh else PARAMETERS,
        precision=precision,
        hand=hand.fingerprint,
        hand_name=hand.name,
        faces=hand.faces.tolist() if with_mesh else None,
        mean=tuple((-normalise.shift.flatten() * std).tolist()),
        std=tuple(std.tolist()),
    )


def export_onnx(model: nn.Module, path: str | Path, precision: str = "fp32", with_mesh: bool = True) -> Contract:
    """Writes an .onnx file with a dynamic batch; a model of over 1.5 GB gets a second file, `<name>.onnx.data`.

    Args:
        model: a student or teacher in eval mode, or its inference graph.
        path: ends in .onnx; replaced whole or not at all.
        precision: fp32, or fp16 for backbone and decoder.
        with_mesh: False leaves the hand model out: the outputs are then camera, rotations and betas.

    Raises:
        ValueError: an operator that ONNX does not have, or a model without an inference graph.
        ImportError: onnx or onnxscript are not installed.
    """
    _need("onnx", "onnxscript")
    graph = _prepared(model, precision)
    contract = contract_of(graph, precision, with_mesh)
    program = _in_onnx(graph, contract)
    program.model.metadata_props[KEY] = contract.to_json()
    program.model.producer_name = "fasthamer"
    big = sum(value.nbytes for value in graph.state_dict().values()) > BIG
    with written_whole(path) as folder:
        program.save(folder / Path(path).name, external_data=big)
    return contract


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
                Exported(graph, contract.outputs),
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


def _prepared(model: nn.Module, precision: str) -> Deployed:
    graph = inference_graph(model)
    if precision == "fp16":
        graph.to_precision(torch.float16)
    return graph


def _example(graph: Deployed, contract: Contract) -> Tensor:
    size = contract.image_size
    return torch.zeros(2, 3, size, size, dtype=torch.uint8, device=graph.normalise.scale.device)


def _last_line(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _need(*packages: str) -> None:
    import importlib.util

    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ImportError(f"{', '.join(missing)} is not installed: pip install 'fasthamer-kd[export]'")


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """A new folder beside `path`; what lies in it in the end is moved there, and nothing if the block fails."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        yield Path(folder)
        for file in sorted(Path(folder).iterdir(), key=lambda file: file.name == path.name):  # the named one last
            file.replace(path.parent / file.name)
