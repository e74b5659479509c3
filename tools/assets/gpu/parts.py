"""The parts of the check; each builds its models, compares them with the CPU, and times them."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fasthamer.benchmark.timing import Timing, flat, in_blocks, synchronise
from fasthamer.config import load_config
from fasthamer.data.synthetic.dataset import SyntheticDataset
from fasthamer.detect.detector import MediaPipeDetector
from fasthamer.detect.inference import torch_networks
from fasthamer.distill.preparation import prepare
from fasthamer.distill.run import execute
from fasthamer.distill.training_speed import LOOPS, WHOLE_DEPTH, measure
from fasthamer.hand.mano import Hand, load_hand
from fasthamer.nn.mano_head import SIZES, ManoHead
from fasthamer.predict import HandMesh, open_model
from fasthamer.predict.opening import TorchModel
from fasthamer.runtime.calibration import synthetic_crops
from fasthamer.runtime.parity import CHECK_SEED, MM, differences
from fasthamer.runtime.sessions import open_session
from fasthamer.students import build_student
from fasthamer.students.shipped import shipped_students
from fasthamer.teachers.hamer import HaMeR, random_hamer
from fasthamer.teachers.vit import PoseViT
from fasthamer.tools.assets.gpu.record import Check, Emit, LeftOut, Speed, Training
from fasthamer.training.run_dir import resumed_config

# Farthest vertex, by precision. tf32 and fp16 keep 10 bits of the mantissa, bf16 7: on the CPU bf16 moves the shipped
# students' vertices by up to 5 mm, ConvNeXt-L's of the check by 0.4 mm, and folding in fp32 by 0.0001 mm.
LIMIT_MM = {"fp32": 0.1, "tf32": 2.0, "fp16": 2.0, "bf16": 15.0}
EXPORTED = ("onnxruntime", "tensorrt")  # their fp32 is tf32 on a GPU
EAGER = {
    "torch": ("fp32", "tf32", "bf16", "fp16"),
    "folded": ("fp32", "bf16", "fp16"),
    "cudagraphs": ("fp32", "tf32", "bf16", "fp16"),
    "onnxruntime": ("fp32", "fp16"),
}
CROPS = 4  # synthetic crops that are compared
IMAGES, IMAGE_SIZE = 3, 320  # whole images of one hand, and their pixels
ROUNDS = 10
SENSITIVE = 50.0  # times the initial read-out weights, with which all hands would be nearly the same


class Plan(NamedTuple):
    """What to measure, and on what."""

    device: str
    tiny: bool = False  # stand-ins of HaMeR and ConvNeXt-L
    batches: tuple[int, ...] = (1, 32)
    seconds: float = 0.6  # of each row
    settings: dict[str, tuple[str, ...]] = EAGER  # backend: precisions
    left: Callable[[], float] = lambda: float("inf")  # seconds; none is begun without any


def students(plan: Plan, emit: Emit) -> None:
    """The shipped students."""
    for name in shipped_students():
        speeds(name, open_model(name), plan, emit)


def hamer(plan: Plan, emit: Emit) -> None:
    """HaMeR with random weights, the same each time."""
    hand = load_hand("embedded")
    torch.manual_seed(0)
    model = HaMeR(PoseViT(64, 2, 4), ManoHead(64, SIZES["tiny"]), hand) if plan.tiny else random_hamer(hand)
    speeds("hamer (random weights)", sensitive(model.eval(), model.mano_head), plan, emit)


def convnext_l(plan: Plan, emit: Emit) -> None:
    """The largest student, with random weights."""
    torch.manual_seed(0)
    names = ("timm:test_convnext", "tiny", 64) if plan.tiny else ("convnext_l", "full", 256)
    model = build_student(names[0], "mano", *names[1:]).eval()
    speeds("convnext_l (random weights)", sensitive(model, model.decoder), plan, emit)


def compiled(plan: Plan, emit: Emit) -> None:
    """torch.compile, which takes long to compile: one student and HaMeR, single images and then batches."""
    plan = plan._replace(settings={"compile": ("tf32", "bf16")})
    name = next(iter(shipped_students()))
    speeds(name, open_model(name), plan._replace(batches=plan.batches[:1]), emit)
    hamer(plan, emit)


def tensorrt(plan: Plan, emit: Emit) -> None:
    """ONNX Runtime's TensorRT provider, whose engines take long to build: small models first."""
    plan = plan._replace(settings={"tensorrt": ("fp32", "fp16")})
    for part in (students, convnext_l, hamer):
        part(plan, emit)


def speeds(name: str, model: nn.Module, plan: Plan, emit: Emit) -> None:
    """Rows of one model in every backend, precision and batch of a plan.

    Args:
        name: for the table.
        model: on the CPU, in eval mode; moves to the plan's device.
        plan: see `Plan`.
        emit: receives each row.
    """
    hand: Hand = model.hand  # type: ignore[assignment]
    reference = TorchModel(model, "cpu", "torch", 0)
    crops = synthetic_crops(hand, CROPS, reference.crop_size, CHECK_SEED, reference.box_shape).images
    expected = reference.session(crops)
    settings = [(backend, precision) for backend, precisions in plan.settings.items() for precision in precisions]
    for (backend, precision), batch in product(settings, plan.batches):
        what = f"{name}, {backend} {precision}, batch {batch}"
        if plan.left() <= 0:
            emit(LeftOut(what, "no time was left"))
            continue
        rows = np.arange(batch) % CROPS
        try:
            apart, timing = _timed(model, backend, precision, crops[rows], _taken(expected, rows), plan)
        except (ValueError, KeyError, ImportError) as error:  # this backend cannot be used here
            emit(LeftOut(what, _first_line(error)))
            continue
        except Exception as error:  # it can, and failed: runtimes raise types of their own
            emit(LeftOut(what, _first_line(error), is_failure=True))
            continue
        kind = "tf32" if backend in EXPORTED and precision == "fp32" and plan.device != "cpu" else precision
        emit(Speed(name, backend, precision, batch, *timing, apart, LIMIT_MM[kind]))
        gc.collect()  # sessions of earlier rows, before the next one takes memory


def _timed(
    model: nn.Module, backend: str, precision: str, crops: NDArray[np.uint8], expected: dict[str, NDArray], plan: Plan
) -> tuple[float, Timing]:
    """Millimetres of the farthest vertex, and the time of a pass from crops on the device to meshes."""
    device = torch.device(plan.device)
    with tf32(precision == "tf32"):
        stored = precision.replace("tf32", "fp32")
        session = open_session(model, backend, stored, plan.device, len(crops))
        apart = differences(expected, session(crops))["vertices_mm_max"]
        image = torch.from_numpy(crops).to(device)

        def call() -> None:
            session(image)
            synchronise(device)

        blocks = in_blocks({"": call}, ROUNDS, plan.seconds, plan.seconds / ROUNDS)
    return apart, Timing.of(flat(blocks[""]))


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether products and convolutions in fp32 may round their factors to tf32; PyTorch's defaults are no and yes."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32, convolutions.allow_tf32 = allowed, allowed
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


def sensitive(model: nn.Module, head: Any) -> nn.Module:
    """The model with larger read-out weights, so that its hands show what happens to its features."""
    with torch.no_grad():
        for readout in (head.decpose, head.decshape):
            readout.weight.mul_(SENSITIVE)
    return model


def training(plan: Plan, emit: Emit) -> None:
    """Steps of hybrid distillation from HaMeR: the naive loop, one pass of the teacher, and the teacher in bf16."""
    loops = [loop for loop in LOOPS if loop in ("naive", "once", "once_bf16")]

    def teacher(hand: Hand, depth: int) -> HaMeR:
        torch.manual_seed(0)
        with torch.device(plan.device):  # where 670 M random numbers take no time
            backbone, head = PoseViT(depth=depth), ManoHead(1280, SIZES["full"])
        head.start_from(hand)
        return HaMeR(backbone, head, hand)

    for batch in plan.batches[1:] if plan.tiny else (8, 32):
        if plan.left() <= 0:
            emit(LeftOut(f"training, batch {batch}", "no time was left"))
            continue
        cfg = load_config(
            None, ["DEVICE", plan.device, "TRAIN.BATCH", str(batch), *(TINY_STUDENT if plan.tiny else [])]
        )
        with tempfile.TemporaryDirectory() as caches:
            depth = 1 if plan.tiny else WHOLE_DEPTH
            rows = measure(cfg, "hybrid", loops, depth, Path(caches), ROUNDS, 15 * plan.seconds, teacher)
        for row in rows:
            emit(Training(batch, row))


TINY_STUDENT = [
    *("STUDENT.NAME", "timm:test_resnet", "STUDENT.DECODER_SIZE", "tiny"),
    *("STUDENT.IMAGE_SIZE", "64", "IMAGE_SIZE", "64", "STUDENT.PRETRAINED", "False"),
]


def detector(plan: Plan, emit: Emit) -> None:
    """MediaPipe's networks in torch, and whole images through detector and student, against the CPU."""
    images = [_image(index) for index in range(IMAGES)]
    for kind in ("lite", "full"):
        devices = ("cpu", plan.device)
        found = [[MediaPipeDetector(torch_networks(kind, each))(image) for image in images] for each in devices]
        pixels = [
            np.abs(one.landmarks - other.landmarks).max() if len(one.boxes) == len(other.boxes) else np.inf
            for one, other in zip(*found, strict=True)
            if len(one.boxes) or len(other.boxes)
        ]
        emit(Check(f"{kind} detector's landmarks, {len(pixels)} images", max(pixels, default=np.inf), 1.0, "pixels"))
    name = next(iter(shipped_students()))
    box = [IMAGE_SIZE * 0.1, IMAGE_SIZE * 0.1, IMAGE_SIZE * 0.9, IMAGE_SIZE * 0.9]
    for precise in (True, False):
        with tf32(not precise):
            meshes = [HandMesh(name, device=each)(tuple(images), [[box]] * IMAGES) for each in ("cpu", plan.device)]
        apart = max(np.abs(one.vertices - other.vertices).max() * MM for one, other in zip(*meshes, strict=True))
        kind = "fp32" if precise else "tf32"
        emit(Check(f"HandMesh({name!r}), {kind}, {IMAGES} images", float(apart), LIMIT_MM[kind], "mm"))


def _image(index: int) -> NDArray[np.uint8]:
    """(S, S, 3) RGB: a synthetic hand and its surroundings."""
    item = SyntheticDataset(load_hand("embedded"), IMAGES, CHECK_SEED, IMAGE_SIZE, scale=0.0, shift=0.0)[(0, index)]
    return np.ascontiguousarray(item.image.permute(1, 2, 0).numpy())


RUNS = {  # what a short run has beside the defaults
    "hybrid, moving average": ["KD.MODE", "hybrid", "STUDENT.DECODER", "mano", "TRAIN.EMA", "0.9"],
    "tokens, bf16": ["KD.MODE", "output", "STUDENT.DECODER", "token", "TRAIN.PRECISION", "bf16"],
    "adversarial loss, two batches a step": ["LOSS.ADVERSARIAL", "0.0005", "TRAIN.ACCUMULATE", "2"],
}


def runs(plan: Plan, emit: Emit) -> None:
    """Short whole runs: loader processes, training, a checkpoint, going on from it, evaluation."""
    half = 4 if plan.tiny else 25  # steps; the gradient scaler of fp16 may skip the first ten or so
    common = [
        *("DEVICE", plan.device, "DATA.NAME", "synthetic", "DATA.SYNTHETIC_SIZE", "32", "TRAIN.BATCH", "4"),
        *("DATA.SYNTHETIC_EVAL_SIZE", "8", "DATA.WORKERS", "0" if plan.tiny else "4", "TRAIN.STEPS", str(half)),
        *("TRAIN.CHECKPOINT_EVERY", str(half), "TRAIN.LOG_EVERY", "5", "TRAIN.LR", "1e-4", "TEACHER.NAME", "embedded"),
        *(TINY_STUDENT if plan.tiny else ["STUDENT.DECODER_SIZE", "small", "STUDENT.PRETRAINED", "False"]),
    ]
    for name, settings in list(RUNS.items())[: 1 if plan.tiny else None]:
        if plan.left() <= 0:
            emit(LeftOut(f"run: {name}", "no time was left"))
            continue
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            try:
                execute(prepare(load_config(None, [*common, *settings]), run))
                scores = execute(prepare(resumed_config(run, ["TRAIN.STEPS", str(2 * half)]), run, resume=True))
            except Exception as error:  # whatever it is, the other runs are still to be tried
                emit(LeftOut(f"run: {name}", _first_line(error), is_failure=True))
                continue
        emit(Check(f"{2 * half} steps, stopped after {half}, PA-MPJPE: {name}", scores["pa_mpjpe_mm"], 100.0, "mm"))


def _taken(outputs: dict[str, NDArray], rows: NDArray) -> dict[str, NDArray]:
    return {name: value[rows] for name, value in outputs.items()}


def _first_line(error: BaseException) -> str:
    text = str(error.args[0] if error.args else error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__


class Part(NamedTuple):
    """A part of the check."""

    measure: Callable[[Plan, Emit], None]
    share: float  # of the whole time, at most; what it leaves, later parts have


PARTS = {
    "detector": Part(detector, 0.1),
    "students": Part(students, 0.2),
    "hamer": Part(hamer, 0.25),
    "training": Part(training, 0.25),
    "runs": Part(runs, 0.2),
    "convnext_l": Part(convnext_l, 0.2),
    "compiled": Part(compiled, 0.25),
    "tensorrt": Part(tensorrt, 0.35),
}
