"""A tokenizer in training: meshes, their reconstruction loss, two optimizers and the codebook's averages."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from yacs.config import CfgNode

from fasthamer.data.poses import HandPoses
from fasthamer.hand.mano import Hand
from fasthamer.hand.rotation import random_rotations
from fasthamer.hand.skinning import Skinning
from fasthamer.students.tokenhand.tokenizer import Tokenizer
from fasthamer.training.checkpoint import Trainable
from fasthamer.training.guard import Skip, StepGuard
from fasthamer.training.schedule import learning_rate
from fasthamer.training.trainer import Report
from fasthamer.types import ManoParams

UNIT = 0.1  # metres: the reconstruction loss is in decimetres
FLAT_RATE = 0.8  # learning rate of biases, norms and embeddings, relative to that of the matrices


class Meshes:
    """Meshes of a table of poses, each turned by a random rotation."""

    def __init__(self, hand: Hand, poses: HandPoses, device: torch.device) -> None:
        self.skin = Skinning(hand).to(device)
        self.poses = HandPoses(*(each.to(device) for each in poses))

    def __len__(self) -> int:
        return len(self.poses.hand_pose)

    @torch.no_grad()
    def of(self, rows: Tensor, rotations: Tensor) -> Tensor:
        """Rows (B,) with rotations (B, 3, 3) as meshes (B, 778, 3) in metres."""
        device = self.poses.betas.device
        rows, rotations = rows.to(device), rotations.to(device)
        params = ManoParams(rotations[:, None], self.poses.hand_pose[rows], self.poses.betas[rows])
        return self.skin(params)[0]

    def drawn(self, number: int, seed: list[int]) -> Tensor:
        """(number, 778, 3) metres: random rows and rotations, a function of the seed alone."""
        sequence = np.random.SeedSequence(seed)
        generator = torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1)))
        rows = torch.randint(len(self), (number,), generator=generator)
        return self.of(rows, random_rotations(number, generator))

    def all(self, seed: int) -> Tensor:
        """(N, 778, 3) metres: every row once."""
        generator = torch.Generator().manual_seed(seed)
        return self.of(torch.arange(len(self)), random_rotations(len(self), generator))


class Reconstruction(nn.Module):
    """The tokenizer with its loss, as one module: the terms of a batch of meshes (TokenHand, eq. of stage I)."""

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


class MeshFeed:
    """Batches of random meshes; batch k of a process is a function of (seed, k, rank)."""

    position = None
    skipped: tuple[str, ...] = ()

    def __init__(self, meshes: Meshes, batch: int, seed: int, rank: int) -> None:
        self.meshes, self.batch, self.seed, self.rank = meshes, batch, seed, rank

    def describe(self, sample: int) -> str:
        """Meshes have no number of their own."""
        return f"mesh {sample}"

    def batches(self, first_batch: int = 0, position: None = None) -> Generator[Tensor, None, None]:
        """(B, 778, 3) metres, on the device of the meshes."""
        number = first_batch
        while True:
            yield self.meshes.drawn(self.batch, [self.seed, number, self.rank])
            number += 1


class TokenizerTrainer:
    """A `fasthamer.training.trainer.Trainer` for a tokenizer, which is the `model` to keep."""

    def __init__(self, cfg: CfgNode, tokenizer: Tokenizer, accelerator: Accelerator) -> None:
        """
        Args:
            cfg: the resolved config; TRAIN and the weights of TOKENIZER are used.
            tokenizer: on the accelerator's device.
            accelerator: devices, precision, accumulation, processes.
        """
        self.settings, self.accelerator, self.model = cfg.TRAIN, accelerator, tokenizer
        self.module = Reconstruction(tokenizer, cfg.TOKENIZER.RECONSTRUCTION, cfg.TOKENIZER.COMMITMENT).train()
        self.shared, *optimizers = accelerator.prepare(self.module, *_optimizers(self.module, cfg.TRAIN.WEIGHT_DECAY))
        self.optimizers = dict(zip(("matrices", "others"), optimizers, strict=True))
        self.guard = StepGuard(accelerator, self.module, optimizers, cfg.TRAIN.CLIP)

    def begin(self, step: int, steps: int) -> None:
        """Sets both learning rates of an optimizer step."""
        train = self.settings
        self.rate = learning_rate(step, steps, train.LR, train.WARMUP, train.SCHEDULE)
        for optimizer, share in zip(self.optimizers.values(), (1.0, FLAT_RATE), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = share * self.rate
        self.guard.begin()

    def training_step(self, batch: Tensor, number: int) -> dict[str, Tensor]:
        """Reconstructs meshes (B, 778, 3); returns the weighted terms and their `total`."""
        with self.accelerator.accumulate(self.shared):
            terms = self.shared(batch)
            self.accelerator.backward(terms["total"])
            self.guard.step(terms, [("mesh", batch)])
        return terms

    def end(self, done: int) -> Skip | None:
        """Nothing follows a step."""
        return self.guard.skip

    def report(self) -> Report:
        """How the codes are used, with a warning once the codebook has collapsed, and the learning rate."""
        health = self.model.codebook.health()
        values = {"perplexity": health.perplexity, "dead_codes": float(health.dead), "learning_rate": self.rate}
        return Report(values, health.advice)

    @property
    def state(self) -> Trainable:
        """What a checkpoint holds."""
        return Trainable({"tokenizer": self.model}, self.optimizers)


def _optimizers(module: nn.Module, decay: float) -> list[torch.optim.Optimizer]:
    """Muon for matrices (Jordan 2024; steps scaled like AdamW's), AdamW for the rest."""
    matrices = [each for each in module.parameters() if each.ndim == 2 and min(each.shape) > 3]
    others = [each for each in module.parameters() if not (each.ndim == 2 and min(each.shape) > 3)]
    muon = torch.optim.Muon(matrices, lr=0.0, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(others, lr=0.0, weight_decay=0.0)]
