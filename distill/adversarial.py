"""HaMeR's adversarial prior: a discriminator that learns which poses and shapes are hands (least-squares GAN)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.func import functional_call

from fasthamer.data.poses import drawn_poses, read_poses
from fasthamer.types import N_BETAS, N_HAND_JOINTS, ManoParams

Sampler = Callable[[np.random.Generator, int], tuple[Tensor, Tensor]]  # hand_pose (N, 15, 3, 3) and betas (N, 10)


class Discriminator(nn.Module):
    """Scores each joint's rotation, all joints together, and the shape: 17 scores, 1 for real, 0 for predicted."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(9, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())  # shared by joints
        self.joint = nn.ModuleList(nn.Linear(32, 1) for _ in range(N_HAND_JOINTS))
        self.pose = nn.Sequential(
            nn.Linear(32 * N_HAND_JOINTS, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 1)
        )
        self.shape = nn.Sequential(nn.Linear(N_BETAS, 10), nn.ReLU(), nn.Linear(10, 5), nn.ReLU(), nn.Linear(5, 1))
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, hand_pose: Tensor, betas: Tensor) -> Tensor:
        """
        Args:
            hand_pose: (B, 15, 3, 3) absolute rotations.
            betas: (B, 10).

        Returns:
            (B, 17)
        """
        joints = self.embed(hand_pose.flatten(2))  # (B, 15, 32)
        each = torch.cat([score(joints[:, number]) for number, score in enumerate(self.joint)], dim=1)
        return torch.cat([each, self.shape(betas), self.pose(joints.flatten(1))], dim=1)


class AdversarialLoss:
    """Student against discriminator: `generator_loss` is the student's term, `discriminator_step` trains the other.

    Both losses are means over the batch and multiplied by the weight, as in HaMeR.
    """

    def __init__(self, weight: float, rate: float, decay: float, sampler: Sampler, accelerator: Accelerator) -> None:
        """
        Args:
            weight: LOSS.ADVERSARIAL.
            rate: the discriminator's learning rate, constant.
            decay: its weight decay.
            sampler: draws real hands.
            accelerator: carries devices and processes.
        """
        self.weight, self.sampler, self.accelerator = weight, sampler, accelerator
        self.discriminator = Discriminator()
        optimizer = torch.optim.AdamW(self.discriminator.parameters(), lr=rate, weight_decay=decay)
        self.shared, self.optimizer = accelerator.prepare(self.discriminator, optimizer)

    def generator_loss(self, mano: ManoParams) -> Tensor:
        """How far the student's hands are from being judged real; moves the student only."""
        frozen = {name: value.detach() for name, value in self.discriminator.named_parameters()}
        scores = functional_call(self.discriminator, frozen, (mano.hand_pose, mano.betas))
        return self.weight * (scores - 1).square().sum(1).mean()

    def discriminator_step(self, mano: ManoParams, random: np.random.Generator, taken: bool = True) -> Tensor:
        """One optimizer step of the discriminator: predicted hands against real ones.

        Args:
            mano: the student's hands.
            random: the same in every process; each takes its part of the real hands that it draws.
            taken: whether the student has taken its step; if not, this one is not taken either.
        """
        fake = mano.hand_pose.detach().float(), mano.betas.detach().float()
        n, rank, processes = len(fake[0]), self.accelerator.process_index, self.accelerator.num_processes
        real = [drawn[rank * n :][:n] for drawn in self.sampler(random, n * processes)]
        both = [torch.cat([one, other.to(one.device)]) for one, other in zip(fake, real, strict=True)]
        scores = self.shared(*both)  # one pass: two before a backward would confuse DistributedDataParallel
        loss = self.weight * (scores[:n].square().sum(1) + (scores[n:] - 1).square().sum(1)).mean()
        self.accelerator.backward(loss)
        if taken:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()


def mocap_sampler(path: str | Path) -> Sampler:
    """Real hands from a parameter file.

    Args:
        path: `.npz` of `hand_pose` and `betas`, see `read_poses`.

    Raises:
        FileNotFoundError, ValueError: no such file, or not those arrays.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"LOSS.MOCAP names {str(path)!r}, which is no file; leave it empty to sample the hand's own poses"
        )
    rotations, betas = read_poses(path)
    if betas is None:
        raise ValueError(f"{path} has no betas: a mocap file is an .npz with hand_pose (N, 48) and betas (N, 10)")

    def sample(random: np.random.Generator, n: int) -> tuple[Tensor, Tensor]:
        chosen = random.integers(len(betas), size=n)
        return torch.from_numpy(rotations[chosen]), torch.from_numpy(betas[chosen])

    return sample


def procedural_sampler(random: np.random.Generator, n: int) -> tuple[Tensor, Tensor]:
    """Real hands as the procedural hand's sampler draws them, within anatomical limits."""
    return drawn_poses(random for _ in range(n))
