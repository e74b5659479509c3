"""One model on one dataset, reduced to what a report shows; predictions and images are not kept."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthamer.data.dataset import HandDataset
from fasthamer.distill.evaluate import Predicted, Rules
from fasthamer.distill.report.errors import Errors, errors_of
from fasthamer.distill.report.samples import Sample, choose, sample_of
from fasthamer.hand.mano import Hand
from fasthamer.metrics.protocols import protocol_joints

ROWS = 4  # best, typical and worst samples each
BUDGET = 2_500_000  # bytes of images and meshes in a page; plotly.js takes 4.8 MB of the 8
PER_IMAGE, PER_MESH = 20_000, 18_000  # bytes, about


class Entry(NamedTuple):
    """One model on one dataset."""

    model: str
    data: str  # the dataset and its split
    scores: dict[str, Any]  # as in scores.json
    errors: Errors
    samples: list[Sample]
    chosen: list[tuple[str, int]]  # titles and indices of the samples
    faces: NDArray  # (1538, 3)


def entry_of(
    model: str,
    data: str,
    scores: dict[str, Any],
    dataset: HandDataset,
    predicted: Predicted,
    rules: Rules,
    hand: Hand,
    chosen: list[tuple[str, int]] | None = None,
    rows: int = ROWS,
) -> Entry:
    """
    Args:
        model: its name in the page.
        data: the dataset's name in the page, with the split.
        scores: from `fasthamer.distill.evaluate.evaluate`.
        dataset: what was predicted; the images of the chosen samples are read again.
        predicted: from `fasthamer.distill.evaluate.predict`.
        rules: from `fasthamer.distill.evaluate.rules_for`.
        hand: of the model.
        chosen: the samples that another model's entry shows; None: chosen by this model's errors.
        rows: samples of each kind.

    Raises:
        FileNotFoundError, ValueError: an image that can no longer be read; the message names it.
    """
    left = predicted.mirrored > 0
    regressor, faces = hand.J_regressor.cpu().numpy(), np.asarray(hand.faces)
    joints = protocol_joints(predicted.joints, predicted.vertices, rules.joints, regressor, left)
    errors = errors_of(predicted, rules, joints)
    each = errors.samples
    chosen = choose(each, rows) if chosen is None else chosen
    samples = [
        sample_of(title, index, float(each[index]), dataset, predicted, joints, faces) for title, index in chosen
    ]
    return Entry(model, data, scores, errors, samples, chosen, faces)


def affordable_rows(entries: int, sets: int) -> int:
    """Samples of each kind with which a page of so many entries stays below its size."""
    images = sets * PER_IMAGE + entries * PER_IMAGE
    meshes = sets * PER_MESH + entries * PER_MESH
    return max(1, min(ROWS, BUDGET // (3 * (images + meshes))))
