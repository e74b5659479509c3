"""From an image and its labels to one item of a dataset: crop, mirror, augment, mask missing labels."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from fasthamer.data import augment, crop
from fasthamer.types import N_BETAS, N_HAND_JOINTS, N_JOINTS, N_VERTICES, Batch


class Labels(NamedTuple):
    """The labels of a hand in an image; None where missing. Metres, x right, y down, z forward."""

    keypoints: np.ndarray | None = None  # (21, 3) pixels of the image, confidence
    joints: np.ndarray | None = None  # (21, 4) camera frame, confidence
    vertices: np.ndarray | None = None  # (778, 3) camera frame, MANO's vertices
    pose: np.ndarray | None = None  # (16, 3) axis-angle, absolute, wrist first
    betas: np.ndarray | None = None  # (10,)


SHAPES = {  # of labels
    "keypoints": (N_JOINTS, 3),
    "joints": (N_JOINTS, 4),
    "vertices": (N_VERTICES, 3),
    "pose": (1 + N_HAND_JOINTS, 3),
    "betas": (N_BETAS,),
}


def make_item(
    image: np.ndarray,
    labels: Labels,
    box: crop.Box,
    size: int,
    index: int,
    augmentation: augment.Augmentation | None = None,
    left: bool = False,
    blur: bool = False,
) -> Batch:
    """One item: cropped, mirrored if it is a left hand, augmented.

    Args:
        image: (H, W, 3) uint8, RGB.
        labels: of the hand in the image, before mirroring.
        box: in the image; its rotation and the augmentation's add up.
        size: pixels of the crop.
        index: the sample's number in its dataset.
        augmentation: None changes nothing.
        left: whether it is a left hand.
        blur: see `crop.warp`.

    Raises:
        ValueError: a label of another shape, or a label or box that is not finite.
    """
    check_labels(labels, box)
    augmentation = augmentation or augment.Augmentation()
    centre, side = augment.move_box(box.centre, box.side, augmentation)
    # Mirrored, a hand is turned the other way.
    rotation = augmentation.rotation + (-box.rotation if left else box.rotation)
    affine = crop.crop_affine(centre, side, size, rotation, mirror=left)
    # OpenCV warps four channels in half the time that three take, to the same pixels.
    padded = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
    planes = augment.recoloured_planes(crop.warp(padded, affine, size, blur), augmentation)
    turn = crop.turn_matrix(rotation)

    keypoints = np.zeros((N_JOINTS, 3))
    if labels.keypoints is not None:
        keypoints = _keep_known(labels.keypoints)
        pixels = crop.transform(affine, keypoints[:, :2])
        keypoints[:, :2] = crop.to_crop_units(pixels, size) * (keypoints[:, 2:] > 0)
    joints = np.zeros((N_JOINTS, 4))
    if labels.joints is not None:
        joints = _keep_known(labels.joints)
        joints[:, :3] = _turned(joints[:, :3], turn, left)
    vertices = torch.zeros(N_VERTICES, 3) if labels.vertices is None else _tensor(_turned(labels.vertices, turn, left))
    pose = np.zeros((1 + N_HAND_JOINTS, 3)) if labels.pose is None else labels.pose
    rotations = Rotation.from_rotvec(crop.mirror_axis_angle(pose) if left else pose).as_matrix()
    rotations[0] = turn @ rotations[0]
    return Batch(
        image=torch.from_numpy(planes),
        keypoints_2d=_tensor(keypoints),
        joints=_tensor(joints),
        vertices=vertices,
        has_vertices=_flag(labels.vertices is not None),
        global_orient=_tensor(rotations[:1]),
        hand_pose=_tensor(rotations[1:]),
        betas=torch.zeros(N_BETAS) if labels.betas is None else _tensor(labels.betas),
        has_pose=_flag(labels.pose is not None),
        has_betas=_flag(labels.betas is not None),
        mirrored=_flag(left),
        crop=_tensor(affine),
        index=torch.tensor(index),
    )


def check_labels(labels: Labels, box: crop.Box) -> None:
    """
    Raises:
        ValueError: a label of another shape, or a known point, another label or the box is not finite, or a box that no
            image has.
    """
    for name, shape in SHAPES.items():
        label = getattr(labels, name)
        if label is None:
            continue
        if np.shape(label) != shape:
            raise ValueError(f"the labelled {name} have shape {np.shape(label)}, expected {shape}")
        known = label[label[:, -1] > 0] if name in ("keypoints", "joints") else label
        if not np.isfinite(known).all():
            raise ValueError(f"the labelled {name} are not finite")
    if not np.isfinite((*box.centre, box.side, box.rotation)).all():
        raise ValueError("its box is not finite")
    if not 0 < box.side < crop.LARGEST_SIDE:
        raise ValueError(f"its box is {box.side:.3g} pixels large")


def without_labels(item: Batch) -> Batch:
    """The item with its image and no labels."""
    hidden = {
        name: torch.zeros_like(getattr(item, name))
        for name in ("keypoints_2d", "joints", "vertices", "has_vertices", "betas", "has_pose", "has_betas")
    }
    identity = torch.eye(3)
    return item._replace(
        global_orient=identity.expand(1, 3, 3).clone(), hand_pose=identity.expand(15, 3, 3).clone(), **hidden
    )


def _turned(points: np.ndarray, turn: np.ndarray, left: bool) -> np.ndarray:
    return (crop.mirror_points(points) if left else points) @ turn.T


def _keep_known(points: np.ndarray) -> np.ndarray:
    """A float64 copy in which points without confidence are zeros (some files have NaN there)."""
    return np.where(points[:, -1:] > 0, points, 0.0).astype(np.float64)


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(array, dtype=np.float32))


def _flag(value: bool) -> torch.Tensor:
    return torch.ones(()) if value else torch.zeros(())
