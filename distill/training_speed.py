"""Speed and peak memory of a step of distillation, compared with a naive loop.

The naive loop is that of the reference implementation: everything in fp32, and in hybrid mode the teacher's backbone
runs once for its features and again for its outputs. All loops are the same code with other config keys, and the naive
one has a teacher that runs twice. Images are in memory; `tools/benchmark_data.py` measures loading.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate
from yacs.config import CfgNode

from fasthamer.benchmark.timing import Timing, flat, in_blocks, random_crops, synchronise, times_faster
from fasthamer.config import replaced
from fasthamer.data.dataset import DatasetInfo, HandDataset
from fasthamer.distill.objective import MODES, Objective
from fasthamer.distill.trainer import DistillTrainer
from fasthamer.hand.mano import Hand, load_hand
from fasthamer.nn.mano_head import SIZES, ManoHead
from fasthamer.registry import unknown
from fasthamer.students import build_student
from fasthamer.teachers import Teacher
from fasthamer.teachers.cache.cached_teacher import CachedTeacher
from fasthamer.teachers.cache.manifest import CacheRequest
from fasthamer.teachers.hamer import HaMeR
from fasthamer.teachers.vit import MARGIN, PoseViT
from fasthamer.training.accelerator import accelerator_for
from fasthamer.types import Batch, HandOutput

BuildTeacher = Callable[[Hand, int], HaMeR]  # from the hand and the number of blocks

LOOPS: dict[str, dict[str, object]] = {  # name: config keys that it sets
    "naive": {"TRAIN.PRECISION": "fp32", "TEACHER.PRECISION": "fp32", "TRAIN.CHANNELS_LAST": False},
    "once": {"TEACHER.PRECISION": "fp32"},
    "once_bf16": {"TEACHER.PRECISION": "bf16"},
    "once_contiguous": {"TEACHER.PRECISION": "fp32", "TRAIN.CHANNELS_LAST": False},
    "once_compiled": {"TEACHER.PRECISION": "fp32", "TEACHER.COMPILE": True, "TRAIN.COMPILE": True},
    "cached": {},
}
MEANING = """\
naive            fp32 throughout; in hybrid mode two passes of the teacher
once             one pass of the teacher, in fp32; the student in TRAIN.PRECISION, channels last
once_bf16        the same, the teacher in bf16
once_contiguous  as once, without channels last
once_compiled    as once, both backbones compiled (torch.compile)
cached           the teacher's outputs (and features, if the mode uses them) from its cache on disk"""
WHOLE_DEPTH = 32  # blocks of HaMeR's backbone


class Row(NamedTuple):
    """One loop in one mode."""

    mode: str
    loop: str
    median_ms: float  # of a step
    p95_ms: float
    images_per_second: float
    ratio: float  # to the naive loop's images per second, see `fasthamer.benchmark.timing.times_faster`
    peak_mb: float  # 1e6 bytes, while it trains: of the device on cuda, else of the whole process; 0 = not measured


class TwoPasses(nn.Module):
    """HaMeR run twice: for its features, then for its outputs."""

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.teacher = teacher
        self.feature_channels, self.view = teacher.feature_channels, teacher.view

    @torch.no_grad()
    def forward(self, image: Tensor) -> HandOutput:
        model: HaMeR = self.teacher.model  # type: ignore[assignment]
        features = model.backbone(model.normalise(image)[..., MARGIN:-MARGIN])
        return self.teacher(image)._replace(features=features)


class Crops(HandDataset):
    """Noise images with labels of zero: neither affects the speed of a step."""

    info = DatasetInfo("Crops", meshes=True, poses=True)

    def __init__(self, length: int, size: int) -> None:
        self.images = random_crops(length, size, torch.device("cpu"))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        index, one, turns = key[1], torch.tensor(1.0), torch.eye(3).repeat(16, 1, 1)
        return Batch(
            image=self.images[index],
            keypoints_2d=torch.zeros(21, 3),
            joints=torch.zeros(21, 4),
            vertices=torch.zeros(778, 3),
            has_vertices=one,
            global_orient=turns[:1],
            hand_pose=turns[1:],
            betas=torch.zeros(10),
            has_pose=one,
            has_betas=one,
            mirrored=torch.tensor(0.0),
            crop=torch.eye(2, 3),
            index=torch.tensor(index),
        )


def stand_in(hand: Hand, depth: int) -> HaMeR:
    """HaMeR with `depth` blocks in its backbone and random weights, the same each time: features 1280 x 16 x 12."""
    torch.manual_seed(0)
    head = ManoHead(1280, SIZES["full"])
    head.start_from(hand)
    return HaMeR(PoseViT(depth=depth), head, hand)


def loop_step(
    cfg: CfgNode, mode: str, loop: str, depth: int, caches: Path, build_teacher: BuildTeacher = stand_in
) -> Callable[[], None]:
    """A training step of one loop; the call returns when its work on the device is done.

    Args:
        cfg: STUDENT, TRAIN and DEVICE are used.
        mode: one of `MODES` but none.
        loop: one of `LOOPS`.
        depth: blocks of the teacher.
        caches: folder for the caches; missing ones are built.
        build_teacher: from the hand and `depth`.

    Raises:
        KeyError: no such mode or loop.
    """
    if loop not in LOOPS:
        raise KeyError(unknown("loop", loop, LOOPS))
    cfg = replaced(cfg, {"KD.MODE": mode, **LOOPS[loop]})
    objective = Objective.of(cfg)
    if mode == "none":
        raise KeyError(unknown("distillation mode", mode, MODES[1:]))
    accelerator = accelerator_for(cfg.DEVICE, cfg.TRAIN.PRECISION, 1)
    hand = load_hand("embedded")
    teacher: nn.Module = Teacher(build_teacher(hand, depth), cfg.TEACHER.PRECISION)
    crops = Crops(cfg.TRAIN.BATCH, cfg.IMAGE_SIZE)
    if loop == "naive" and mode == "hybrid":
        teacher = TwoPasses(teacher)  # type: ignore[arg-type]
    if cfg.TEACHER.COMPILE:
        teacher.model.backbone.compile()  # type: ignore[operator, union-attr]
    if loop == "cached":
        folder = caches / ("features" if objective.features else "outputs")
        teacher = CachedTeacher(folder, teacher, crops, CacheRequest(bool(objective.features), 0))  # type: ignore[arg-type]
    student = build_student(
        cfg.STUDENT.NAME, cfg.STUDENT.DECODER, cfg.STUDENT.DECODER_SIZE, cfg.STUDENT.IMAGE_SIZE, hand=hand
    )
    trainer = DistillTrainer(cfg, student, teacher, objective, accelerator)
    if isinstance(trainer.teacher, CachedTeacher):
        trainer.teacher.build(cfg.TRAIN.BATCH, 0, lambda text: None)
    batch = Batch(*default_collate([crops[(0, index)] for index in range(len(crops))]))

    def step() -> None:
        trainer.begin(0, 1)
        trainer.training_step(batch, 0)
        synchronise(accelerator.device)

    return step


def measure(
    cfg: CfgNode,
    mode: str,
    loops: Sequence[str],
    depth: int,
    caches: Path,
    repeats: int,
    seconds: float,
    build_teacher: BuildTeacher = stand_in,
) -> list[Row]:
    """Times the loops interleaved; ratios are to the first of them.

    Args:
        loops: of `LOOPS`.
        repeats: rounds.
        seconds: stop after this time, but not before 3 rounds.
        build_teacher: see `loop_step`, whose arguments the others are.
    """
    steps = {loop: loop_step(cfg, mode, loop, depth, caches, build_teacher) for loop in loops}
    blocks = in_blocks(steps, repeats, seconds, block_seconds=0.0, warmup=2)
    rows = []
    for loop, taken in blocks.items():
        timing, ratio = Timing.of(flat(taken)), times_faster(taken, blocks[loops[0]])
        rows.append(Row(mode, loop, *timing, cfg.TRAIN.BATCH / timing.median_ms * 1000, ratio, 0.0))
    return rows


def peak_mb(
    cfg: CfgNode, mode: str, loop: str, depth: int, caches: Path, build_teacher: BuildTeacher = stand_in
) -> float:
    """Peak memory of three steps after everything is built, 1e6 bytes; arguments as `loop_step`.

    Without cuda it is that of the whole process: call it in a process of its own.
    """
    step = loop_step(cfg, mode, loop, depth, caches, build_teacher)
    on_cuda = torch.cuda.is_available() and cfg.DEVICE != "cpu"
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
    else:
        _forget_peak()
    for _ in range(3):
        step()
    return (torch.cuda.max_memory_allocated() if on_cuda else _resident_peak()) / 1e6


def table(rows: Sequence[Row]) -> str:
    """As Markdown."""
    lines = [
        "| mode | loop | ms a step | p95 | images/s | ratio to naive | peak MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        peak = f"{row.peak_mb:.0f}" if row.peak_mb else ""
        lines.append(
            f"| {row.mode} | {row.loop} | {row.median_ms:.0f} | {row.p95_ms:.0f} | {row.images_per_second:.2f} "
            f"| {row.ratio:.2f} | {peak} |"
        )
    return "\n".join(lines)


def _forget_peak() -> None:
    """Resets the peak of resident memory on Linux; elsewhere the peak includes building the models."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _resident_peak() -> float:
    """Bytes."""
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return 1024 * next(float(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
