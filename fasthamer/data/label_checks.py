"""What can be wrong with one hand's labels, found without a model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fasthamer.camera import project_pixels
from fasthamer.data.plausible import check_in_front
from fasthamer.data.readers.base import check_metres
from fasthamer.data.sample import Labels
from fasthamer.hand.conventions import tip_vertices
from fasthamer.types import Batch

REPROJECTION = 1.0  # pixels by which labelled keypoints and projected joints may differ
TIPS_APART = 0.005  # metres between the mesh's fingertips and the labelled ones; conventions differ by less
BETAS = 10.0  # of MANO's shape, in standard deviations; nobody's hand is that unusual
_FINGERTIPS = [4, 8, 12, 16, 20]


def item_problems(item: Batch) -> Iterator[str]:
    """What is wrong with one item of a dataset, made without augmentation."""
    for name, values in item._asdict().items():
        if values.is_floating_point() and not values.isfinite().all():
            yield f"{name} is not finite"
    joints = item.joints.double().numpy()
    if joints[0, 3] > 0 and joints[9, 3] > 0:
        try:
            check_metres(joints[:, :3], "joints")
        except ValueError as error:
            yield str(error)
    points, known = item.keypoints_2d[:, :2], item.keypoints_2d[:, 2] > 0
    if known.any() and not (points[known].abs() < 0.5).all(1).any():
        yield "no labelled keypoint lies in the crop"
    if item.has_betas and float(item.betas.abs().max()) > BETAS:
        yield f"betas reach {float(item.betas.abs().max()):.1f} standard deviations"
    if item.has_vertices:
        extent = np.ptp(item.vertices.double().numpy(), axis=0).max()
        if not 0.05 < extent < 0.4:
            yield f"the mesh measures {extent:.4g} m"


def sample_problems(labels: Labels, box: tuple[np.ndarray, float], width: int, height: int) -> Iterator[str]:
    """What does not fit one hand's image.

    Args:
        labels: as the files have them.
        box: centre and side of the crop, pixels.
        width, height: of the image.
    """
    (x, y), side = box
    if not (0 <= x < width and 0 <= y < height):
        yield f"the box's centre ({x:.0f}, {y:.0f}) lies outside of the {width}x{height} image"
    if not 2 <= side < 8 * max(width, height):
        yield f"the crop's side is {side:.0f} pixels in a {width}x{height} image"
    if labels.keypoints is not None and (known := labels.keypoints[:, 2] > 0).any():
        points = labels.keypoints[known, :2]
        inside = (points >= 0).all(1) & (points < (width, height)).all(1)
        if not inside.any():
            yield f"all {len(points)} keypoints lie outside of the {width}x{height} image"
    if labels.joints is not None and (known := labels.joints[:, 3] > 0).any():
        try:
            check_in_front(labels.joints[known, :3], "joints")
        except ValueError as error:
            yield str(error)


def reprojection(labels: Labels, intrinsics: np.ndarray) -> float | None:
    """Pixels by which the worst labelled keypoint is off its projected joint; None where either is not labelled.

    Args:
        labels: joints in the frame of the image's camera.
        intrinsics: (3, 3) pixels.
    """
    if labels.keypoints is None or labels.joints is None:
        return None
    known = (labels.keypoints[:, 2] > 0) & (labels.joints[:, 3] > 0)
    if not known.any():
        return None
    projected = project_pixels(labels.joints[known, :3], intrinsics)
    return float(np.linalg.norm(projected - labels.keypoints[known, :2], axis=1).max())


def tips_apart(labels: Labels, convention: str) -> float | None:
    """Metres between the labelled fingertips and those of the labelled mesh, the worst; None where either is missing.

    Args:
        labels: of one hand.
        convention: of its fingertips, see `fasthamer.hand.conventions`.
    """
    if labels.vertices is None or labels.joints is None or not (labels.joints[_FINGERTIPS, 3] > 0).all():
        return None
    of_mesh = labels.vertices[list(tip_vertices(convention))]
    return float(np.linalg.norm(of_mesh - labels.joints[_FINGERTIPS, :3], axis=1).max())
