"""Training of TokenHand's first stage: meshes in, meshes out, a codebook in between."""

from __future__ import annotations

import hashlib
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from yacs.config import CfgNode

from fasthamer.data.poses import HandPoses, build_poses
from fasthamer.distill.tokenizer_scores import reconstructions, score_tokenizer
from fasthamer.hand.mano import Hand, load_hand
from fasthamer.hand.rotation import random_rotations
from fasthamer.hand.skinning import Skinning
from fasthamer.students.tokenhand.files import save_tokenizer
from fasthamer.students.tokenhand.tokenizer import Tokenizer, check_spec, spec_of
from fasthamer.students.zoo import parameter_count
from fasthamer.training.accelerator import accelerator_for
from fasthamer.training.checkpoint import Trainable, load_checkpoint, save_checkpoint
from fasthamer.training.interrupt import Interrupted, InterruptHandler
from fasthamer.training.log import RunLog
from fasthamer.training.meter import Meter
from fasthamer.training.provenance import provenance
from fasthamer.training.run_dir import continued, last_checkpoint, refuse_foreign, write_json, write_text
from fasthamer.training.schedule import learning_rate
from fasthamer.types import ManoParams

UNIT = 0.1  # metres: the reconstruction loss is in decimetres
FILE = "tokenizer.safetensors"
FLAT_RATE = 0.8  # the rate of what is no matrix (biases, norms, places), in rates of the matrices


class Meshes:
    """Posed hands out of a table of poses, with a random rotation each: row and rotation are drawn anew each time."""

    def __init__(self, hand: Hand, poses: HandPoses, device: torch.device) -> None:
        self.skin = Skinning(hand).to(device)
        self.poses = HandPoses(*(each.to(device) for each in poses))

    def __len__(self) -> int:
        return len(self.poses.hand_pose)

    @torch.no_grad()
    def of(self, rows: Tensor, rotations: Tensor) -> Tensor:
        """(B,) rows and (B, 3, 3) rotations to (B, 778, 3) metres."""
        device = self.poses.betas.device
        rows, rotations = rows.to(device), rotations.to(device)
        params = ManoParams(rotations[:, None], self.poses.hand_pose[rows], self.poses.betas[rows])
        return self.skin(params)[0]

    def drawn(self, number: int, seed: list[int]) -> Tensor:
        """`number` meshes, a function of the seed alone."""
        sequence = np.random.SeedSequence(seed)
        generator = torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1)))
        rows = torch.randint(len(self), (number,), generator=generator)
        return self.of(rows, random_rotations(number, generator))

    def all(self, seed: int) -> Tensor:
        """Every row once, each with a rotation."""
        generator = torch.Generator().manual_seed(seed)
        return self.of(torch.arange(len(self)), random_rotations(len(self), generator))


class Reconstruction(nn.Module):
    """All that trains, as one module: loss terms of a batch of meshes (TokenHand, eq. of stage I)."""

    def __init__(self, tokenizer: Tokenizer, reconstruction: float, commitment: float) -> None:
        super().__init__()
        self.tokenizer, self.weights = tokenizer, (reconstruction, commitment)

    def forward(self, vertices: Tensor) -> dict[str, Tensor]:
        """(B, 778, 3) to scalars: the weighted terms and their `total`."""
        placed, found, quantised = self.tokenizer(vertices)
        terms = {
            "reconstruction": self.weights[0] * (found - placed).abs().mean() / UNIT,
            "commitment": self.weights[1] * quantised.commitment.mean(),
        }
        return terms | {"total": terms["reconstruction"] + terms["commitment"]}


class Workshop(NamedTuple):
    """All that a tokenizer's run needs, built and checked; nothing has been written yet."""

    cfg: CfgNode
    run: Path
    resume_from: Path | None
    accelerator: Accelerator
    hand: Hand
    tokenizer: Tokenizer
    training: Meshes
    held_out: Tensor  # (N, 778, 3)
    origin: dict[str, Any]
    announcement: str


def prepare_tokenizer(cfg: CfgNode, run: Path, resume: bool = False) -> Workshop:
    """Builds everything a config names.

    Raises:
        ValueError, KeyError, FileNotFoundError: something the user named cannot be had; one line says what and why.
        ImportError: torch has no Muon yet.
    """
    if not hasattr(torch.optim, "Muon"):
        raise ImportError(f"a tokenizer trains with torch.optim.Muon: torch 2.9 has it, {torch.__version__} lacks it")
    if not resume:
        refuse_foreign(run)
    if cfg.TRAIN.PRECISION == "fp16":
        raise ValueError("TRAIN.PRECISION fp16 is too coarse for two optimizers on meshes: take fp32 (auto) or bf16")
    accelerator = accelerator_for(cfg.DEVICE, cfg.TRAIN.PRECISION.replace("auto", "fp32"), 1)
    if cfg.TRAIN.THREADS:
        torch.set_num_threads(cfg.TRAIN.THREADS)
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
        origin = continued(run, origin, resume_from)
    lines = {
        "tokens": f"{spec.tokens[0]} of {spec.codes} codes, frame {spec.frame}; mesh decoder {spec.tokens} x "
        f"{spec.widths}, {parameter_count(tokenizer.decoder) / 1e6:.1f} M parameters; encoder "
        f"{parameter_count(tokenizer.encoder) / 1e6:.1f} M",
        "hand": f"{hand.name} ({hand.fingerprint})",
        "poses": f"{cfg.TOKENIZER.POSES}: {len(training)}; {len(held_out)} to score on",
        "device": f"{accelerator.device}" + (f", {processes} processes" if processes > 1 else ""),
        "steps": f"{cfg.TRAIN.STEPS} of {cfg.TRAIN.BATCH * processes} meshes",
        "run": str(run),
    }
    announcement = "\n".join(f"{key:8s} {value}" for key, value in lines.items())
    seen = held_out.all(cfg.SEED)
    return Workshop(cfg, run, resume_from, accelerator, hand, tokenizer, training, seen, origin, announcement)


def train_tokenizer(shop: Workshop) -> dict[str, Any]:
    """Trains, scores and saves; returns the scores (empty on all but the main process).

    Raises:
        Interrupted: on Ctrl-C, after a checkpoint.
        FloatingPointError: a loss term is not finite.
    """
    cfg, run, accelerator = shop.cfg, shop.run, shop.accelerator
    main = accelerator.is_main_process
    if main:
        write_text(run / "config.yaml", cfg.dump())
        write_json(run / "provenance.json", shop.origin)
    accelerator.wait_for_everyone()
    output = Reconstruction(shop.tokenizer, cfg.TOKENIZER.RECONSTRUCTION, cfg.TOKENIZER.COMMITMENT).train()
    optimizers = _optimizers(output, cfg.TRAIN.WEIGHT_DECAY)
    shared, *stepped = accelerator.prepare(output, *optimizers)
    state = Trainable({"tokenizer": shop.tokenizer}, dict(zip(("matrices", "others"), stepped, strict=True)))
    first = 0 if shop.resume_from is None else int(load_checkpoint(shop.resume_from, state)["step"])
    steps, batch = cfg.TRAIN.STEPS, cfg.TRAIN.BATCH
    meter = Meter(accelerator)
    log = RunLog(run, first, steps, batch * accelerator.num_processes, muted=not main)
    with InterruptHandler() as interrupt, closing(log):
        for step in range(first, steps):
            rate = learning_rate(step, steps, cfg.TRAIN.LR, cfg.TRAIN.WARMUP, cfg.TRAIN.SCHEDULE)
            terms = shared(shop.training.drawn(batch, [cfg.SEED, step, accelerator.process_index]))
            accelerator.backward(terms["total"])
            if cfg.TRAIN.CLIP > 0:
                accelerator.clip_grad_norm_(output.parameters(), cfg.TRAIN.CLIP)
            for optimizer, share in zip(stepped, (1.0, FLAT_RATE), strict=True):
                for group in optimizer.param_groups:
                    group["lr"] = share * rate
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            meter.add(step, terms)
            done, last, logs = step + 1, step + 1 == steps, _due(step + 1, cfg.TRAIN.LOG_EVERY)
            log.stepped(done)
            stops = (logs or accelerator.num_processes == 1) and interrupt.requested_anywhere(accelerator)
            saves = last or stops or _due(done, cfg.TRAIN.CHECKPOINT_EVERY)
            if saves or logs:
                log.scalars(done, meter.read() | _health(shop, log, done) | {"learning_rate": rate})
            if main:
                with log.paused():
                    if saves:
                        save_checkpoint(run / "checkpoints", done, state)
                    if not last and _due(done, cfg.TRAIN.EVAL_EVERY):
                        log.scalars(done, _numbers(score_tokenizer(shop.tokenizer, shop.held_out)), "eval")
                        output.train()
            if stops and not last:
                raise Interrupted(f"stopped after step {done} of {steps}; its checkpoint is saved")
    accelerator.wait_for_everyone()
    return _finish(shop) if main else {}


def _finish(shop: Workshop) -> dict[str, Any]:
    run, tokenizer = shop.run, shop.tokenizer.eval()
    scores = score_tokenizer(tokenizer, shop.held_out)
    image = reconstructions(tokenizer, shop.held_out, shop.hand.faces)
    (run / "pictures").mkdir(exist_ok=True)
    cv2.imwrite(str(run / "pictures" / "reconstructions.png"), image[:, :, ::-1])
    write_json(run / "eval" / "scores.json", scores)
    save_tokenizer(run / FILE, tokenizer, {"config": shop.cfg.dump(), "metrics": scores, "provenance": shop.origin})
    return scores


def _optimizers(module: nn.Module, decay: float) -> list[torch.optim.Optimizer]:
    """Muon for matrices (Jordan 2024; steps scaled like AdamW's), AdamW for the rest."""
    matrices = [each for each in module.parameters() if each.ndim == 2 and min(each.shape) > 3]
    others = [each for each in module.parameters() if not (each.ndim == 2 and min(each.shape) > 3)]
    muon = torch.optim.Muon(matrices, lr=0.0, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(others, lr=0.0, weight_decay=0.0)]


def _health(shop: Workshop, log: RunLog, done: int) -> dict[str, float]:
    """What the codebook's averages say; a collapse is told at once."""
    health = shop.tokenizer.codebook.health()
    if health.advice:
        log.say(f"step {done}: {health.advice}")
    return {"perplexity": health.perplexity, "dead_codes": float(health.dead)}


def _fingerprint(poses: HandPoses) -> str:
    digest = hashlib.sha256()
    for each in poses:
        digest.update(each.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _numbers(scores: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in scores.items() if isinstance(value, int | float)}


def _due(done: int, every: int) -> bool:
    return every > 0 and done % every == 0
