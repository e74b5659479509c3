"""HaMeR's losses as pure functions: two tensors in, one number a sample (B,) out.

Like HaMeR's own they sum over points and coordinates and never average, so its weights keep their meaning. A mask of
zeros gives 0 *with* a gradient path: a sample without that label contributes nothing and breaks nothing.
"""

from __future__ import annotations

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


def map_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error of two feature maps: a mean, as in Fast-HaMeR, unlike every sum above.

    Args:
        student: (B, C, h, w).
        teacher: (B, C, h, w), aligned and projected: see `Learner`.

    Returns:
        (B,)

    Raises:
        ValueError: the shapes differ; subtracting them would broadcast silently.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"the student's features are {tuple(student.shape)}, the teacher's {tuple(teacher.shape)}: "
            "a Learner aligns and projects them first"
        )
    return (student.float() - teacher.float()).square().flatten(1).mean(-1)
