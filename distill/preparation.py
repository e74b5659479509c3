"""From a config to everything that its training needs, built and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import nn
from yacs.config import CfgNode

from fasthamer.config import replaced
from fasthamer.data.build import build_dataset, build_training_set, dataset_name
from fasthamer.data.dataset import HandDataset, HandStream, fingerprint
from fasthamer.data.loader import Feed, check_lanes
from fasthamer.detect.boxes import mediapipe_boxes
from fasthamer.distill.evaluate import rules_for
from fasthamer.distill.frozen_backbone import frozen_maps
from fasthamer.distill.new_student import new_student
from fasthamer.distill.objective import Objective
from fasthamer.distill.teacher_cache import cached_teacher
from fasthamer.distill.token_targets import TokenTargetEncoder
from fasthamer.distill.trainer import DistillTrainer
from fasthamer.hand.mano import Hand, load_hand
from fasthamer.students import Student
from fasthamer.students.tokenhand.files import load_tokenizer
from fasthamer.students.tokenhand.tokenizer import Tokenizer
from fasthamer.students.zoo import parameter_count
from fasthamer.teachers import box_shape_for, build_teacher, hand_for, notice_of, resolve_teacher
from fasthamer.training.accelerator import precision_of
from fasthamer.training.checkpoint import read_facts
from fasthamer.training.pace import check_steps, described_steps
from fasthamer.training.provenance import provenance
from fasthamer.training.run_dir import continued, last_checkpoint
from fasthamer.training.start import start


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
    objective = Objective.of(cfg)
    accelerator = start(cfg, run, resume, cfg.TRAIN.PRECISION)
    name, model, why = teacher_and_hand(cfg)
    cfg, hand = _decided(cfg, name, objective), load_hand(model)
    find = mediapipe_boxes()
    images, held_out = build_training_set(cfg, hand, find), build_dataset(cfg, hand, train=False, find=find)
    rules_for(held_out, cfg.EVAL.PROTOCOL)  # a mistyped protocol is refused now, not after the training
    torch.manual_seed(cfg.SEED)
    tokenizer = load_tokenizer(cfg.STUDENT.TOKENIZER, hand) if cfg.STUDENT.DECODER == "token" else None
    student = new_student(cfg, hand, tokenizer)
    teacher, described = None, "none: ground truth only"
    if objective.has_teacher:
        teacher, images, described = _teacher(cfg, name, why, hand, images, keeps_maps=objective.features > 0)
    frozen, fed = frozen_maps(cfg, student, hand) if cfg.STUDENT.CACHE else (None, images)
    origin = _origin(cfg, hand, images, held_out, objective.has_teacher, tokenizer)
    if tokenizer is not None:
        targets = TokenTargetEncoder(tokenizer.to(accelerator.device), cfg.KD.TEMPERATURE)
        objective = objective._replace(token_targets=targets)
    resume_from = last_checkpoint(run) if resume else None
    if resume_from:
        origin = continued(run, origin, resume_from)
        check_steps(cfg.TRAIN.STEPS, resumed=True)
        check_lanes(read_facts(resume_from), accelerator.num_processes, cfg.DATA.WORKERS)
    trainer = DistillTrainer(cfg, student, teacher, objective, accelerator, frozen)
    feed = _feed(cfg, fed, accelerator)
    announcement = _announce(cfg, student, described, trainer, images, held_out, run)
    return DistillRun(cfg, run, resume_from, hand, trainer, images, feed, held_out, origin, announcement, resume)


def teacher_and_hand(cfg: CfgNode) -> tuple[str, str, str]:
    """The names of the teacher and the hand model that a config stands for, and why it is this teacher.

    Raises:
        KeyError, ValueError: see `resolve_teacher`.
    """
    name, why = resolve_teacher(cfg.TEACHER.NAME, cfg.TEACHER.CHECKPOINT)
    hand = hand_for(name, cfg.TEACHER.CHECKPOINT) if cfg.HAND.MODEL == "auto" else cfg.HAND.MODEL
    return name, hand, why


def _decided(cfg: CfgNode, teacher: str, objective: Objective) -> CfgNode:
    """The config with what its automatic settings stand for: a resumed run has the same, whatever is installed then."""
    if cfg.DATA.BOX_SHAPE == "auto":
        cfg = replaced(cfg, {"DATA.BOX_SHAPE": box_shape_for(cfg.STUDENT.INIT or teacher)})
    if cfg.TEACHER.NAME == "auto" and objective.has_teacher:
        cfg = replaced(cfg, {"TEACHER.NAME": teacher})
    return cfg


def _teacher(
    cfg: CfgNode, name: str, why: str, hand: Hand, images: HandDataset | HandStream, keeps_maps: bool
) -> tuple[nn.Module, HandDataset | HandStream, str]:
    """The teacher, behind its cache if it has one, the set to train on with it, and a description of it."""
    live = build_teacher(name, cfg.TEACHER.CHECKPOINT, hand, cfg.TEACHER.PRECISION)
    if cfg.TEACHER.COMPILE:
        for backbone in live.backbones():
            backbone.compile()
    described = f"{name}: {why}"
    if notice := notice_of(name):
        described += f"; {notice}"
    if not cfg.TEACHER.CACHE:
        return live, images, described
    cached, images = cached_teacher(cfg, live, hand, images, keeps_maps)
    return cached, images, f"{described}; its outputs are cached in {cfg.TEACHER.CACHE}"


def _origin(
    cfg: CfgNode,
    hand: Hand,
    images: HandDataset | HandStream,
    held_out: HandDataset,
    has_teacher: bool,
    tokenizer: Tokenizer | None,
) -> dict[str, Any]:
    fingerprints = {"training": fingerprint(images), "evaluation": fingerprint(held_out)}
    origin = provenance(cfg.SEED, hand.fingerprint, fingerprints)
    if has_teacher:
        origin["teacher"] = {"name": cfg.TEACHER.NAME, "notice": notice_of(cfg.TEACHER.NAME)}
    if tokenizer is not None:
        origin["tokenizer"] = tokenizer.digest
    return origin


def _feed(cfg: CfgNode, images: HandDataset | HandStream, accelerator: Accelerator) -> Feed:
    rank, processes, pin = accelerator.process_index, accelerator.num_processes, accelerator.device.type == "cuda"
    return Feed(images, cfg.TRAIN.BATCH, cfg.SEED, rank, processes, cfg.DATA.WORKERS, pin, cfg.DATA.FAULTS)


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
