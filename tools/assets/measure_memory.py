"""What it brings to keep freed memory (`fasthamer.device.keep_freed_memory`): training and inference with and without.

    python tools/assets/measure_memory.py

Each process measures one side on one thread, in turns; the medians over the rounds are printed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from fasthamer.device import keep_freed_memory
from fasthamer.students.backbone import Backbone
from fasthamer.teachers import build_teacher

BATCH, SIZE = 64, 96  # of the student
TEACHER_BATCH = 32
REPEATS = 4  # the fastest counts


def images_per_second(kept: bool) -> tuple[float, float]:
    """Of a MobileNetV3-L's forward and backward pass, and of the embedded teacher; on one thread."""
    torch.set_num_threads(1)
    if kept:
        keep_freed_memory()
    student = Backbone("mobilenetv3_large_100", SIZE).to(memory_format=torch.channels_last)
    image = torch.rand(BATCH, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    teacher = build_teacher("embedded")
    crops = torch.randint(0, 256, (TEACHER_BATCH, 3, teacher.image_size, teacher.image_size), dtype=torch.uint8)
    training = BATCH / _fastest(lambda: student(image)[1].square().mean().backward())
    return training, TEACHER_BATCH / _fastest(lambda: teacher(crops))


def _fastest(call: Callable[[], object]) -> float:
    seconds = []
    for _ in range(REPEATS):
        since = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - since)
    return min(seconds)


def main(argv: list[str] | None = None) -> int:
    """Prints both sides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side (3)")
    rounds = parser.parse_args(argv).rounds
    found: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for _ in range(rounds):
        for kept, results in found.items():
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                results.append(pool.submit(images_per_second, kept).result())
    for column, what in enumerate(("training mobilenetv3_l", "embedded teacher")):
        before, after = (statistics.median(row[column] for row in found[kept]) for kept in (False, True))
        print(f"{what:24s} {before:6.1f} -> {after:6.1f} images/s, {after / before:.2f} times")
    return 0


if __name__ == "__main__":
    sys.exit(main())
