"""MediaPipe's hand networks as fasthamer's detector files (development only; the results are in the package).

The networks (Apache-2.0) come in the Python package `mediapipe`, as files of TensorFlow Lite. Download its wheel, then:

    pip download --no-deps mediapipe==0.10.21
    pip install -e '.[assets]'
    python tools/assets/convert_mediapipe.py --wheel mediapipe-0.10.21-*.whl

TensorFlow can be left out where the four files were converted elsewhere (`python -m tf2onnx.convert --tflite X.tflite
--output X.onnx --opset 13`): give their folder with --onnx. Written are four .safetensors, the lite pair as .onnx
and the licence of the wheel.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fasthamer.detect.export import write_onnx
from fasthamer.detect.networks import (
    FILE_KIND,
    NETWORKS,
    PALM_ANCHORS,
    PALM_VALUES,
    load_landmark_network,
    load_palm_network,
)
from fasthamer.detect.shipped import FOLDER, KINDS
from fasthamer.files.atomic import write_bytes
from fasthamer.files.headed_tensors import write_headed
from fasthamer.files.weights import check_weights, shapes

SOURCES = {"palm": "palm_detection", "landmark": "hand_landmark"}  # MediaPipe's names, of folders and files
METADATA = {"source": "mediapipe 0.10.21", "licence": "Apache-2.0", "copyright": "The MediaPipe Authors"}
HEADS = {  # of the landmark network: the part of the name of its node
    "presence": "conv_handflag",
    "right": "conv_handedness",
    "landmarks": "Identity",
    "world": "Identity_3",
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, required=True, help="mediapipe-0.10.21-*.whl")
    parser.add_argument("--onnx", type=Path, help="folder of the four converted files; default: convert them here")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write; default: the package's")
    args = parser.parse_args(argv)
    with zipfile.ZipFile(args.wheel) as wheel, tempfile.TemporaryDirectory() as folder:
        for name, source in SOURCES.items():
            for kind in KINDS:
                onnx_file = (args.onnx or Path(folder)) / f"{source}_{kind}.onnx"
                if args.onnx is None:
                    convert(wheel.read(f"mediapipe/modules/{source}/{source}_{kind}.tflite"), onnx_file)
                description = {"network": name, "kind": kind}
                path = args.out / f"{name}_{kind}.safetensors"
                write_headed(path, FILE_KIND, description, METADATA, weights(onnx_file, name, kind), "fp16")
        licence = next(each for each in wheel.namelist() if each.endswith(".dist-info/LICENSE"))
        write_bytes(args.out / "LICENSE", wheel.read(licence))
    write_onnx(load_palm_network("lite", args.out), args.out / "palm_lite.onnx")
    write_onnx(load_landmark_network("lite", args.out), args.out / "landmark_lite.onnx")
    print(f"{args.out}: {', '.join(sorted(each.name for each in args.out.iterdir()))}")
    return 0


def convert(tflite: bytes, path: Path) -> None:
    """A TensorFlow Lite model to ONNX, by tf2onnx in a process of its own."""
    source = path.with_suffix(".tflite")
    source.write_bytes(tflite)
    command = ["-m", "tf2onnx.convert", "--tflite", str(source), "--output", str(path), "--opset", "13"]
    subprocess.run([sys.executable, *command], check=True)


def weights(path: Path, name: str, kind: str) -> dict[str, Tensor]:
    """The tensors of a converted file, named as those of our network: its modules are in the order of the graph.

    Raises:
        ValueError: another network's tensors.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    constants = {each.name: torch.from_numpy(numpy_helper.to_array(each).copy()) for each in graph.initializer}
    network = NETWORKS[name](kind)
    body = {key: part for key, part in network.named_modules() if not key.startswith("head_")}
    convs = [key for key, part in body.items() if isinstance(part, nn.Conv2d)]
    slopes = [key for key, part in body.items() if isinstance(part, nn.PReLU)]
    heads = palm_heads() if name == "palm" else {}
    found: dict[str, Tensor] = {}
    for node in graph.node:
        values = [constants[each] for each in node.input[1:] if each in constants]
        if node.op_type == "Conv":
            key = heads.get(len(values[0])) or convs.pop(0)
            found[f"{key}.weight"], found[f"{key}.bias"] = values
        elif node.op_type == "PRelu":
            found[f"{slopes.pop(0)}.weight"] = values[0].flatten()
        elif node.op_type == "Gemm":
            key = gemm_head(node)
            found[f"{key}.weight"], found[f"{key}.bias"] = values[0].T, values[1]
    check_weights(found, shapes(network.state_dict()), f"{path}: {kind} {name} network")
    return found


def palm_heads() -> dict[int, str]:
    """The palm detector's heads by their number of channels, which no other convolution has."""
    palms = {anchors * PALM_VALUES: f"head_{stride}.palms" for stride, anchors in PALM_ANCHORS.items()}
    return palms | {anchors: f"head_{stride}.scores" for stride, anchors in PALM_ANCHORS.items()}


def gemm_head(node: Any) -> str:
    (output,) = node.output
    return next(key for key, part in HEADS.items() if output == part or f"/{part}/" in output)


if __name__ == "__main__":
    sys.exit(main())
