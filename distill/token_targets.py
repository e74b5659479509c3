"""Meshes as lessons in tokens: which words a frozen tokenizer says for them, and how sure it is."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fasthamer.students.tokenhand.tokenizer import Tokenizer


class TokenTargets(NamedTuple):
    """Meshes in tokens."""

    labels: Tensor  # (B, M) int64, the nearest code of each token
    soft: Tensor  # (B, M, K) probabilities, the nearer a code the likelier


class TokenTargetEncoder(NamedTuple):
    """What the ground truth or any mesh teacher, which need not know of tokens, teaches a token student.

    The soft labels are softmax(-d^2 / (D T)) of the distances d between a token and all codes: what a Gaussian of
    variance D T / 2 around the token says of each.
    """

    tokenizer: Tokenizer  # frozen, on the student's device
    temperature: float  # T, in squared channels: KD.TEMPERATURE

    @torch.no_grad()
    def __call__(self, vertices: Tensor) -> TokenTargets:
        """(B, 778, 3) metres.

        Raises:
            FloatingPointError: a mesh that is not finite; the message names the sample.
        """
        with torch.autocast(vertices.device.type, enabled=False):
            try:
                tokens = self.tokenizer.encode(vertices.float()).tokens
            except ValueError as error:  # in the middle of a training: no mistyped setting
                raise FloatingPointError(f"no tokens to learn from: {error}") from None
            distances = self.tokenizer.codebook.distances(tokens)
        scale = tokens.shape[-1] * self.temperature
        return TokenTargets(distances.argmin(-1), (-distances / scale).softmax(-1))
