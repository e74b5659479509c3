"""A shared codebook: nearest neighbours, moving averages of the assigned tokens, and resets of dead codes."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

SMOOTHING = 1e-5  # Laplace's, of the codes' counts
NEW = 2.0  # times `dead_below`: the initial count of a new code, so that one poor batch does not reset it again
SETTLED = 200  # batches after which a codebook can be called collapsed
COLLAPSED = 0.1  # perplexity, as a share of what it could be, below which it is


class Quantised(NamedTuple):
    """Tokens (B, M, D) after quantisation."""

    tokens: Tensor  # (B, M, D) the nearest codes; their gradient goes to the tokens (straight through)
    indices: Tensor  # (B, M) int64
    commitment: Tensor  # (B,) squared distance of tokens and codes, a mean over tokens and channels


class Health(NamedTuple):
    """How a codebook is used."""

    perplexity: float  # codes in use, evenly counted: 1 to K; 0 where no token was counted
    dead: int  # codes that no token chose
    advice: str  # one sentence, what to change; empty unless the codebook has collapsed


class Codebook(nn.Module):
    """K codes of width D, trained by moving averages instead of gradients (van den Oord 2017, appendix A.1).

    In train mode, `forward` moves the codes towards the batch: counts and sums of the tokens that chose each code are
    averaged with `decay` and divided, counts with Laplace smoothing (as PCT, Geng et al. 2023). A code whose average
    count falls below `dead_below` moves onto a random token of the batch. A code that is never chosen and never
    reset stays constant for ln(1 / SMOOTHING) / (1 - decay) batches; then the smoothing shrinks it to the origin.

    With torch.distributed, counts, sums and candidates are those of all processes, whose batches may differ in size:
    every process holds the codebook that the joint batch would give. DistributedDataParallel may broadcast
    the buffers or not, they are the same anyway. Every batch moves the codes, also where gradients are accumulated.

    Args:
        size: K.
        width: D.
        decay: of the averages, in a batch.
        dead_below: tokens a (joint) batch; 0 never moves a code.

    Raises:
        ValueError: a decay outside [0, 1), or a negative threshold.
    """

    codes: Tensor  # (K, D)
    counts: Tensor  # (K,) average number of tokens a batch; of a new code, NEW * dead_below
    sums: Tensor  # (K, D) average of their sum
    chosen: Tensor  # (K,) average number of tokens a batch from 0 on, whether the code was moved or not
    steps: Tensor  # () training batches seen

    def __init__(self, size: int, width: int, decay: float, dead_below: float) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"TOKENIZER.DECAY is a decay in [0, 1), not {decay}")
        if dead_below < 0:
            raise ValueError(f"TOKENIZER.RESET_BELOW is a share of at least 0 (never), not {dead_below}")
        self.decay, self.dead_below = decay, dead_below
        codes = torch.randn(size, width)
        self.register_buffer("codes", codes)
        self.register_buffer("counts", torch.ones(size))
        self.register_buffer("sums", codes.clone())
        self.register_buffer("chosen", torch.zeros(size))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, tokens: Tensor) -> Quantised:
        """The nearest codes; in train mode it also moves the codes.

        Args:
            tokens: (B, M, D).
        """
        flat = tokens.detach().float().flatten(0, 1)
        if self.training and self.steps == 0:
            self.start(flat)
        indices = self.distances(flat).argmin(1)
        nearest = self.codes[indices].unflatten(0, tokens.shape[:2])
        commitment = (tokens - nearest).square().mean((1, 2))
        if self.training:
            self._follow(flat, indices)
        through = tokens + (nearest - tokens).detach()
        return Quantised(through, indices.unflatten(0, tokens.shape[:2]), commitment)

    def distances(self, tokens: Tensor) -> Tensor:
        """Squared distances (..., D) to (..., K), at least 0, up to rounding: not exactly 0 for a code itself.

        In 32 bits under autocast too: 16 bits do not resolve the distances of two near codes.
        """
        with torch.autocast(tokens.device.type, enabled=False):
            tokens, codes = tokens.float(), self.codes.float()
            squares = tokens.square().sum(-1, keepdim=True) + codes.square().sum(-1)
            return (squares - 2 * (tokens @ codes.T)).clamp(min=0)

    def health(self, counts: Tensor | None = None) -> Health:
        """How the codes are used, and what to do once it is clear that hardly any are.

        Args:
            counts: (K,) how many tokens of an evaluation chose each code; None = the average of the training batches,
                where a code is dead if nothing ever chose it, or so long ago that it is forgotten.
        """
        if counts is None:
            forgotten = (1 - self.decay) * self.decay**SETTLED  # the weight of one token after so many batches
            counts, seen = self.chosen, float(self.chosen.sum()) / (1 - self.decay)
        else:
            forgotten, seen = 0.0, float(counts.sum())
        size, used, dead = len(self.codes), perplexity(counts).item(), int((counts <= forgotten).sum())
        if self.steps < SETTLED or used >= COLLAPSED * min(size, seen):
            return Health(used, dead, "")
        remedy = "" if self.dead_below else "set TOKENIZER.RESET_BELOW to 0.1, so that dead codes move; "
        advice = (
            f"the codebook has collapsed: perplexity {used:.1f} of {size}, {dead} codes dead; {remedy}lower TRAIN.LR "
            "or TOKENIZER.COMMITMENT, or TOKENIZER.DECAY so that codes follow faster, or take fewer TOKENIZER.CODES"
        )
        return Health(used, dead, advice)

    @torch.no_grad()
    def start(self, tokens: Tensor) -> None:
        """Sets the codes to tokens (N, D) of the first batch, with small counts, so that they settle quickly."""
        self._reset(torch.arange(len(self.codes), device=tokens.device), tokens, max(1.0, NEW * self.dead_below))

    @torch.no_grad()
    def _follow(self, tokens: Tensor, indices: Tensor) -> None:
        counts = tokens.new_zeros(len(self.codes)).index_add_(0, indices, tokens.new_ones(len(tokens)))
        sums = torch.zeros_like(self.codes).index_add_(0, indices, tokens)
        if _together():
            dist.all_reduce(counts)
            dist.all_reduce(sums)
        self.chosen.lerp_(counts, 1 - self.decay)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        total = self.counts.sum()
        smoothed = (self.counts + SMOOTHING) / (total + SMOOTHING * len(self.counts)) * total
        self.codes.copy_(self.sums / smoothed[:, None])
        self.steps += 1
        dead = torch.nonzero(self.counts < self.dead_below)[:, 0]
        if len(dead):
            self._reset(dead, tokens, NEW * self.dead_below)

    def _reset(self, which: Tensor, tokens: Tensor, count: float) -> None:
        """Sets codes to random tokens of the joint batch, with the average `count`."""
        codes = self.random_tokens(tokens, len(which))
        self.codes[which] = codes
        self.counts[which] = count
        self.sums[which] = codes * count

    def random_tokens(self, tokens: Tensor, number: int) -> Tensor:
        """Random tokens (number, D) of the joint batch, the same in every process; none twice while there are others.

        Every process fills in its own tokens, and one sum over the processes exchanges them.
        """
        sizes, rank = _sizes(tokens)
        generator = torch.Generator().manual_seed(int(self.steps))  # on the CPU: the same whatever the device
        rounds = -(-number // sum(sizes))
        drawn = torch.cat([torch.randperm(sum(sizes), generator=generator) for _ in range(rounds)])[:number]
        index = drawn.to(tokens.device) - sum(sizes[:rank])  # within this process's batch, if it is in there
        mine = (index >= 0) & (index < len(tokens))
        some = tokens.new_zeros(number, tokens.shape[1])
        some[mine] = tokens[index[mine]]
        if _together():
            dist.all_reduce(some)
        return some


def perplexity(counts: Tensor) -> Tensor:
    """How many codes are in use, evenly counted: exp of the entropy of counts (K,); between 1 and K, 0 of no count."""
    total = counts.sum()
    shares = counts / total.clamp(min=torch.finfo(torch.float32).tiny)
    return torch.special.entr(shares).sum().exp() * (total > 0)


def _sizes(tokens: Tensor) -> tuple[list[int], int]:
    """How many tokens each process has, and which process this is."""
    if not _together():
        return [len(tokens)], 0
    sizes, rank = torch.zeros(dist.get_world_size(), dtype=torch.int64, device=tokens.device), dist.get_rank()
    sizes[rank] = len(tokens)
    dist.all_reduce(sizes)
    return sizes.tolist(), rank


def _together() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
