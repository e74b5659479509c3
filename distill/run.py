"""From a config to a trained, evaluated student in a run directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import default_collate
from yacs.config import CfgNode

from fasthamer.config import replaced
from fasthamer.data.build import build_dataset, build_training_set, dataset_name
from fasthamer.data.dataset import HandDataset, HandStream, fingerprint
from fasthamer.data.faults import first_readable
from fasthamer.data.loader import Feed, check_lanes
from fasthamer.data.loader_processes import loader_errors
from fasthamer.detect.boxes import mediapipe_boxes
from fasthamer.distill.comparison import comparison
from fasthamer.distill.evaluate import Predicted, evaluate, predict_together, rules_for
from fasthamer.distill.frozen_backbone import frozen_maps
from fasthamer.distill.new_student import new_student
from fasthamer.distill.objective import Objective
from fasthamer.distill.report.entry import entry_of
from fasthamer.distill.report.page import write_report
from fasthamer.distill.report.training_log import read_training_log
from fasthamer.distill.scoring import list_unreadable
from fasthamer.distill.teacher_cache import cached_teacher, complete_cache
from fasthamer.distill.token_targets import TokenTargetEncoder
from fasthamer.distill.trainer import DistillTrainer
from fasthamer.files.atomic import write_json, write_text
from fasthamer.files.images import write_image
from fasthamer.hand.mano import Hand, load_hand
from fasthamer.students import Student, save_student
from fasthamer.students.files import student_metadata
from fasthamer.students.tokenhand.files import load_tokenizer
from fasthamer.students.zoo import parameter_count
from fasthamer.teachers import box_shape_for, build_teacher, hand_for, notice_of, resolve_teacher
from fasthamer.teachers.cache.cached_teacher import CachedTeacher
from fasthamer.training.accelerator import accelerator_for, precision_of, sharding
from fasthamer.training.best import improves
from fasthamer.training.checkpoint import read_facts
from fasthamer.training.loop import train
from fasthamer.training.pace import HOURS, check_steps, described_steps, with_timed_steps
from fasthamer.training.provenance import provenance
from fasthamer.training.run_dir import continued, last_checkpoint, refuse_busy, refuse_foreign, writing
from fasthamer.training.settings import check_settings
from fasthamer.types import Batch

BEST_FILE = "student_best.safetensors"  # in a run directory, beside STUDENT_FILE
SHOWN_SAMPLES = 4  # evaluation samples in a prediction image


class DistillRun(NamedTuple):
    """All that a run needs, built and checked; nothing has been written yet."""

    cfg: CfgNode
    run: Path
    resume_from: Path | None
    hand: Hand
    trainer: DistillTrainer
    images: HandDataset | HandStream  # training set
    feed: Feed  # its batches
    held_out: HandDataset  # evaluation set
    origin: dict[str, Any]  # see `fasthamer.training.provenance`
    announcement: str  # what was resolved, a line each
    resumed: bool  # begun before


def prepare(cfg: CfgNode, run: Path, resume: bool = False) -> DistillRun:
    """Builds everything a config names.

    Args:
        cfg: frozen; see `fasthamer.config`.
        run: the run directory; may exist only if `resume`.
        resume: continue from the last complete checkpoint, or from the start if there is none yet.

    Raises:
        ValueError, KeyError, FileNotFoundError: something the user named is missing or unfit; one line says what.
    """
    if not resume:
        refuse_foreign(run)
    check_steps(cfg.TRAIN.STEPS)
    check_settings(cfg)
    objective = Objective.of(cfg)
    accelerator = accelerator_for(cfg.DEVICE, cfg.TRAIN.PRECISION, cfg.TRAIN.ACCUMULATE)
    if accelerator.is_main_process:
        refuse_busy(run)
    if cfg.TRAIN.THREADS:
        torch.set_num_threads(cfg.TRAIN.THREADS)
    name, why = resolve_teacher(cfg.TEACHER.NAME, cfg.TEACHER.CHECKPOINT)
    model = hand_for(name, cfg.TEACHER.CHECKPOINT) if cfg.HAND.MODEL == "auto" else cfg.HAND.MODEL
    hand = load_hand(model)
    if cfg.DATA.BOX_SHAPE == "auto":
        cfg = replaced(cfg, {"DATA.BOX_SHAPE": box_shape_for(cfg.STUDENT.INIT or name)})
    find = mediapipe_boxes()
    images, held_out = build_training_set(cfg, hand, find), build_dataset(cfg, hand, train=False, find=find)
    rules_for(held_out, cfg.EVAL.PROTOCOL)  # a mistyped protocol is refused now, not after the training
    torch.manual_seed(cfg.SEED)
    tokenizer = load_tokenizer(cfg.STUDENT.TOKENIZER, hand) if cfg.STUDENT.DECODER == "token" else None
    student = new_student(cfg, hand, tokenizer)
    teacher: nn.Module | None = None
    described = "none: ground truth only"
    if objective.outputs is not None or objective.features:
        if cfg.TEACHER.NAME == "auto":  # a resumed run has the same one, whatever the variables say then
            cfg = replaced(cfg, {"TEACHER.NAME": name})
        live = build_teacher(name, cfg.TEACHER.CHECKPOINT, hand, cfg.TEACHER.PRECISION)
        if cfg.TEACHER.COMPILE:
            for backbone in live.backbones():
                backbone.compile()
        teacher, described = live, f"{name}: {why}"
        if notice := notice_of(name):
            described += f"; {notice}"
        if cfg.TEACHER.CACHE:
            teacher, images = cached_teacher(cfg, live, hand, images, keeps_maps=objective.features > 0)
            described += f"; its outputs are cached in {cfg.TEACHER.CACHE}"
    frozen: CachedTeacher | None = None
    fed: HandDataset | HandStream = images
    if cfg.STUDENT.CACHE:
        frozen, fed = frozen_maps(cfg, student, hand)
    fingerprints = {"training": fingerprint(images), "evaluation": fingerprint(held_out)}
    origin = provenance(cfg.SEED, hand.fingerprint, fingerprints)
    if teacher is not None:
        origin["teacher"] = {"name": cfg.TEACHER.NAME, "notice": notice_of(name)}
    if tokenizer is not None:
        origin["tokenizer"] = tokenizer.digest
        targets = TokenTargetEncoder(tokenizer.to(accelerator.device), cfg.KD.TEMPERATURE)
        objective = objective._replace(token_targets=targets)
    resume_from = last_checkpoint(run) if resume else None
    if resume_from:
        origin = continued(run, origin, resume_from)
        check_steps(cfg.TRAIN.STEPS, resumed=True)
        check_lanes(read_facts(resume_from), accelerator.num_processes, cfg.DATA.WORKERS)
    trainer = DistillTrainer(cfg, student, teacher, objective, accelerator, frozen)
    rank, processes, pin = accelerator.process_index, accelerator.num_processes, accelerator.device.type == "cuda"
    feed = Feed(fed, cfg.TRAIN.BATCH, cfg.SEED, rank, processes, cfg.DATA.WORKERS, pin, cfg.DATA.FAULTS)
    announcement = _announce(cfg, student, described, trainer, images, held_out, run)
    return DistillRun(cfg, run, resume_from, hand, trainer, images, feed, held_out, origin, announcement, resume)


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


def _announce(
    cfg: CfgNode,
    student: Student,
    teacher: str,
    trainer: DistillTrainer,
    images: HandDataset | HandStream,
    held_out: HandDataset,
    run: Path,
) -> str:
    """What was resolved, a line each."""
    millions = [parameter_count(part) / 1e6 for part in (student.backbone, student.decoder)]
    name, processes = dataset_name(cfg), trainer.accelerator.num_processes
    size = images.summary if isinstance(images, HandStream) else f"{len(images)} images"
    why = f" (as DATA.ROOT is {cfg.DATA.ROOT or 'not set'})" if cfg.DATA.NAME == "auto" else ""
    labelled = ""
    if cfg.DATA.LABELLED < 1:
        labelled = f", {cfg.DATA.LABELLED:.0%} of them labelled" if trainer.teacher else ", the labelled ones"
    lines = {
        "student": f"{cfg.STUDENT.NAME}, {millions[0]:.1f} M parameters; decoder {cfg.STUDENT.DECODER} "
        f"{cfg.STUDENT.DECODER_SIZE}, {millions[1]:.1f} M",
        "teacher": teacher,
        "kd": cfg.KD.MODE + (f", weight {cfg.KD.WEIGHT:g}" if trainer.teacher else ""),
        "hand": f"{student.hand.name} ({student.hand.fingerprint})",
        "data": f"{name}{why}: {size}{labelled}; {len(held_out)} to evaluate on",
        "device": f"{trainer.accelerator.device}, {precision_of(trainer.accelerator)}"
        + (f", {processes} processes" if processes > 1 else ""),
        "steps": f"{described_steps(cfg.TRAIN.STEPS)} of {cfg.TRAIN.BATCH * cfg.TRAIN.ACCUMULATE * processes} images",
        "run": str(run),
    }
    return "\n".join(f"{key:8s} {value}" for key, value in lines.items())
