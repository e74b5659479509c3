"""TokenHand's ablations: a tokenizer for each point, and a student that predicts its tokens.

OUT/tokenizers/NAME, OUT/students/NAME   run directories
OUT/drawn                                the images that all students share
OUT/logs                                 the output of each training
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from yacs.config import CfgNode

from fasthamer.config import load_config
from fasthamer.cores import usable_cores
from fasthamer.distill.ablation_points import Point, all_points, changes
from fasthamer.distill.parallel_runs import Job, JobResult, run_jobs
from fasthamer.distill.preparation import prepare
from fasthamer.distill.run import execute
from fasthamer.distill.study.begun import changed
from fasthamer.distill.tokenizer import FILE, prepare_tokenizer, train_tokenizer
from fasthamer.students.files import STUDENT_FILE
from fasthamer.students.tokenhand.tokenizer import check_spec, spec_of
from fasthamer.training.interrupt import InterruptHandler
from fasthamer.training.log import duration
from fasthamer.training.run_dir import FREE

SCORED = 6  # times while a tokenizer trains: the curve of error against time
SECONDS = {"tokenizer": 0.5, "student": 0.2}  # a step, two trainings at a time on two cores of a laptop or so
BEGINNING = 15.0  # seconds: imports, hands, scores
OWN = ("TRAIN.STEPS", "STUDENT.GENERATOR", "STUDENT.TOKENIZER", "STUDENT.DECODER", "DATA.NAME", "DATA.SYNTHETIC_FOLDER")
PLACES = ("STUDENT.TOKENIZER", "DATA.SYNTHETIC_FOLDER")  # follow from OUT, which may be moved


class Plan(NamedTuple):
    """What to train, as the user sets it."""

    out: Path
    points: Sequence[Point]
    steps: int  # of a tokenizer's training
    student_steps: int  # of a student's; 0 = no students
    jobs: int  # trainings at a time
    overrides: Sequence[str] = ()  # KEY VALUE, for tokenizers and students

    def tokenizer_run(self, point: Point) -> Path:
        return self.out / "tokenizers" / point.tokenizer

    def student_run(self, point: Point) -> Path:
        return self.out / "students" / point.name


def tokenizer_config(plan: Plan, point: Point) -> CfgNode:
    """The point's recipe at the plan's scale: no more hands are sampled than are looked at."""
    recipe = f"tokenizer/{point.tokenizer}"
    overrides = [*_pairs({"DATA.WORKERS": _workers(plan), "TOKENIZER.HELD_OUT": 512}), *plan.overrides]
    whole = load_config(recipe, overrides)
    hands = min(whole.TOKENIZER.HANDS, max(plan.steps * whole.TRAIN.BATCH, 2))
    scale = {
        "TRAIN.STEPS": plan.steps,
        "TRAIN.EVAL_EVERY": max(1, plan.steps // SCORED),
        "TRAIN.CHECKPOINT_EVERY": max(1, plan.steps // 4),
        "TOKENIZER.HANDS": hands,
    }
    return load_config(recipe, [*overrides, *_pairs(scale)])


def student_config(plan: Plan, point: Point) -> CfgNode:
    """The recipe of the ablations' students with the point's tokenizer and generator."""
    own = {
        "TRAIN.STEPS": plan.student_steps,
        "STUDENT.TOKENIZER": plan.tokenizer_run(point) / FILE,
        "STUDENT.GENERATOR": point.generator,
        "DATA.SYNTHETIC_FOLDER": plan.out / "drawn",
    }
    return load_config("ablation_student", ["DATA.WORKERS", str(_workers(plan)), *plan.overrides, *_pairs(own)])


def check(plan: Plan) -> None:
    """Whether all of it can be trained and compared with what lies in OUT already.

    Raises:
        ValueError, KeyError: a setting that cannot be, or that would make points incomparable.
    """
    if plan.steps < 1 or plan.student_steps < 0 or plan.jobs < 1:
        raise ValueError(
            f"--steps {plan.steps} --student-steps {plan.student_steps} --jobs {plan.jobs}: a tokenizer needs a step, "
            "a student 0 (none is trained) or more, and one job at least"
        )
    keys = plan.overrides[::2]
    for key in keys:
        if key in OWN:
            raise ValueError(f"{key} is set by the ablations themselves, see --steps, --student-steps and --out")
    for point in plan.points:
        if taken := set(keys) & changes(point).keys():
            raise ValueError(f"{min(taken)} is what {point.name} changes: leave it out, or that point (--only)")
        check_spec(spec_of(tokenizer_config(plan, point).TOKENIZER))
    for point in all_points():
        _same(tokenizer_config(plan, point), plan.tokenizer_run(point))
        if plan.student_steps:
            _same(student_config(plan, point), plan.student_run(point))


def estimate(plan: Plan) -> float:
    """Seconds that are to come, on two cores."""
    return sum(map(_seconds, [*_tokenizers(plan), *_students(plan)]))


def finished(run: Path, file: str) -> bool:
    """Whether a run has its scores and its weights."""
    return (run / "eval" / "scores.json").is_file() and (run / file).is_file()


def ablate(plan: Plan, interrupt: InterruptHandler, say: Callable[[str], None]) -> Iterator[JobResult]:
    """Trains what is not finished, tokenizers first, and goes on where a training was interrupted.

    A student whose tokenizer failed is reported and left out.

    Args:
        interrupt: already listening; what runs is stopped after a checkpoint.
        say: one line of progress.

    Yields:
        Each training that has ended, well or not.
    """
    left, took, estimated = estimate(plan), 0.0, 0.0
    for gather in (_tokenizers, _students):
        jobs = [] if interrupt.requested else gather(plan)
        ready = [job for job in jobs if _tokenizer_is_there(plan, job)]
        for job in jobs:
            if job not in ready:
                yield JobResult(job, 0.0, "its tokenizer is missing")
        for result in run_jobs(ready, plan.jobs, plan.out / "logs", interrupt):
            seconds = _seconds(result.job)
            left, took, estimated = left - seconds, took + result.seconds, estimated + seconds
            if interrupt.requested and result.trouble:
                say(f"{result.job.name}: stopped, {result.trouble}")
            else:
                how = f"failed: {result.trouble}" if result.trouble else f"done in {duration(result.seconds)}"
                say(f"{result.job.name}: {how}; about {duration(took / estimated * left / plan.jobs)} left")
            yield result


def _tokenizers(plan: Plan) -> list[Job]:
    points = {point.tokenizer: point for point in plan.points if not finished(plan.tokenizer_run(point), FILE)}
    return [Job(f"tokenizer {name}", _train_tokenizer, (plan, point)) for name, point in points.items()]


def _students(plan: Plan) -> list[Job]:
    points = plan.points if plan.student_steps else ()
    left = [point for point in points if not finished(plan.student_run(point), STUDENT_FILE)]
    return [Job(f"student {point.name}", _train_student, (plan, point)) for point in left]


def _train_tokenizer(plan: Plan, point: Point) -> None:
    run = plan.tokenizer_run(point)
    train_tokenizer(prepare_tokenizer(tokenizer_config(plan, point), run, (run / "config.yaml").is_file()))


def _train_student(plan: Plan, point: Point) -> None:
    run = plan.student_run(point)
    execute(prepare(student_config(plan, point), run, (run / "config.yaml").is_file()))


def _tokenizer_is_there(plan: Plan, job: Job) -> bool:
    return job.call is _train_tokenizer or finished(plan.tokenizer_run(job.arguments[1]), FILE)


def _seconds(job: Job) -> float:
    plan: Plan = job.arguments[0]
    kind, steps = ("tokenizer", plan.steps) if job.call is _train_tokenizer else ("student", plan.student_steps)
    return steps * SECONDS[kind] + BEGINNING / plan.jobs


def _workers(plan: Plan) -> int:
    """Loader processes of a training: half of its share of the processor."""
    return usable_cores() // plan.jobs // 2


def _same(cfg: CfgNode, run: Path) -> None:
    if not (run / "config.yaml").is_file():
        return
    found = changed(load_config(run / "config.yaml"), cfg)
    if strays := found.keys() - {*FREE, *PLACES} | found.keys() & {"TRAIN.STEPS"}:
        key = min(strays & {"TRAIN.STEPS"} or strays)  # others follow from it
        before, now = found[key]
        raise ValueError(
            f"{run} was started with {key} {before}, now it is {now}: the points would not compare; choose another "
            "--out, or remove that run"
        )


def _pairs(settings: dict[str, object]) -> list[str]:
    return [text for key, value in settings.items() for text in (key, str(value))]
