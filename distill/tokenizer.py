"""TokenHand's first stage: from a config to a trained, scored tokenizer in a run directory."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from fasthamer.data.pose_sources import build_poses
from fasthamer.data.poses import HandPoses
from fasthamer.distill.tokenizer_scores import reconstructions, score_tokenizer
from fasthamer.distill.tokenizer_trainer import Meshes, MeshFeed, TokenizerTrainer
from fasthamer.files.atomic import write_json, write_text
from fasthamer.files.images import write_image
from fasthamer.hand.mano import Hand, load_hand
from fasthamer.students.tokenhand.files import save_tokenizer, tokenizer_metadata
from fasthamer.students.tokenhand.tokenizer import Tokenizer, check_spec, spec_of
from fasthamer.students.zoo import parameter_count
from fasthamer.training.best import improves
from fasthamer.training.loop import train
from fasthamer.training.pace import HOURS, check_steps, described_steps, with_timed_steps
from fasthamer.training.provenance import provenance
from fasthamer.training.run_dir import continued, last_checkpoint, writing
from fasthamer.training.start import start

FILE, BEST_FILE = "tokenizer.safetensors", "tokenizer_best.safetensors"


class TokenizerRun(NamedTuple):
    """All that a tokenizer's training needs, built and checked; nothing has been written yet."""

    cfg: CfgNode
    run: Path
    resume_from: Path | None
    hand: Hand
    trainer: TokenizerTrainer
    feed: MeshFeed
    held_out: Tensor  # (N, 778, 3) metres
    origin: dict[str, Any]  # see `fasthamer.training.provenance`
    announcement: str  # what was resolved, a line each
    resumed: bool  # begun before


def prepare_tokenizer(cfg: CfgNode, run: Path, resume: bool = False) -> TokenizerRun:
    """Builds everything a config names; arguments and errors as for `fasthamer.distill.preparation.prepare`."""
    if cfg.TRAIN.PRECISION == "fp16":
        raise ValueError("TRAIN.PRECISION fp16 is too coarse for two optimizers on meshes: take fp32 (auto) or bf16")
    accelerator = start(cfg, run, resume, cfg.TRAIN.PRECISION.replace("auto", "fp32"))
    hand = load_hand("embedded" if cfg.HAND.MODEL == "auto" else cfg.HAND.MODEL)
    torch.manual_seed(cfg.SEED)
    node, processes = cfg.TOKENIZER, accelerator.num_processes
    spec = spec_of(node)
    check_spec(spec)
    expected = cfg.TRAIN.BATCH * processes * spec.tokens[0] / spec.codes  # tokens a code, if all were alike
    tokenizer = Tokenizer(spec, hand, node.DECAY, node.RESET_BELOW * expected).to(accelerator.device)
    poses, others = build_poses(cfg, hand)
    training, held_out = (Meshes(hand, each, accelerator.device) for each in (poses, others))
    fingerprints = {"training": _fingerprint(poses), "evaluation": _fingerprint(others)}
    origin = provenance(cfg.SEED, hand.fingerprint, fingerprints)
    resume_from = last_checkpoint(run) if resume else None
    if resume_from:
        check_steps(cfg.TRAIN.STEPS, resumed=True)
        origin = continued(run, origin, resume_from)
    lines = {
        "tokens": f"{spec.tokens[0]} of {spec.codes} codes, frame {spec.frame}; mesh decoder {spec.tokens} x "
        f"{spec.widths}, {parameter_count(tokenizer.decoder) / 1e6:.1f} M parameters; encoder "
        f"{parameter_count(tokenizer.encoder) / 1e6:.1f} M",
        "hand": f"{hand.name} ({hand.fingerprint})",
        "poses": f"{cfg.TOKENIZER.POSES}: {len(training)}; {len(held_out)} to score on",
        "device": f"{accelerator.device}" + (f", {processes} processes" if processes > 1 else ""),
        "steps": f"{described_steps(cfg.TRAIN.STEPS)} of {cfg.TRAIN.BATCH * cfg.TRAIN.ACCUMULATE * processes} meshes",
        "run": str(run),
    }
    announcement = "\n".join(f"{key:8s} {value}" for key, value in lines.items())
    trainer = TokenizerTrainer(cfg, tokenizer, accelerator)
    feed = MeshFeed(training, cfg.TRAIN.BATCH, cfg.SEED, accelerator.process_index)
    meshes = held_out.all(cfg.SEED)
    return TokenizerRun(cfg, run, resume_from, hand, trainer, feed, meshes, origin, announcement, resume)


def train_tokenizer(prepared: TokenizerRun, hours: float = HOURS, shown: int = 6) -> dict[str, Any]:
    """Trains, scores and saves; returns the scores (empty on all but the main process).

    Args:
        prepared: from `prepare_tokenizer`.
        hours: how long a run whose TRAIN.STEPS is 0 may train, about.
        shown: rows of the image of reconstructions.

    Raises:
        RunInUse: another process trains into the run directory.
        Interrupted, FloatingPointError, OSError: see `train`.
    """
    accelerator = prepared.trainer.accelerator
    with writing(prepared.run, prepared.cfg, prepared.origin, accelerator, prepared.resumed):
        return _train_tokenizer(prepared, hours, shown)


def _train_tokenizer(prepared: TokenizerRun, hours: float, shown: int) -> dict[str, Any]:
    cfg, run, accelerator = prepared.cfg, prepared.run, prepared.trainer.accelerator
    if not cfg.TRAIN.STEPS:
        note = "the paper's recipe takes 51,000: --steps"
        cfg = with_timed_steps(cfg, prepared.trainer, prepared.feed, hours, note, accelerator.print)
        prepared = prepared._replace(cfg=cfg)
        if accelerator.is_main_process:
            write_text(run / "config.yaml", cfg.dump())

    def evaluate(done: int, tokenizer: nn.Module) -> dict[str, float]:
        scores = score_tokenizer(prepared.trainer.model, prepared.held_out)
        if accelerator.is_main_process:
            _keep_best(prepared, done, scores)
        return {name: value for name, value in scores.items() if isinstance(value, int | float)}

    train(prepared.trainer, prepared.feed, cfg.TRAIN, run, prepared.resume_from, evaluate)
    return _finish(prepared, shown) if accelerator.is_main_process else {}


def _keep_best(prepared: TokenizerRun, done: int, scores: dict[str, Any]) -> None:
    """As `fasthamer.distill.run.keep_best`."""
    path = prepared.run / BEST_FILE
    before = tokenizer_metadata(path)["metadata"]["metrics"] if path.is_file() else {}
    if improves(scores, before, prepared.cfg.TRAIN.BEST):
        about = {"config": prepared.cfg.dump(), "metrics": scores, "provenance": prepared.origin, "step": done}
        save_tokenizer(path, prepared.trainer.model, about)


def _finish(prepared: TokenizerRun, shown: int) -> dict[str, Any]:
    run, tokenizer = prepared.run, prepared.trainer.model
    scores = score_tokenizer(tokenizer, prepared.held_out)
    _keep_best(prepared, prepared.cfg.TRAIN.STEPS, scores)
    image = reconstructions(tokenizer, prepared.held_out, prepared.hand.faces, shown)
    write_image(run / "pictures" / "reconstructions.png", image)
    write_json(run / "eval" / "scores.json", scores)
    header = {"config": prepared.cfg.dump(), "metrics": scores, "provenance": prepared.origin}
    save_tokenizer(run / FILE, tokenizer, header)
    return scores


def _fingerprint(poses: HandPoses) -> str:
    digest = hashlib.sha256()
    for each in poses:
        digest.update(each.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
