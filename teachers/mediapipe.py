"""MediaPipe's full landmark network as a teacher of points: keypoints, world joints, side; it has no mesh.

Each hand is looked at three times: by the full network, by the full network in a turned crop, and by the lite one.
Where these disagree, a joint has little or no confidence. Systematic differences to our joints are removed, see
`mediapipe_frame`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthamer.data.crop import invert, transform
from fasthamer.data.readers.base import MINIMUM_KEYPOINTS
from fasthamer.detect.detections import Detections
from fasthamer.detect.inference import LANDMARK_SIZE, Network, torch_networks
from fasthamer.detect.regions import Region, box_region, landmark_region, turn_back
from fasthamer.detect.sampling import as_input, sample
from fasthamer.detect.shipped import FOLDER
from fasthamer.teachers.labellers import Labelling
from fasthamer.teachers.mediapipe_frame import to_our_joints, to_our_keypoints
from fasthamer.teachers.mediapipe_offsets import JOINTS, KEYPOINTS

NAME = "mediapipe"
WEIGHTS = FOLDER / "landmark_full.safetensors"
TURN = 15.0  # degrees of the second look
PRESENCE = 0.9  # a hand is labelled if every look finds it at least so probable
TOLERANCE = 0.05  # of the hand's size: looks that differ by less are sure, by twice this worthless


class Looks(NamedTuple):
    """What the networks see of one hand: the straight crop, then the turned one."""

    crops: NDArray[np.uint8]  # (2, 224, 224, 3)
    affines: NDArray[np.float64]  # (2, 2, 3) from pixels of the image
    rotations: tuple[float, float]  # degrees


class Readings(NamedTuple):
    """Landmarks of N hands by one network in one look."""

    points: NDArray[np.float64]  # (N, 21, 2) pixels of the image
    presence: NDArray[np.float64]  # (N,)
    right: NDArray[np.float64]  # (N,) probability
    world: NDArray[np.float64]  # (N, 21, 3) metres, camera's axes


def looks(image: NDArray[np.uint8], found: Detections) -> list[Looks]:
    """(H, W, 3) RGB and its hands -> what is needed of each."""
    if found.landmarks is None:
        regions = [box_region(box, 0.0) for box in found.boxes]
    else:
        regions = [landmark_region(points) for points in found.landmarks]
    return [_looks(image, region) for region in regions]


class PointLabeller:
    """Labels from MediaPipe's networks: keypoints and joints with a confidence each.

    Args:
        device: a torch device, or auto = cuda, then mps, then cpu.
        full, lite: the landmark networks, see `fasthamer.detect.inference`; None: the shipped ones in torch.

    Raises:
        ValueError, FileNotFoundError: no such device, or no usable networks.
    """

    def __init__(self, device: str = "auto", full: Network | None = None, lite: Network | None = None) -> None:
        self.full = torch_networks("full", device).landmark if full is None else full
        self.lite = torch_networks("lite", device).landmark if lite is None else lite
        self.hand: str | None = None
        self.views = looks

    def __call__(self, views: Sequence[Looks]) -> list[Labelling | str]:
        readings = [_read(self.full, views, 0), _read(self.full, views, 1), _read(self.lite, views, 0)]
        straight = readings[0]
        right = straight.right > 0.5
        presence = np.min([each.presence for each in readings], axis=0)
        one_side = np.all([(each.right > 0.5) == right for each in readings], axis=0)
        certain = confidence(*(each.points for each in readings))
        keypoints = np.concatenate((to_our_keypoints(straight.points, right, KEYPOINTS), certain[..., None]), -1)
        joints = np.concatenate((to_our_joints(straight.world, right, JOINTS), certain[..., None]), -1)
        labels: list[Labelling | str] = []
        for hand in range(len(views)):
            if presence[hand] < PRESENCE:
                labels.append(f"the networks are not sure that it is a hand ({presence[hand]:.2f})")
            elif not one_side[hand]:
                labels.append("the networks disagree about its side")
            elif (certain[hand] > 0).sum() < MINIMUM_KEYPOINTS:
                labels.append("the networks disagree about its joints")
            else:
                labels.append(Labelling(bool(right[hand]), keypoints[hand], joints[hand]))
        return labels


def confidence(
    points: NDArray[np.float64], *others: NDArray[np.float64], tolerance: float = TOLERANCE
) -> NDArray[np.float64]:
    """(N, 21) from 1 where all looks agree to `tolerance`, falling to 0 where they differ by twice as much.

    Args:
        points: (N, 21, 2) pixels, the labels.
        others: (N, 21, 2) of the same hands.
        tolerance: of a hand's size, the larger side of the box around its points.
    """
    size = (points.max(1) - points.min(1)).max(-1)
    apart = np.max([np.linalg.norm(other - points, axis=-1) for other in others], axis=0) / size[:, None]
    return np.clip(2 - apart / tolerance, 0, 1)


def _looks(image: NDArray[np.uint8], region: Region) -> Looks:
    turned = region._replace(rotation=region.rotation + TURN)
    affines = np.stack([each.affine(LANDMARK_SIZE) for each in (region, turned)])
    crops = np.stack([sample(image, affine, LANDMARK_SIZE, repeat=True) for affine in affines])
    return Looks(crops, affines, (region.rotation, turned.rotation))


def _read(network: Network, views: Sequence[Looks], look: int) -> Readings:
    outputs = network(as_input([view.crops[look] for view in views]))
    landmarks, presence, right, world = (values.astype(np.float64) for values in outputs)
    points = [transform(invert(v.affines[look]), each[:, :2]) for v, each in zip(views, landmarks, strict=True)]
    turned = [turn_back(each, v.rotations[look]) for v, each in zip(views, world, strict=True)]
    return Readings(np.stack(points), presence, right, np.stack(turned))
