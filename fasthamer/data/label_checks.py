"""Checks of hand labels that need no model: size, depth, side, and agreement of image, keypoints, joints and mesh."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np

from fasthamer.camera import project_pixels
from fasthamer.data.crop import Box
from fasthamer.data.sample import Labels
from fasthamer.hand.conventions import tip_vertices
from fasthamer.types import Batch

REPROJECTION = 1.0  # pixels by which labelled keypoints and projected joints may differ
TIPS_APART = 0.005  # metres between the mesh's fingertips and the labelled ones; conventions differ by less
BETAS = 10.0  # of MANO's shape, in standard deviations; the largest plausible
WITNESSES = 32  # samples of a dataset whose handedness is computed
_ENOUGH = 8  # hands with joints that `check_sides` needs
_DOUBT = 0.5  # of the mean of `handedness`: about 3 for natural poses, down to -1.4 for single hands
_FINGERTIPS = [4, 8, 12, 16, 20]


def check_metres(joints: np.ndarray, where: str) -> None:
    """Raises for a hand that is not of human size.

    Args:
        joints: (21, 3) in OpenPose order, expected in metres.
        where: the file and record for the message.

    Raises:
        ValueError: the palm is shorter than 3 or longer than 20 cm.
    """
    palm = float(np.linalg.norm(joints[9] - joints[0]))
    if not 0.03 < palm < 0.2:
        millimetres = " (are these millimetres?)" if 0.03 < palm / 1000 < 0.2 else ""
        raise ValueError(f"{where}: wrist to middle knuckle is {palm:.4g} m, a hand's is about 0.09{millimetres}")


def check_in_front(joints: np.ndarray, where: str) -> None:
    """Raises for a hand behind the camera.

    Args:
        joints: (N, 3) camera frame, x right, y down, z forward.
        where: the file and record, for the message.

    Raises:
        ValueError: a joint is not in front.
    """
    nearest = float(joints[:, 2].min())
    if nearest <= 0:
        raise ValueError(
            f"{where}: a joint is at depth {nearest:.3g}, behind the camera: are its axes those of OpenGL?"
        )


def handedness(joints: np.ndarray) -> float:
    """A score above 0 for the joints of a right hand, below 0 for a left one.

    Fingers bend about axes that point across the palm: on a right hand from pinky to index, on a left one the other
    way. The result is the sum over index to pinky of the sines of the bends at the two outer joints.

    Args:
        joints: (21, 3) OpenPose order, any right-handed frame.
    """
    across = _unit(joints[5] - joints[17])
    bones = _unit(np.diff(joints[5:].reshape(4, 4, 3), axis=1))  # (4, 3, 3)
    return float(np.cross(bones[:, :-1], bones[:, 1:]).sum((0, 1)) @ across)


def check_sides(
    joints_of: Callable[[int], np.ndarray | None], is_left: Callable[[int], bool], length: int, where: str
) -> None:
    """Raises if the hands of a dataset are those of the other side, judged by evenly spaced samples.

    A single hand may mislead (an overstretched finger, a noisy label), their mean does not. Damaged samples are skipped
    here: reading them raises its own error.

    Args:
        joints_of: sample number to (21, 3) joints, OpenPose order, camera frame; None where there are none.
        is_left: which samples are labelled as left hands.
        length: of the dataset.
        where: the dataset, for the message.

    Raises:
        ValueError: the mean `handedness` is that of the other side.
    """
    scores = []
    for index in np.unique(np.linspace(0, length - 1, WITNESSES).astype(int)):
        with contextlib.suppress(ValueError, FileNotFoundError):
            joints = joints_of(int(index))
            if joints is not None:
                scores.append(-handedness(joints) if is_left(int(index)) else handedness(joints))
    if len(scores) >= _ENOUGH and np.mean(scores) < -_DOUBT:
        raise ValueError(
            f"{where}: {int((np.array(scores) < 0).sum())} of {len(scores)} hands bend like the other hand: left and "
            "right are swapped, or images and labels are mirrored; mirror images, cameras and points alike"
        )


def item_problems(item: Batch) -> Iterator[str]:
    """The problems of one item of a dataset without augmentation, a line each."""
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


def sample_problems(labels: Labels, box: Box, width: int, height: int) -> Iterator[str]:
    """Where the labels and the box of one hand do not fit its image, a line each.

    Args:
        labels: as the files have them.
        box: of the crop.
        width, height: of the image.
    """
    (x, y), side = box.centre, box.side
    if not (0 <= x < width and 0 <= y < height):
        yield f"the box's centre ({x:.0f}, {y:.0f}) lies outside of the {width}x{height} image"
    if not 4 <= side < 8 * max(width, height):  # 4 around a box of 2 pixels
        normalised = ": are the labels normalised to 0..1?" if side < 4 else ""
        yield f"the crop's side is {side:.{0 if side >= 4 else 1}f} pixels in a {width}x{height} image{normalised}"
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


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
