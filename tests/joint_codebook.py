"""A codebook that several processes train together, each on its share of the hands; run by test_codebook.py."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fasthamer.students.tokenhand.codebook import Codebook

SIZE, WIDTH, TOKENS = 12, 4, 6  # K, D, M
STEPS = 12
DEAD_BELOW = 1.0  # tokens a batch; the average code gets 4


class Autoencoder(nn.Module):
    """The smallest encoder and decoder around a codebook."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(3, WIDTH), nn.Linear(WIDTH, 3)
        self.codebook = Codebook(SIZE, WIDTH, 0.9, DEAD_BELOW)

    def forward(self, points: Tensor) -> Tensor:
        """(B, M, 3) to the loss (B,)."""
        quantised = self.codebook(self.encoder(points))
        return (self.decoder(quantised.tokens) - points).abs().mean((1, 2)) + quantised.commitment


def hands(step: int, width: int) -> Tensor:
    """(8, M, width): the batch of all processes; from step 4 on it has another distribution, and codes die."""
    draw = torch.Generator().manual_seed(100 + step)
    return torch.randn(8, TOKENS, width, generator=draw) + (3.0 if step >= 4 else 0.0)


def train_codebook(share: slice) -> dict[str, Tensor]:
    """The codebook alone, on a share of the hands that need not be as large as the others'."""
    torch.manual_seed(0)
    codebook = Codebook(SIZE, WIDTH, 0.9, DEAD_BELOW)
    for step in range(STEPS):
        codebook(hands(step, WIDTH)[share])
    return codebook.state_dict()


def train_autoencoder(share: slice, broadcast: bool | None = None) -> dict[str, Tensor]:
    """With gradients, which DistributedDataParallel averages; `broadcast` = its broadcast_buffers, None without it."""
    torch.manual_seed(0)
    model = Autoencoder()
    shared = model if broadcast is None else DistributedDataParallel(model, broadcast_buffers=broadcast)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(STEPS):
        shared(hands(step, 3)[share]).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.state_dict()


def train_in_two(folder: Path) -> list[dict[str, dict[str, Tensor]]]:
    """What two processes end with: for each, the state dict of each way to train."""
    mp.spawn(_work, args=(str(folder),), nprocs=2)
    ways = ("uneven", "broadcast", "apart")
    return [{way: load_file(folder / f"{way}{rank}.safetensors") for way in ways} for rank in range(2)]


def _work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    half = slice(0, 4) if rank == 0 else slice(4, 8)
    states = {
        "uneven": train_codebook(slice(0, 5) if rank == 0 else slice(5, 8)),
        "broadcast": train_autoencoder(half, broadcast=True),
        "apart": train_autoencoder(half, broadcast=False),
    }
    for way, state in states.items():
        save_file(state, Path(folder) / f"{way}{rank}.safetensors")
    dist.destroy_process_group()
