"""A model's hands for a whole dataset, and their scores."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from fasthamer.data.mixture import HandDataset
from fasthamer.metrics.protocols import Hands, protocol_joints, score
from fasthamer.training.stream import BadSample, readable
from fasthamer.types import Batch


class Predicted(NamedTuple):
    """What a model said about each sample of a dataset, in its order, and what is true. N = samples."""

    joints: NDArray  # (N, 21, 3) metres, the model's own joints
    vertices: NDArray  # (N, 778, 3) metres
    camera: NDArray  # (N, 3) weak perspective
    keypoints_2d: NDArray  # (N, 21, 2) crop units
    true_joints: NDArray  # (N, 21, 4) with confidence
    true_vertices: NDArray | None  # (N, 778, 3); None unless all samples have them
    crop: NDArray  # (N, 2, 3) source pixels to crop pixels
    mirrored: NDArray  # (N,)


@torch.no_grad()
def predict(
    model: nn.Module, dataset: HandDataset, batch: int = 32, workers: int = 0, device: str | torch.device = "cpu"
) -> Predicted:
    """Runs the model over a dataset, once and in order; the model must be in eval mode.

    Args:
        model: a hand model.
        dataset: indexed by (epoch, index).
        batch: images at a time.
        workers: loader processes.
        device: where the model is.

    Raises:
        BadSample: the dataset refused a sample.
    """
    keys = [(0, index) for index in range(len(dataset))]
    groups = [keys[begin : begin + batch] for begin in range(0, len(keys), batch)]
    parts = []
    loader: DataLoader = DataLoader(dataset, batch_sampler=groups, num_workers=workers)  # type: ignore[arg-type]
    for samples in tqdm(readable(loader), "evaluating", len(groups), leave=False, mininterval=2, unit="batch"):
        samples = Batch(*samples)
        hand = model(samples.image.to(device))
        said = hand.joints, hand.vertices, hand.camera, hand.keypoints_2d
        known = samples.joints, samples.vertices, samples.has_vertices, samples.crop, samples.mirrored
        parts.append([each.float().cpu().numpy() for each in (*said, *known)])
    joints, vertices, camera, points, true_joints, true_vertices, has_vertices, crop, mirrored = (
        np.concatenate(each) for each in zip(*parts, strict=True)
    )
    truth = true_vertices if has_vertices.all() else None
    return Predicted(joints, vertices, camera, points, true_joints, truth, crop, mirrored)


def evaluate(predicted: Predicted, protocol: str, convention: str, regressor: NDArray) -> dict:
    """Scores of a prediction; metrics that the labels cannot give are absent.

    Args:
        predicted: from `predict`.
        protocol: one of `fasthamer.metrics.protocols.PROTOCOLS`.
        convention: what the labels mean by a joint: one of `fasthamer.hand.conventions.TIPS`.
        regressor: (16, 778) the hand model's joint regressor.

    Raises:
        BadSample: a joint without label.
    """
    known = predicted.true_joints[..., 3] > 0
    if not known.all():
        index = int(np.argmin(known.all(1)))
        raise BadSample(
            f"evaluation sample {index} has {int((~known[index]).sum())} joints without label: nothing to score"
        )
    joints = protocol_joints(predicted.joints, predicted.vertices, convention, regressor)
    truth = Hands(predicted.true_joints[..., :3], predicted.true_vertices)
    return {**score(Hands(joints, predicted.vertices), truth, protocol), "joints": convention}
