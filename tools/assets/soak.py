"""Train, evaluate and predict in one process for a long time, and report whether it leaks.

    python tools/assets/soak.py                        # 30 minutes
    python tools/assets/soak.py --minutes 2 --out soak.json

A round distils a small student on synthetic hands with a loader worker, checkpoints and an evaluation, into a new run
directory; opens that student and predicts; predicts the same image with a shipped student that stays open, with its
ONNX file, opened anew, and as the frames of a video. After each round memory, open handles, threads and child processes
are read from /proc (so it needs Linux). The first third of the time is warm-up. Of the rest the slope is the median of
the slopes of all pairs of rounds (Theil and Sen's); over the measured time memory may grow by 3 %, the others by less
than a half. A video file needs the extra [video], the ONNX file [export].

Exit codes: 0 flat, 1 something grows, 2 a mistake in the arguments.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from fractions import Fraction
from io import StringIO
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import theilslopes

from fasthamer.config import load_config
from fasthamer.data.synthetic.dataset import SyntheticDataset
from fasthamer.distill.preparation import prepare
from fasthamer.distill.run import execute
from fasthamer.files.atomic import write_json
from fasthamer.hand.mano import load_hand
from fasthamer.predict import HandMesh, open_model
from fasthamer.runtime.export import export
from fasthamer.video.follow import HandVideo
from fasthamer.video.predict import predict_video
from fasthamer.video.writer import VideoWriter

MODEL, SIZE, FRAMES = "mobilenetv3_l", 256, 5
WARM_UP = 1 / 3  # of the time: caches and the allocator's arenas fill
MEMORY_GROWTH, COUNT_GROWTH = 0.03, 0.5  # over the measured time: of the median memory; handles, threads, processes
FEWEST = 6  # rounds after the warm-up


class Usage(NamedTuple):
    """What one process holds."""

    seconds: float  # since the start
    memory_mb: float  # resident, 1e6 bytes
    handles: int  # open files, pipes and sockets
    threads: int
    processes: int  # children


class Trend(NamedTuple):
    """One quantity after the warm-up."""

    name: str
    first: float
    last: float
    median: float
    growth: float  # slope times the measured time
    allowed: float

    @property
    def flat(self) -> bool:
        return self.growth < self.allowed


def usage(seconds: float) -> Usage:
    """Of this process, now."""
    gc.collect()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    memory = int(status["VmRSS"].split()[0]) * 1024 / 1e6
    return Usage(seconds, memory, len(os.listdir("/proc/self/fd")), int(status["Threads"]), len(children))


def trends(rounds: Sequence[Usage]) -> list[Trend]:
    """The trend of each quantity after the warm-up.

    Raises:
        ValueError: fewer than `FEWEST` rounds after the warm-up.
    """
    begin = WARM_UP * rounds[-1].seconds if rounds else 0.0
    measured = [each for each in rounds if each.seconds >= begin]
    if len(measured) < FEWEST:
        raise ValueError(f"{len(measured)} rounds after the warm-up, {FEWEST} are needed: raise --minutes")
    seconds, *columns = np.array(measured, np.float64).T
    found = []
    for name, values in zip(Usage._fields[1:], columns, strict=True):
        growth = theilslopes(values, seconds)[0] * (seconds[-1] - seconds[0])
        middle = float(np.median(values))
        allowed = MEMORY_GROWTH * middle if name == "memory_mb" else COUNT_GROWTH
        found.append(Trend(name, values[0], values[-1], middle, float(growth), allowed))
    return found


def table(found: Sequence[Trend]) -> str:
    """The trends, a line each."""
    lines = [f"{'':12s}{'first':>10s}{'last':>10s}{'median':>10s}{'growth':>10s}{'allowed':>10s}"]
    for each in found:
        numbers = "".join(f"{value:10.1f}" for value in each[1:])
        lines.append(f"{each.name:12s}{numbers}  {'flat' if each.flat else 'GROWS'}")
    return "\n".join(lines)


class Workload:
    """Training, evaluation and inference on synthetic hands; every file lies in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.rounds = folder, 0
        images = SyntheticDataset(load_hand("embedded"), 1, 7, SIZE, 0.0, 0.0, "upright", distribution="gestures")
        self.image: NDArray[np.uint8] = images[(0, 0)].image.permute(1, 2, 0).numpy()  # (SIZE, SIZE, 3)
        self.boxes = [(0.2 * SIZE, 0.2 * SIZE, 0.8 * SIZE, 0.8 * SIZE)]
        self.onnx, self.clip = folder / "hand.onnx", folder / "clip.mp4"
        self.student = open_model(MODEL)
        self.open_model = HandMesh(self.student)
        export(self.student, self.onnx)
        with VideoWriter(self.clip, Fraction(1, 10)) as clip:
            for time in range(FRAMES):
                clip.write(self.image, time)

    def __call__(self) -> None:
        """One round."""
        self.rounds += 1
        with tempfile.TemporaryDirectory(dir=self.folder) as run:
            self._train(Path(run) / "run")
            HandMesh(Path(run) / "run")(self.image, self.boxes)
            self.open_model(self.image)
            HandMesh(self.onnx)(self.image, self.boxes)
            predict_video(self.clip, Path(run) / "out.mp4", HandVideo(self.student), progress=False)

    def _train(self, run: Path) -> None:
        settings = {
            "KD.MODE": "hybrid", "STUDENT.FREEZE": "3", "DATA.SYNTHETIC_FOLDER": str(self.folder / "images"),
            "DATA.SYNTHETIC_SIZE": "16", "DATA.SYNTHETIC_EVAL_SIZE": "4", "DATA.WORKERS": "1", "TRAIN.STEPS": "4",
            "TRAIN.BATCH": "4", "TRAIN.CHECKPOINT_EVERY": "2", "TRAIN.EVAL_EVERY": "2", "DEVICE": "cpu",
        }  # fmt: skip
        cfg = load_config("quickstart", [part for pair in settings.items() for part in pair])
        execute(prepare(cfg, run))


def soak(work: Callable[[], None], minutes: float, report: Callable[[Usage], None]) -> list[Usage]:
    """What the process holds after each call of `work`, over at least so many minutes."""
    begin, rounds = monotonic(), list[Usage]()
    while not rounds or rounds[-1].seconds < 60 * minutes:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            work()
        rounds.append(usage(monotonic() - begin))
        report(rounds[-1])
    return rounds


def main(argv: list[str] | None = None) -> int:
    """0 flat, 1 something grows, 2 the user's mistake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="%(default)s")
    parser.add_argument("--out", type=Path, help="a .json of every round and the trends")
    arguments = parser.parse_args(argv)

    def report(now: Usage) -> None:
        print("  ".join(f"{name} {value:.0f}" for name, value in now._asdict().items()), file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        rounds = soak(Workload(Path(folder)), arguments.minutes, report)
    try:
        found = trends(rounds)
    except ValueError as error:
        parser.error(str(error))
    print(f"{len(rounds)} rounds in {rounds[-1].seconds / 60:.0f} minutes\n{table(found)}")
    if arguments.out:
        rows = [{**each._asdict(), "flat": each.flat} for each in found]
        write_json(arguments.out, {"trends": rows, "rounds": [each._asdict() for each in rounds]})
    return 0 if all(each.flat for each in found) else 1


if __name__ == "__main__":
    sys.exit(main())
