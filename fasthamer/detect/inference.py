"""Runs the detector's networks on arrays: the shipped lite pair in ONNX Runtime, without torch; any pair in torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthamer.detect.shipped import FOLDER, check_kind
from fasthamer.one_line import one_line
from fasthamer.runtime.onnxruntime_package import import_onnxruntime

Arrays = tuple[NDArray[np.float32], ...]
Network = Callable[[NDArray[np.float32]], Arrays]  # (B, 3, S, S) RGB from 0 to 1 -> the fields of the torch module's
PALM_OUTPUTS = ("palms", "scores")
LANDMARK_OUTPUTS = ("landmarks", "presence", "right", "world")
PALM_SIZE, LANDMARK_SIZE = 192, 224  # pixels


class Networks(NamedTuple):
    """The two networks of a detector."""

    palm: Network
    landmark: Network


class OnnxNetwork:
    """A network's .onnx file; opened when it is first called.

    Args:
        path: the file.
        size: S, pixels of its input.
        outputs: their names, in the order in which they are returned.
        threads: of the CPU; 0 = the runtime's choice.

    Raises:
        FileNotFoundError: no such file.
    """

    def __init__(self, path: Path, size: int, outputs: tuple[str, ...], threads: int = 0) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: the detector's network is missing: install fasthamer again")
        self.path, self.size, self.outputs, self.threads = path, size, outputs, threads

    @cached_property
    def _session(self) -> Any:
        runtime = import_onnxruntime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # networks take turns on the cores
        options.log_severity_level = 3  # errors
        try:
            session = runtime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's own exceptions have no common base
            why = one_line(error)
            raise ValueError(f"{self.path}: onnxruntime cannot open it, it may be damaged ({why})") from error
        inputs = [(each.name, each.shape[1:]) for each in session.get_inputs()]
        outputs = {each.name for each in session.get_outputs()}
        if inputs != [("image", [3, self.size, self.size])] or not outputs >= set(self.outputs):
            raise ValueError(
                f"{self.path}: not this network of the detector: it takes {inputs} and gives {sorted(outputs)}; "
                f"expected image (B, 3, {self.size}, {self.size}) and {', '.join(self.outputs)}"
            )
        return session

    def __call__(self, images: NDArray[np.float32]) -> Arrays:
        return tuple(self._session.run(list(self.outputs), {"image": images}))


def onnx_networks(threads: int = 0, folder: Path = FOLDER) -> Networks:
    """The lite pair in ONNX Runtime, on the CPU.

    Raises:
        FileNotFoundError, and when they are first called ImportError, ValueError: onnxruntime is missing or too old; a
            file is damaged or another network's.
    """
    return Networks(
        OnnxNetwork(folder / "palm_lite.onnx", PALM_SIZE, PALM_OUTPUTS, threads),
        OnnxNetwork(folder / "landmark_lite.onnx", LANDMARK_SIZE, LANDMARK_OUTPUTS, threads),
    )


def torch_networks(kind: str, device: str = "auto") -> Networks:
    """A pair in torch.

    Args:
        kind: lite or full.
        device: auto = cuda, then mps, then cpu.

    Raises:
        ValueError, FileNotFoundError: no such kind or device; no usable file.
    """
    import torch

    from fasthamer.detect.networks import load_landmark_network, load_palm_network
    from fasthamer.device import pick_device

    check_kind(kind)
    chosen = pick_device(device)

    def network(module: torch.nn.Module) -> Network:
        module = module.to(chosen)

        def run(images: NDArray[np.float32]) -> Arrays:
            with torch.no_grad():
                return tuple(value.cpu().numpy() for value in module(torch.from_numpy(images).to(chosen)))

        return run

    return Networks(network(load_palm_network(kind)), network(load_landmark_network(kind)))
