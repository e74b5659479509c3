"""Token targets: the codes that a frozen tokenizer assigns to a mesh, as hard and as soft labels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fasthamer.students.tokenhand.tokenizer import Tokenizer


class TokenTargets(NamedTuple):
    """Labels for the M tokens of each mesh, over K codes."""

    labels: Tensor  # (B, M) int64, the nearest code of each token
    soft: Tensor  # (B, M, K) probabilities, higher for nearer codes; NaN for a mesh that is not finite


class TokenTargetEncoder(NamedTuple):
    """Encodes ground-truth meshes, or those of any mesh teacher, as targets for a token student.

    The soft labels are softmax(-d^2 / (D T)) of the distances d between a token and all codes, D the width of a code:
    the posterior of the codes under a Gaussian of variance D T / 2 around each.
    """

    tokenizer: Tokenizer  # frozen, on the student's device
    temperature: float  # T, in squared channels: KD.TEMPERATURE

    @torch.no_grad()
    def __call__(self, vertices: Tensor) -> TokenTargets:
        """
        Args:
            vertices: (B, 778, 3) metres.
        """
        finite = vertices.isfinite().flatten(1).all(1)  # (B,); stays on the device, `encode` would wait for it
        known = torch.where(finite[:, None, None], vertices.float(), 0.0)
        with torch.autocast(vertices.device.type, enabled=False):
            tokens = self.tokenizer.encoder(self.tokenizer.align(known))
            distances = self.tokenizer.codebook.distances(tokens)
        scale = tokens.shape[-1] * self.temperature
        soft = (-distances / scale).softmax(-1)
        return TokenTargets(distances.argmin(-1), torch.where(finite[:, None, None], soft, float("nan")))
