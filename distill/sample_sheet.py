"""The worst and the typical samples of an evaluation, as one image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fasthamer.data.crop import transform
from fasthamer.data.dataset import HandDataset
from fasthamer.distill.evaluate import Predicted
from fasthamer.render.overlay import (
    MESH_COLOURS,
    draw_keypoints,
    overlay_hand,
    sheet,
    skeletons_view,
    turned_view,
)

COLUMNS = ("image", "prediction", "mesh from the right", "keypoints (truth grey)")
COLUMNS_3D = (*COLUMNS[:3], "skeletons (truth grey)", "skeletons from the right")
GREY = (150, 150, 150)


def sample_sheet(
    dataset: HandDataset,
    predicted: Predicted,
    joints: NDArray,
    errors: NDArray,
    unit: str,
    faces: NDArray,
    rows: int = 4,
) -> NDArray[np.uint8]:
    """`rows` worst samples, then `rows` around the median: image, overlay, the mesh from another side, the skeleton.

    Args:
        dataset: what was predicted, indexed by (epoch, index).
        predicted: from `fasthamer.distill.evaluate.predict`.
        joints: (N, 21, 3) metres, predicted, in the protocol's convention.
        errors: (N,) by which samples are ranked; NaN where there is no label: those come last.
        unit: what `errors` are, for the captions.
        faces: (1538, 3).
    """
    images, captions = [], []
    deep = bool((predicted.true_joints[..., 3] > 0).all(1).any())  # there are 3D labels to compare with
    for title, sample in choose(np.nan_to_num(errors, nan=-1.0), rows):
        crop = np.ascontiguousarray(dataset[(0, predicted.number(sample))].image.permute(1, 2, 0).numpy())
        vertices, colour = predicted.vertices[sample], MESH_COLOURS["prediction"]
        overlay = overlay_hand(crop, vertices, predicted.camera[sample], faces, colour)
        views = (
            _skeletons(joints[sample], predicted.true_joints[sample, :, :3])
            if deep
            else [_keypoints(crop, predicted, sample)]
        )
        images.append([crop, overlay, turned_view(vertices, faces, 90, colour=colour), *views])
        caption = "no labels" if np.isnan(errors[sample]) else f"{errors[sample]:.1f} {unit}"
        captions.append([f"{title}: sample {predicted.number(sample)}", caption, *[""] * (len(views) + 1)])
    return sheet(images, COLUMNS_3D if deep else COLUMNS, captions)


def choose(errors: NDArray, rows: int) -> list[tuple[str, int]]:
    """Titles and samples: the largest errors, then those in the middle of the order; no sample twice."""
    order = [int(index) for index in np.argsort(-errors, kind="stable")]
    worst = order[:rows]
    rest = order[rows:]
    begin = min(max(len(order) // 2 - rows // 2 - len(worst), 0), max(len(rest) - rows, 0))
    return [("worst", each) for each in worst] + [("typical", each) for each in rest[begin : begin + rows]]


def _skeletons(joints: NDArray, truth: NDArray) -> list[NDArray[np.uint8]]:
    return [skeletons_view(joints, truth), skeletons_view(joints, truth, degrees=90)]


def _keypoints(crop: NDArray[np.uint8], predicted: Predicted, sample: int) -> NDArray[np.uint8]:
    truth = predicted.true_keypoints[sample]
    image = draw_keypoints(crop, transform(predicted.crop[sample], truth[:, :2]), GREY, truth[:, 2] > 0)
    return draw_keypoints(image, transform(predicted.crop[sample], predicted.keypoints[sample]))
