"""The worst and the typical cases of an evaluation, as one picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fasthamer.data.mixture import HandDataset
from fasthamer.distill.evaluate import Predicted
from fasthamer.render.overlay import MESH_COLOURS, overlay_hand, sheet, skeletons_view, turned_view

COLUMNS = ("photo", "prediction", "mesh from the right", "skeletons (truth grey)", "skeletons from the right")


def case_sheet(
    dataset: HandDataset, predicted: Predicted, joints: NDArray, errors_mm: NDArray, faces: NDArray, rows: int = 4
) -> NDArray[np.uint8]:
    """`rows` worst samples, then `rows` around the median: photo, overlay, the mesh from another side, skeletons.

    Args:
        dataset: what was predicted, indexed by (epoch, index).
        predicted: from `fasthamer.distill.evaluate.predict`.
        joints: (N, 21, 3) metres, predicted, in the protocol's convention.
        errors_mm: (N,) what cases are ranked by, PA-MPJPE.
        faces: (1538, 3).
    """
    images, captions = [], []
    for title, sample in choose(errors_mm, rows):
        crop = np.ascontiguousarray(dataset[(0, sample)].image.permute(1, 2, 0).numpy())
        vertices, truth = predicted.vertices[sample], predicted.true_joints[sample, :, :3]
        pair = joints[sample], truth
        colour = MESH_COLOURS["prediction"]
        images.append(
            [
                crop,
                overlay_hand(crop, vertices, predicted.camera[sample], faces, colour),
                turned_view(vertices, faces, 90, colour=colour),
                skeletons_view(*pair),
                skeletons_view(*pair, degrees=90),
            ]
        )
        captions.append([f"{title}: sample {sample}", f"{errors_mm[sample]:.1f} mm PA-MPJPE", "", "", ""])
    return sheet(images, COLUMNS, captions)


def choose(errors: NDArray, rows: int) -> list[tuple[str, int]]:
    """Titles and samples: the largest errors, then those in the middle of the order; no sample twice."""
    order = [int(index) for index in np.argsort(-errors, kind="stable")]
    worst = order[:rows]
    rest = order[rows:]
    begin = min(max(len(order) // 2 - rows // 2 - len(worst), 0), max(len(rest) - rows, 0))
    return [("worst", each) for each in worst] + [("typical", each) for each in rest[begin : begin + rows]]
