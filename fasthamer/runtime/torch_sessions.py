"""Sessions in torch: the training graph, and the inference graph in eager mode, compiled, or as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._dynamo.exc import BackendCompilerFailed

from fasthamer.device import pick_device
from fasthamer.runtime.deploy import Deployed, crop_size, inference_graph, named
from fasthamer.runtime.pt2_archive import load_pt2
from fasthamer.runtime.session import Session, Setting
from fasthamer.types import HandOutput

COMPILER = "inductor"  # torch.compile's backend
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
Run = Callable[[Tensor], dict[str, Tensor]]


class TorchSession(Session):
    """Calls a function of a tensor on the session's device.

    Args:
        run: the function.
        model: the module that it runs; kept, as the kernels of a CUDA graph hold only the addresses of its weights.
    """

    def __init__(
        self, run: Run, model: nn.Module, setting: Setting, size_bytes: int, image_size: int | None = None
    ) -> None:
        self.run, self.model = run, model
        self.setting, self.size_bytes, self.image_size = setting, size_bytes, image_size
        self.device = torch.device(setting.device)

    @torch.no_grad()
    def _run(self, images: Any) -> dict[str, Any]:
        _use_threads(self.setting)
        if not isinstance(images, np.ndarray):
            return self.run(images.to(self.device))
        if min(images.strides) < 0:  # a flipped view, which torch does not take
            images = images.copy()
        return {name: value.cpu().numpy() for name, value in self.run(torch.from_numpy(images).to(self.device)).items()}


def open_torch(model: nn.Module | Path, setting: Setting) -> Session:
    """See `fasthamer.runtime.sessions.open_session`."""
    device = pick_device(setting.device)
    setting = setting._replace(device=str(device))
    if isinstance(model, Path):
        return _archive(model, setting)
    setting = setting._replace(precision=setting.precision.replace("auto", "fp32"))
    if setting.precision == "fp16" and device.type == "cpu":
        raise ValueError(f"{setting.backend} in fp16 needs a GPU; on a CPU choose fp32 or bf16")
    if setting.backend == "cudagraphs" and device.type != "cuda":
        raise ValueError(f"cudagraphs needs a CUDA device, not {setting.device!r}")
    _use_threads(setting)  # first: compiled code is for one number of threads
    model = model.eval().to(device)  # all of it: its inference graph shares parts with it
    if setting.backend == "torch":
        return TorchSession(_training_graph(model, setting, device), model, setting, _size(model))
    graph = inference_graph(model).in_precision(DTYPES[setting.precision])
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():  # of the streams of a recording
        run = {"folded": _eager, "compile": _compiled, "cudagraphs": _recorded}[setting.backend](graph, setting)
    size = crop_size(graph) if setting.backend == "cudagraphs" else None
    return TorchSession(run, graph, setting, _size(graph), size)


def _use_threads(setting: Setting) -> None:
    if setting.threads and torch.get_num_threads() != setting.threads:
        torch.set_num_threads(setting.threads)


def _size(model: nn.Module) -> int:
    return sum(value.nbytes for value in model.state_dict().values())


def _training_graph(model: nn.Module, setting: Setting, device: torch.device) -> Run:
    half = setting.precision != "fp32"

    def run(images: Tensor) -> dict[str, Tensor]:
        with torch.autocast(device.type, dtype=DTYPES[setting.precision]) if half else nullcontext():
            return named(model(images))

    return run


def _eager(graph: Deployed, setting: Setting) -> Run:
    return lambda images: named(graph(images))


def _compiled(graph: Deployed, setting: Setting) -> Run:
    """Compiles at once for the setting's batch; another batch, or crops of another size, at its first call."""
    made: dict[torch.Size, Callable[[Tensor], HandOutput]] = {}

    def run(images: Tensor) -> dict[str, Tensor]:
        # The example's strides, as others would be compiled again; `contiguous` leaves those of a crop[None].
        images = images.clone(memory_format=torch.contiguous_format)
        if images.shape not in made:
            made[images.shape] = _compiled_for(images, graph, setting)
        return named(made[images.shape](images))

    with torch.no_grad():
        run(_example(graph, setting))
    return run


def _compiled_for(example: Tensor, graph: Deployed, setting: Setting) -> Callable[[Tensor], HandOutput]:
    """The graph, compiled for the shape of an example."""
    options: dict[str, Any] | None = {"freezing": True} if setting.device == "cpu" else None  # packs weights

    def run(images: Tensor) -> HandOutput:
        return graph(images)

    # Compilations are kept by code object, and torch makes no more than 8 for one: each shape has an object of its own.
    # Without dynamic=False a second shape would be taken for a variable; resizing by one takes minutes to compile.
    own = FunctionType(run.__code__.replace(), run.__globals__, closure=run.__closure__)
    compiled = torch.compile(own, backend=COMPILER, options=options, dynamic=False)
    try:
        compiled(example)
    except BackendCompilerFailed as error:
        reason = str(error.inner_exception).strip().splitlines()[0]
        raise ValueError(f"torch.compile cannot build this model here ({reason}): a C++ compiler is needed") from error
    return compiled


def _recorded(graph: Deployed, setting: Setting) -> Run:
    """The kernels of one pass as one CUDA graph, for exactly the setting's batch: no overhead of Python or launches."""
    buffer = _example(graph, setting)  # the graph's input
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.no_grad(), torch.cuda.stream(stream):
        for _ in range(3):  # libraries allocate in their first calls
            graph(buffer)
    torch.cuda.current_stream().wait_stream(stream)
    record = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(record):
        results = named(graph(buffer))

    def run(images: Tensor) -> dict[str, Tensor]:
        if len(images) != len(buffer):
            raise ValueError(
                f"this session was recorded for {len(buffer)} images, not {len(images)}: batch={len(images)}"
            )
        buffer.copy_(images)
        record.replay()
        return {name: value.clone() for name, value in results.items()}

    return run


def _example(graph: Deployed, setting: Setting) -> Tensor:
    size = crop_size(graph)
    return torch.zeros(setting.batch, 3, size, size, dtype=torch.uint8, device=setting.device)


def _archive(path: Path, setting: Setting) -> TorchSession:
    program, contract = load_pt2(path)
    if setting.precision not in ("auto", contract.precision):
        raise ValueError(f"{path} was exported in {contract.precision}, not in {setting.precision}")
    if setting.device != "cpu":  # the graph names the CPU in constants and checks, which a module's `to` leaves
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, setting.device)
    module = program.module()
    session = TorchSession(
        lambda images: dict(zip(contract.outputs, module(images), strict=True)),
        module,
        setting._replace(precision=contract.precision),
        path.stat().st_size,
        contract.image_size,
    )
    session.contract = contract
    return session
