"""Kills a tiny training many times and compares how it ends with one that was never killed.

    python tests/kill_trainings.py                            # 4 x 24 kills
    python tests/kill_trainings.py --only tars-2 --kills 6

Kills at random (by --seed): SIGKILL in the middle of a step, of the writing of a checkpoint and of an evaluation,
SIGTERM to the whole process group at any time. Each attempt is a process of its own, forked from this one, which has
imported everything. In the end weights, optimizers, scores, lines of metrics.jsonl and TensorBoard's values must be the
same bit by bit. Exit codes: 0 all the same, 1 something differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import torch
from miniatures_tars import write_shards
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

import fasthamer.distill.run
from fasthamer.distill.trainer import DistillTrainer
from fasthamer.students import zoo
from fasthamer.tools.distill import main
from fasthamer.training import loop
from fasthamer.training.checkpoint import checkpoints
from fasthamer.training.evaluations import Evaluations

SMALL = [
    *("--student", "timm:test_resnet", "--decoder-size", "tiny", "--kd", "none", "DEVICE", "cpu"),
    *("IMAGE_SIZE", "32", "STUDENT.IMAGE_SIZE", "32", "STUDENT.PRETRAINED", "False"),
    *("DATA.SYNTHETIC_SIZE", "12", "DATA.SYNTHETIC_EVAL_SIZE", "2", "DATA.EVAL_NAME", "synthetic"),
    *(
        "TRAIN.BATCH",
        "2",
        "TRAIN.LR",
        "1e-3",
        "TRAIN.EMA",
        "0.9",
        "TRAIN.LOG_EVERY",
        "3",
        "TRAIN.CHECKPOINT_EVERY",
        "4",
    ),
    *("TRAIN.EVAL_EVERY", "6", "TRAIN.IMAGE_EVERY", "9", "TRAIN.BEST", "pa_mpjpe_mm", "TRAIN.THREADS", "1"),
]
KINDS = ("step", "write", "evaluation", "term")
FILE_OPERATIONS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir", "shutil.rmtree"}
STEPS_PER_KILL = 4  # of the run's length: an attempt comes a few steps forward
PATIENCE = 300.0  # seconds for one attempt


def compare(name: str, kills: int, seed: int, folder: Path) -> tuple[Counter[str], list[str]]:
    """Trains twice, once with kills.

    Args:
        name: indexed or tars, a dash, the number of loader workers.
        kills: how many.
        seed: of what is killed when.
        folder: gets both runs.

    Returns:
        The kills by kind, and what differs in the end.
    """
    data, workers = name.split("-")
    settings = [*SMALL, "DATA.WORKERS", workers, "TRAIN.STEPS", str(STEPS_PER_KILL * kills)]
    settings += ["DATA.SYNTHETIC_FOLDER", str(folder / "images")]
    if data == "tars":
        write_shards(folder / "shards", shards=4, samples=3)
        settings += ["--data", "tars", "--data-root", str(folder / "shards")]
    straight, killed = folder / "straight", folder / "killed"
    log = folder / "straight.log"
    assert Attempt([*settings, "--out", str(straight)], log).end() == 0, log_of(log)
    chance, done, groups = random.Random(f"{seed} {name}"), Counter[str](), []
    for plan in plans(kills, chance):
        log = folder / f"attempt_{done.total()}.log"
        begun = ["--resume"] if (killed / "config.yaml").is_file() else []
        attempt = Attempt([*settings, "--out", str(killed), *begun], log, plan)
        groups.append(attempt.process)
        attempt.wait_for_the_moment()
        time.sleep(chance.uniform(0.0, 0.03))
        code = attempt.kill()
        if plan.kind == "term":
            check_stopped(killed, code, log)
        elif code == 0:
            return done, [f"the training ended after {done.total()} kills, before it could be killed {kills} times"]
        done[plan.kind] += 1
    log = folder / "last.log"
    assert Attempt([*settings, "--out", str(killed), "--resume"], log).end() == 0, log_of(log)
    return done, [*differences(straight, killed), *survivors(groups)]


class Plan(NamedTuple):
    """How an attempt is killed, and when."""

    kind: str  # of KINDS
    moment: str  # step, write or evaluation
    number: int  # of the step, counted from where it goes on
    operation: int  # number of the file operation within the writing


def plans(kills: int, chance: random.Random) -> list[Plan]:
    """All kinds equally often, in a random order."""
    kinds = [KINDS[number % len(KINDS)] for number in range(kills)]
    chance.shuffle(kinds)
    moments = [chance.choice(KINDS[:3]) if kind == "term" else kind for kind in kinds]
    return [Plan(*pair, chance.randint(1, 4), chance.randrange(60)) for pair in zip(kinds, moments, strict=True)]


class Attempt:
    """A training, `tools/distill.py` with some arguments, in a process and a process group of its own."""

    def __init__(self, arguments: list[str], log: Path, plan: Plan | None = None) -> None:
        self.plan = plan
        self.reading, writing = os.pipe()
        self.process = os.fork()
        if self.process == 0:
            os.setsid()
            with log.open("wb", buffering=0) as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            if plan:
                tell_when(plan, writing)
            code = 1
            try:
                code = main(arguments)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        os.close(writing)

    def wait_for_the_moment(self) -> None:
        """Returns when it is there, or when the process has ended."""
        os.read(self.reading, 1)

    def kill(self) -> int:
        """Kills it as planned; returns its exit code, negative for a signal."""
        assert self.plan is not None
        if self.plan.kind == "term":
            os.killpg(self.process, signal.SIGTERM)
        else:
            os.kill(self.process, signal.SIGKILL)
        return self.end()

    def end(self) -> int:
        """Its exit code."""
        os.close(self.reading)
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])


def tell_when(plan: Plan, pipe: int) -> None:
    """Makes this process write into the pipe once it has come to the planned moment."""
    waiting, steps, operations = True, 0, -1  # -1: no checkpoint is being written

    def tell() -> None:
        nonlocal waiting
        waiting = False
        os.write(pipe, b"!")
        if plan.kind == "write":  # exactly here
            time.sleep(PATIENCE)

    def step(*arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        if waiting and plan.moment == "step" and steps == plan.number:
            tell()
        return training_step(*arguments)

    def evaluation(*arguments: Any) -> Any:
        if waiting and plan.moment == "evaluation":
            tell()
        return call(*arguments)

    def save(*arguments: Any) -> Any:
        nonlocal operations
        operations = 0
        path = save_checkpoint(*arguments)
        operations = -1
        if waiting and plan.moment == "write":  # it had fewer operations
            tell()
        return path

    def operated(event: str, _: Any) -> None:
        nonlocal operations
        if waiting and plan.moment == "write" and operations >= 0 and event in FILE_OPERATIONS:
            operations += 1
            if operations > plan.operation:
                tell()

    training_step, call, save_checkpoint = DistillTrainer.training_step, Evaluations._call, loop.save_checkpoint
    DistillTrainer.training_step, Evaluations._call = step, evaluation  # type: ignore[method-assign, assignment]
    loop.save_checkpoint = save  # type: ignore[assignment]
    sys.addaudithook(operated)


def check_stopped(run: Path, code: int, log: Path) -> None:
    """After SIGTERM: exit code 0, one line that says how to go on, and the checkpoint that it names."""
    text = log.read_text(encoding="utf-8", errors="replace")
    assert code == 0 and "Traceback" not in text, f"exit code {code}: {text[-2000:]}"
    assert "go on with: python tools/distill.py --out" in text, text[-2000:]
    if stopped := re.search(r"stopped after step (\d+) of", text):
        assert checkpoints(run / "checkpoints")[-1].name == f"step_{stopped[1]}"


def differences(one: Path, other: Path) -> list[str]:
    """What two runs that should be the same do not share."""
    found = []
    last = checkpoints(one / "checkpoints")[-1].name
    names = ["student.safetensors", "student_best.safetensors"]
    names += [f"checkpoints/{last}/{part}.safetensors" for part in ("learner", "average")]
    for name in names:
        a, b = load_file(one / name), load_file(other / name)
        if a.keys() != b.keys() or any(not torch.equal(a[key], b[key]) for key in a):
            found.append(name)
    a, b = (torch.load(run / "checkpoints" / last / "optimizers.pt", weights_only=True) for run in (one, other))
    if not same(a, b):
        found.append("optimizers.pt")
    for name, read in (("metrics.jsonl", metrics), ("tensorboard", scalars), ("eval/scores.json", json_of)):
        if (x := read(one / name)) != (y := read(other / name)):
            found.append(f"{name}: {first_difference(x, y)}")
    found += [f"left behind: {path}" for path in other.rglob("*.part")]
    return found


def first_difference(a: Any, b: Any) -> str:
    """Of two lists or dictionaries."""
    if isinstance(a, dict):
        for key in sorted(a.keys() | b.keys()):
            if a.get(key) != b.get(key):
                return f"{key}: {first_difference(a.get(key), b.get(key))}"
    if isinstance(a, list) and isinstance(b, list):
        for number, (x, y) in enumerate(zip_longest(a, b)):
            if x != y:
                return f"{number}: {x} is not {y}"
    return f"{a} is not {b}"


def same(a: Any, b: Any) -> bool:
    """Equal bit by bit, tensors included."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def metrics(file: Path) -> list[dict[str, Any]]:
    """The lines, without the speed."""
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values by tag, as TensorBoard shows them: a run that goes on hides what was after its first step.

    Images are counted with the value 0.
    """
    files = [list(LegacyEventFileLoader(str(path)).Load()) for path in folder.iterdir()]
    shown: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for events in sorted(filter(None, files), key=lambda events: events[0].wall_time):
        for event in events:
            if event.HasField("session_log") and event.session_log.status == event.session_log.START:
                for tag in shown:
                    shown[tag] = [point for point in shown[tag] if point[0] < event.step]
            for value in event.summary.value:
                if value.tag != "train/images_per_second":
                    shown[value.tag].append((event.step, value.simple_value))
    return {tag: points for tag, points in shown.items() if points}


def json_of(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def survivors(groups: list[int]) -> list[str]:
    """Loader workers of killed trainings that still live after a while."""
    left = groups
    for _ in range(100):
        left = [group for group in left if is_alive(group)]
        if not left:
            return []
        time.sleep(0.2)
    return [f"process group {group} lives on" for group in left]


def is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def log_of(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")[-4000:]


def run(names: list[str], kills: int, seed: int, folder: Path) -> int:
    """Prints a line for each configuration."""
    torch.set_num_threads(1)  # forked processes cannot use a pool of threads that exists already
    cv2.setNumThreads(1)
    failed = False
    for name in names:
        (folder / name).mkdir()
        done, wrong = compare(name, kills, seed, folder / name)
        kinds = ", ".join(f"{done[kind]} {kind}" for kind in KINDS)
        print(f"{name:10s} {done.total()} kills ({kinds}): {'; '.join(wrong) or 'bit-identical'}", flush=True)
        failed = failed or bool(wrong)
    return int(failed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=24, help="of each configuration (24)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="indexed-0,indexed-2,tars-0,tars-2", help="configurations (%(default)s)")
    chosen = parser.parse_args()
    assert zoo and fasthamer.distill.run  # imported before the first fork
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(run(chosen.only.split(","), chosen.kills, chosen.seed, Path(temporary)))
