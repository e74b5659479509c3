"""HaMeR's losses as pure functions: two tensors in, one number a sample (B,) out.

Like HaMeR's own they sum over points and coordinates and never average, so its weights keep their meaning. A mask of
zeros gives 0 *with* a gradient path: a sample without that label contributes nothing and breaks nothing. Token terms
are means, as in their papers, of samples that all have a target.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def points_l1(predicted: Tensor, target: Tensor, confidence: Tensor | None = None) -> Tensor:
    """Sum of absolute errors over a sample's points, each weighted by its confidence.

    Args:
        predicted: (B, N, D).
        target: (B, N, D), same frame and unit.
        confidence: (B, N); 0 drops a point. None trusts all.

    Returns:
        (B,)
    """
    error = (predicted - target).abs().sum(-1)  # (B, N)
    if confidence is not None:
        error = error.mul(confidence)
    return error.sum(-1)


def rooted_l1(
    predicted: Tensor, target: Tensor, root: tuple[Tensor, Tensor], confidence: Tensor | None = None
) -> Tensor:
    """`points_l1` after each side's own root has been subtracted.

    Args:
        predicted: (B, N, 3) metres.
        target: (B, N, 3) metres, any origin.
        root: (B, 3) of the predicted and of the target hand.
        confidence: (B, N).

    Returns:
        (B,)
    """
    return points_l1(predicted - root[0][:, None], target - root[1][:, None], confidence)


def squared_error(predicted: Tensor, target: Tensor, present: Tensor | None = None) -> Tensor:
    """Sum of squared errors over a sample's parameters: rotation matrices (not angles), or betas.

    Args:
        predicted: (B, ...).
        target: (B, ...), same shape.
        present: (B,) 1 where the target is a label, 0 where it is a placeholder.

    Returns:
        (B,)
    """
    error = (predicted - target).square().flatten(1).sum(-1)
    return error if present is None else error * present


def agreeing(predicted: Tensor, labels: Tensor, most: float) -> Tensor:
    """1 for a sample whose predicted keypoints agree with its labels, 0 for another; 1 for one without labels.

    Args:
        predicted: (B, N, 2) crop units.
        labels: (B, N, 3) crop units and confidence.
        most: crop units, the largest distance of an agreeing sample, a mean over its points weighted by confidence.

    Returns:
        (B,)
    """
    distance = (predicted - labels[..., :2]).norm(dim=-1)
    confidence = labels[..., 2]
    return ((distance * confidence).sum(-1) <= most * confidence.sum(-1)).to(distance.dtype)


def token_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of the tokens' classes, a mean over tokens (TokenHand, stage II).

    Args:
        logits: (B, M, K).
        labels: (B, M) int64.

    Returns:
        (B,)
    """
    return F.cross_entropy(logits.transpose(1, 2), labels, reduction="none").mean(1)


def token_divergence(logits: Tensor, target: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the predicted classes from soft labels, a mean over tokens.

    Args:
        logits: (B, M, K).
        target: (B, M, K) probabilities.

    Returns:
        (B,)
    """
    return F.kl_div(logits.log_softmax(-1), target, reduction="none").sum(-1).mean(1)


def token_relations(logits: Tensor, target: Tensor) -> Tensor:
    """DIST's loss (Huang et al. 2022, eq. 8 to 10): 1 - Pearson's correlation of probabilities with soft labels.

    Once over the classes of each token, and once over the samples of each class of a token; the second is one number
    for the batch, added to every sample. Rows that do not vary have correlation 0.

    Args:
        logits: (B, M, K).
        target: (B, M, K) probabilities.

    Returns:
        (B,) between 0 and 4.
    """
    predicted = logits.softmax(-1)
    within = 1 - _correlation(predicted, target, 2).mean(1)  # (B,)
    across = 1 - _correlation(predicted, target, 0).mean()
    return within + across


def _correlation(first: Tensor, second: Tensor, dim: int) -> Tensor:
    """Pearson's over one dimension, which goes."""
    first, second = (each - each.mean(dim, keepdim=True) for each in (first, second))
    together = (first * second).mean(dim)
    spread = first.square().mean(dim) * second.square().mean(dim)
    return together / (spread + 1e-16).sqrt()
