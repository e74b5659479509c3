"""Labels of detected hands from a hand model: what it sees of each, and its outputs in the image's axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from fasthamer.data.crop import invert, mirror_axis_angle, to_image_axes, transform, turn_matrix
from fasthamer.data.sample import Labels, make_item
from fasthamer.detect.boxes import hand_boxes
from fasthamer.detect.detections import Detections
from fasthamer.hand.mano import Hand
from fasthamer.hand.rotation import matrix_to_axis_angle
from fasthamer.teachers.teacher import Teacher


class Labelling(NamedTuple):
    """The labels of one hand."""

    right: bool
    keypoints: NDArray  # (21, 3) pixels of the image and confidence
    joints: NDArray  # (21, 4) metres and confidence, axes as the camera's
    vertices: NDArray | None = None  # (778, 3) metres, frame of the joints
    pose: NDArray | None = None  # (16, 3) absolute axis-angles
    betas: NDArray | None = None  # (10,)


class Labeller(Protocol):
    """Labels hands in two steps, of which loader processes do the first."""

    @property
    def hand(self) -> str | None:
        """The fingerprint of the meshes' hand model; None: points only."""

    @property
    def views(self) -> Callable[[NDArray[np.uint8], Detections], list[Any]]:
        """An image (H, W, 3) RGB and its hands -> what is needed of each; picklable."""

    def __call__(self, views: Sequence[Any]) -> list[Labelling | str]:
        """The labels of each hand, or the reason why it is left out."""


class Crop(NamedTuple):
    """What a hand model sees of one hand, as arrays: tensors would cost loader processes a file handle each."""

    image: NDArray[np.uint8]  # (3, S, S)
    affine: NDArray[np.float32]  # (2, 3) from pixels of the image, mirroring included
    left: bool


def crops_of(image: NDArray[np.uint8], found: Detections, size: int, shape: str) -> list[Crop]:
    """The crops of all hands of an image.

    Args:
        image: (H, W, 3) RGB.
        found: N hands.
        size: pixels of the crops.
        shape: of the boxes, one of `fasthamer.data.crop.BOX_SHAPES`.
    """
    crops = []
    for box, right in zip(hand_boxes(found, shape), found.right.tolist(), strict=True):
        item = make_item(image, Labels(), box, size, 0, left=not right, blur=True)
        crops.append(Crop(item.image.numpy(), item.crop.numpy(), not right))
    return crops


class MeshLabeller:
    """Labels from a teacher: keypoints, joints, mesh and, where it predicts them, MANO's parameters.

    Args:
        teacher: on its device.
        device: where it is.
    """

    def __init__(self, teacher: Teacher, device: torch.device) -> None:
        hand: Hand = teacher.hand
        self.teacher, self.device = teacher, device
        self.hand: str | None = hand.fingerprint
        whole = round(teacher.image_size / (teacher.view.bottom - teacher.view.top))
        # The part inside the model's view is not resized.
        self.views = partial(crops_of, size=whole, shape=teacher.box_shape)

    def __call__(self, views: Sequence[Crop]) -> list[Labelling | str]:
        output = self.teacher(torch.from_numpy(np.stack([crop.image for crop in views])).to(self.device))
        affines, left = np.stack([crop.affine for crop in views]), np.array([crop.left for crop in views])
        joints, vertices = (to_image_axes(_array(each), affines, left) for each in (output.joints, output.vertices))
        pixels = (_array(output.keypoints_2d) + 0.5) * views[0].image.shape[-1]
        points = np.stack([transform(invert(affine), each) for affine, each in zip(affines, pixels, strict=True)])
        labels = [
            Labelling(not crop.left, _certain(points[index]), _certain(joints[index]), vertices[index])
            for index, crop in enumerate(views)
        ]
        if output.mano is not None:
            rotations = torch.cat((output.mano.global_orient, output.mano.hand_pose), 1)
            poses, betas = _poses(rotations.double().cpu(), affines, left), _array(output.mano.betas)
            labels = [each._replace(pose=poses[index], betas=betas[index]) for index, each in enumerate(labels)]
        return [each if _is_finite(each) else "the teacher's output is not finite" for each in labels]


def _array(tensor: torch.Tensor) -> NDArray[np.float64]:
    return tensor.double().cpu().numpy()


def _is_finite(labels: Labelling) -> bool:
    return all(np.isfinite(each).all() for each in labels[1:] if each is not None)


def _certain(points: NDArray) -> NDArray:
    return np.column_stack((points, np.ones(len(points))))


def _poses(rotations: torch.Tensor, affines: NDArray, left: NDArray) -> NDArray:
    """(N, 16, 3) axis-angles in the images' axes, from rotations (N, 16, 3, 3) in the crops'."""
    turned = np.degrees(np.arctan2(affines[:, 0, 1], affines[:, 1, 1])).astype(np.float64)
    rotations[:, 0] = torch.from_numpy(turn_matrix(turned)).mT @ rotations[:, 0]
    poses = matrix_to_axis_angle(rotations).numpy()
    return np.stack([mirror_axis_angle(pose) if mirrored else pose for pose, mirrored in zip(poses, left, strict=True)])
