"""The samples that a report shows: their images, and the aligned meshes as numbers for the 3D views."""

from __future__ import annotations

import base64
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from fasthamer.data.crop import transform
from fasthamer.data.dataset import HandDataset
from fasthamer.distill.evaluate import Predicted
from fasthamer.files.images import encode_image
from fasthamer.hand.conventions import OPENPOSE_BONES
from fasthamer.metrics.alignment import fit
from fasthamer.render.overlay import MESH_COLOURS, draw_keypoints, overlay_hand

SIDE = 240  # pixels of an image in the page, at most
QUALITY = 82  # of its JPEG
GREY = (150, 150, 150)


class Sample(NamedTuple):
    """One model's prediction for one sample."""

    title: str  # best, typical, worst or unlabelled
    name: str  # the dataset's
    error: float  # NaN without a label
    image: str  # the crop, as a data URI
    overlay: str  # the same with the predicted mesh, without 3D labels with the keypoints
    view: dict[str, Any] | None  # see `aligned_view`; None without 3D labels


def choose(errors: NDArray[np.float64], rows: int) -> list[tuple[str, int]]:
    """Titles and samples: `rows` each with the smallest, the middle and the largest errors; no sample twice.

    Args:
        errors: (N,); NaN for samples without a label, which are shown only where no sample has one.
        rows: of each kind.
    """
    order = [int(sample) for sample in np.argsort(errors, kind="stable")[: np.isfinite(errors).sum()]]
    if not order:
        return [("unlabelled", sample) for sample in range(min(rows, len(errors)))]
    best, rest = order[:rows], order[rows:]
    worst, rest = rest[: -rows - 1 : -1], rest[:-rows]
    begin = max((len(rest) - rows + 1) // 2, 0)
    kinds = (("best", best), ("typical", rest[begin : begin + rows]), ("worst", worst))
    return [(title, sample) for title, group in kinds for sample in group]


def sample_of(
    title: str, index: int, error: float, dataset: HandDataset, predicted: Predicted, joints: NDArray, faces: NDArray
) -> Sample:
    """Reads the image of one sample again and renders it; arguments as `fasthamer.distill.report.entry.entry_of`."""
    crop = np.ascontiguousarray(dataset[(0, predicted.number(index))].image.permute(1, 2, 0).numpy())
    view = aligned_view(predicted, joints, index)
    colour = MESH_COLOURS["prediction"]
    overlay = overlay_hand(crop, predicted.vertices[index], predicted.camera[index], faces, colour)
    if view is None:
        truth = predicted.true_keypoints[index]
        overlay = draw_keypoints(overlay, transform(predicted.crop[index], truth[:, :2]), GREY, truth[:, 2] > 0.5)
        overlay = draw_keypoints(overlay, transform(predicted.crop[index], predicted.keypoints[index]))
    return Sample(title, dataset.sample_name(predicted.number(index)), error, _data_uri(crop), _data_uri(overlay), view)


def aligned_view(predicted: Predicted, joints: NDArray, index: int) -> dict[str, Any] | None:
    """The predicted mesh aligned with the labels, and the labels, in the crop's axes around their centre.

    Aligned by rotation, scale and translation: of the vertices, or of the joints where the labels have no mesh.

    Returns:
        `prediction`: x, y, z of the vertices, each (778,) mm to 0.1; `truth`: the same, and `error` (778,) mm; without
        labelled meshes `truth` is the skeleton, its bones separated by None, and there is no `error`. None where
        not all joints have 3D labels.
    """
    true_joints = predicted.true_joints[index].astype(np.float64)
    if not (true_joints[:, 3] > 0).all():
        return None
    vertices = predicted.vertices[index].astype(np.float64)
    moved, fixed = joints[index], true_joints[:, :3]
    if predicted.true_vertices is not None:
        moved, fixed = vertices, predicted.true_vertices[index].astype(np.float64)
    centre = fixed.mean(0)
    aligned = fit(moved[None], fixed[None], reflection=False).apply(vertices[None])[0] - centre
    if predicted.true_vertices is None:
        return {"prediction": _columns(aligned), "truth": _bones(true_joints[:, :3] - centre)}
    error = np.linalg.norm(aligned - (fixed - centre), axis=1)
    return {"prediction": _columns(aligned), "truth": _columns(fixed - centre), "error": _millimetres(error)}


def _columns(points: NDArray) -> dict[str, list[float]]:
    return {axis: _millimetres(column) for axis, column in zip("xyz", points.T, strict=True)}


def _bones(joints: NDArray) -> dict[str, list[float | None]]:
    columns = _columns(joints)
    return {
        axis: [value for a, b in OPENPOSE_BONES for value in (values[a], values[b], None)]
        for axis, values in columns.items()
    }


def _millimetres(metres: NDArray) -> list[float]:
    return [round(float(value), 1) + 0.0 for value in 1000 * metres]  # + 0.0: -0.0 is 0.0


def _data_uri(image: NDArray[np.uint8]) -> str:
    height, width = image.shape[:2]
    scale = SIDE / max(height, width)
    if scale < 1:
        image = cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return "data:image/jpeg;base64," + base64.b64encode(encode_image(image, ".jpg", QUALITY)).decode()
