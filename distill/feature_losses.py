"""Losses of two feature maps as pure functions: two maps in, one number a sample (B,) out.

Both maps (B, C, h, w) are already on one grid and in one space: see `fasthamer.distill.learner`. All are means, so they
do not depend on the size of the map; each has a scale of its own, so KD.FEATURES goes with the choice.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import kl_div

from fasthamer.nn.sync_batch_norm import mean_over_processes

CWD_TEMPERATURE = 4.0


def map_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error, as in Fast-HaMeR."""
    return (student.float() - teacher.float()).square().flatten(1).mean(-1)


def pkd(student: Tensor, teacher: Tensor) -> Tensor:
    """PKD (Cao et al., NeurIPS 2022, eq. 4): half the squared error of maps that are standardised channel by channel.

    Its mean over the batch is 1 - Pearson's correlation, averaged over channels: scale and offset of a channel do not
    count.
    """
    return map_mse(standardised(student), standardised(teacher)) / 2


def cwd(student: Tensor, teacher: Tensor) -> Tensor:
    """CWD (Shu et al., ICCV 2021, eq. 5): where each channel is active, as a divergence over the map's cells.

    T² KL(teacher || student) of each channel's softmax over the cells with temperature T = 4, a mean over channels.
    """
    predicted, wanted = (each.float().flatten(2) / CWD_TEMPERATURE for each in (student, teacher))
    divergence = kl_div(predicted.log_softmax(-1), wanted.log_softmax(-1), reduction="none", log_target=True)
    return CWD_TEMPERATURE**2 * divergence.sum(-1).mean(-1)


def vkd(student: Tensor, teacher: Tensor) -> Tensor:
    """VkD (Miles et al., CVPR 2024): squared error from the standardised teacher.

    The student's map comes from an orthogonal projection, which cannot learn to do the student's work: see
    `OrthogonalProjection`.
    """
    return map_mse(student, standardised(teacher))


def standardised(features: Tensor) -> Tensor:
    """Mean 0 and variance 1 of each channel over samples, those of all processes, and cells.

    A channel that does not vary becomes 0.
    """
    features = features.float()
    centred = features - mean_over_processes(features.mean((0, 2, 3), keepdim=True))
    return centred / (mean_over_processes(centred.square().mean((0, 2, 3), keepdim=True)) + 1e-6).sqrt()


FEATURE_LOSSES = {"mse": map_mse, "pkd": pkd, "cwd": cwd, "vkd": vkd}  # by KD.FEATURE_LOSS


def same_shape(student: Tensor, teacher: Tensor) -> None:
    """Raises ValueError for maps of different shapes; subtracting them would broadcast silently."""
    if student.shape != teacher.shape:
        raise ValueError(
            f"the student's features are {tuple(student.shape)}, the teacher's {tuple(teacher.shape)}: "
            "a Learner aligns and projects them first"
        )
