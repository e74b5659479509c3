"""A training: from what `preparation` built to a trained, evaluated student in a run directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import nn
from torch.utils.data import default_collate

from fasthamer.data.build import dataset_name
from fasthamer.data.dataset import HandStream
from fasthamer.data.faults import first_readable
from fasthamer.data.loader_processes import loader_errors
from fasthamer.distill.comparison import comparison
from fasthamer.distill.evaluate import Predicted, evaluate, predict_together, rules_for
from fasthamer.distill.preparation import DistillRun
from fasthamer.distill.report.entry import entry_of
from fasthamer.distill.report.page import write_report
from fasthamer.distill.report.training_log import read_training_log
from fasthamer.distill.scoring import list_unreadable
from fasthamer.distill.teacher_cache import complete_cache
from fasthamer.files.atomic import write_json, write_text
from fasthamer.files.images import write_image
from fasthamer.students import save_student
from fasthamer.students.files import student_metadata
from fasthamer.teachers.cache.cached_teacher import CachedTeacher
from fasthamer.training.accelerator import sharding
from fasthamer.training.best import improves
from fasthamer.training.loop import train
from fasthamer.training.pace import HOURS, with_timed_steps
from fasthamer.training.run_dir import writing
from fasthamer.types import Batch

BEST_FILE = "student_best.safetensors"  # in a run directory, beside STUDENT_FILE
SHOWN_SAMPLES = 4  # evaluation samples in a prediction image


@loader_errors()
def execute(prepared: DistillRun, hours: float = HOURS, shown: int = SHOWN_SAMPLES) -> dict[str, Any]:
    """Trains, evaluates and saves; returns the scores (empty on all but the main process).

    Args:
        prepared: from `prepare`.
        hours: how long a run whose TRAIN.STEPS is 0 may train, about.
        shown: evaluation samples in an image of predictions.

    Raises:
        RunInUse: another process trains into the run directory.
        Interrupted, FloatingPointError, BadSample: see `train`.
        LoaderError: a loader process died, hangs or ran out of memory.
        OSError: no space on the disk.
    """
    accelerator = prepared.trainer.accelerator
    with writing(prepared.run, prepared.cfg, prepared.origin, accelerator, prepared.resumed):
        return _execute(prepared, hours, shown)


def _execute(prepared: DistillRun, hours: float, shown: int) -> dict[str, Any]:
    cfg, run, trainer, feed = prepared.cfg, prepared.run, prepared.trainer, prepared.feed
    accelerator = trainer.accelerator

    def message(text: str) -> None:
        if accelerator.is_main_process:
            print(text, flush=True)

    fill_cache(prepared, message)
    if not cfg.TRAIN.STEPS:
        cfg = with_timed_steps(cfg, trainer, feed, hours, "the paper's recipe takes 1,000,000: --steps", message)
        prepared = prepared._replace(cfg=cfg)
        if accelerator.is_main_process:
            write_text(run / "config.yaml", cfg.dump())

    def score(done: int, student: nn.Module) -> dict[str, float]:
        scores = evaluation_scores(prepared, student)
        keep_best(prepared, done, student, scores)
        return {name: value for name, value in scores.items() if name.endswith("_mm")}

    def image(done: int, student: nn.Module) -> NDArray:
        return draw(prepared, student, run / "pictures" / f"step_{done}.png", shown)

    return finish(prepared, train(trainer, feed, cfg.TRAIN, run, prepared.resume_from, score, image), shown)


def fill_cache(prepared: DistillRun, say: Callable[[str], None]) -> None:
    """Computes what is missing in the caches of a run, TEACHER.CACHE and STUDENT.CACHE; also called by `execute`.

    Args:
        prepared: from `prepare`.
        say: gets lines for the user.

    Raises:
        OSError, Interrupted, FloatingPointError, BadSample: see `CachedTeacher.build`.
    """
    trainer = prepared.trainer
    for cached in (trainer.teacher, trainer.frozen):
        if isinstance(cached, CachedTeacher):
            assert not isinstance(prepared.images, HandStream), "streams are not cached"
            complete_cache(prepared.cfg, cached, prepared.images, trainer.accelerator, say)


def finish(prepared: DistillRun, student: nn.Module, shown: int = SHOWN_SAMPLES) -> dict[str, Any]:
    """Evaluates and saves a trained student and writes its report; returns its scores. Every process calls this."""
    cfg, run = prepared.cfg, prepared.run
    scores: dict[str, Any] = {}
    try:
        predicted, scores = _evaluated(prepared, student)
        if predicted is None:
            return {}
        keep_best(prepared, cfg.TRAIN.STEPS, student, scores)
        draw(prepared, student, run / "pictures" / "final.png", shown)
        write_json(run / "eval" / "scores.json", scores)
    finally:  # a broken evaluation image must not cost the training
        if prepared.trainer.accelerator.is_main_process:
            header = {"config": cfg.dump(), "metrics": scores, "provenance": prepared.origin}
            save_student(run / "student.safetensors", student, header)
    _report(prepared, predicted, scores)
    return scores


def keep_best(prepared: DistillRun, done: int, student: nn.Module, scores: dict[str, Any]) -> None:
    """Replaces `student_best.safetensors` if the student of a step has a better score TRAIN.BEST than its student."""
    path = prepared.run / BEST_FILE
    before = student_metadata(path)["metadata"]["metrics"] if path.is_file() else {}
    if improves(scores, before, prepared.cfg.TRAIN.BEST):
        about = {"config": prepared.cfg.dump(), "metrics": scores, "provenance": prepared.origin, "step": done}
        save_student(path, student, about)


def _report(prepared: DistillRun, predicted: Predicted, scores: dict[str, Any]) -> None:
    """Writes `report.html` into the run directory."""
    cfg, run = prepared.cfg, prepared.run
    data = f"{dataset_name(cfg, train=False)}-{Path(cfg.DATA.EVAL_SPLIT).name}"
    rules = rules_for(prepared.held_out, cfg.EVAL.PROTOCOL)
    entry = entry_of(run.name, data, scores, prepared.held_out, predicted, rules, prepared.hand)
    log = read_training_log(run, run.name)
    write_report(run / "report.html", f"Run {run.name}", [entry], prepared.origin, cfg.dump(), [log] if log else [])


def draw(prepared: DistillRun, student: nn.Module, path: Path, count: int) -> NDArray:
    """Saves (and returns) an image of the first evaluation samples: image, truth, teacher, student.

    A teacher that is cached, or sharded over all processes, is left out.
    """
    batch = Batch(*default_collate(first_readable(prepared.held_out, count)))
    batch = Batch(*(each.to(prepared.trainer.accelerator.device) for each in batch))
    teacher = prepared.trainer.teacher
    shown = {} if teacher is None or isinstance(teacher, CachedTeacher) or sharding() else {"teacher": teacher}
    image = comparison(batch, {**shown, "student": student}, prepared.hand.faces)
    write_image(path, image)
    return image


def evaluation_scores(prepared: DistillRun, student: nn.Module) -> dict[str, Any]:
    """The scores of a student on the evaluation set; every process calls this, the main one gets them."""
    return _evaluated(prepared, student)[1]


def _evaluated(prepared: DistillRun, student: nn.Module) -> tuple[Predicted | None, dict[str, Any]]:
    cfg, accelerator = prepared.cfg, prepared.trainer.accelerator
    loading = cfg.EVAL.BATCH, cfg.DATA.WORKERS, accelerator, cfg.DATA.FAULTS
    predicted = predict_together(student, prepared.held_out, *loading)
    if predicted is None:
        return None, {}
    list_unreadable(prepared.run / "eval", predicted)
    rules = rules_for(prepared.held_out, cfg.EVAL.PROTOCOL)
    scores = evaluate(predicted, rules, prepared.hand.J_regressor.cpu().numpy())
    return predicted, {"image_size": cfg.IMAGE_SIZE} | scores
