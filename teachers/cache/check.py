"""Whether a dataset can be cached, and how far a cache's moved outputs are from the teacher's own."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fasthamer.data.dataset import HandDataset
from fasthamer.teachers.cache.cached_teacher import CachedTeacher
from fasthamer.teachers.cache.geometry import crop_motion
from fasthamer.teachers.teacher import Teacher
from fasthamer.types import Batch

PROBED = 4  # samples, each in two epochs
PIXEL = 1.5  # largest misplacement, in pixels of the crop, that rounding can explain
REMEDY = "fix the augmented crops with TEACHER.CACHE_VIEWS 1 (or more)"


def check_images(images: HandDataset, augmented: HandDataset, keeps_maps: bool) -> None:
    """Checks a few samples in two epochs, before a teacher computes for hours.

    Args:
        images: the training set without augmentation.
        augmented: the same set with augmentation.
        keeps_maps: whether feature maps are cached.

    Raises:
        ValueError: images differ between epochs; an item's `crop` does not describe its framing; or feature maps
            are requested and crops are augmented.
    """
    if len(images) != len(augmented):
        raise ValueError(f"the augmented set has {len(augmented)} samples, the plain one {len(images)}")
    for index in sorted(set(np.linspace(0, len(images) - 1, PROBED).astype(int).tolist())):
        plain, again = images[(0, index)], images[(1, index)]
        if plain.image.shape != again.image.shape or not torch.equal(plain.image, again.image):
            raise ValueError(
                f"sample {index} is another image in each epoch (a mix, or hands drawn anew), so no teacher's "
                f"output for it can be kept: {REMEDY}"
            )
        for epoch in (0, 1):
            _check_crop(index, plain, augmented[(epoch, index)], keeps_maps)


def _check_crop(index: int, plain: Batch, item: Batch, keeps_maps: bool) -> None:
    motion = crop_motion(plain.crop[None], item.crop[None], item.image.shape[-1])
    if keeps_maps and not motion.is_none.item():
        raise ValueError(
            "feature maps can be cached only for crops that are not turned, scaled or shifted: set AUGMENT.SCALE, "
            f"AUGMENT.ROTATION and AUGMENT.SHIFT to 0, {REMEDY}, or distil outputs alone (--kd output)"
        )
    sure = (plain.keypoints_2d[:, 2] > 0) & (item.keypoints_2d[:, 2] > 0)
    expected = plain.keypoints_2d[:, :2].double() @ (motion.scale * motion.turn)[0].T + motion.shift[0]
    off = (expected - item.keypoints_2d[:, :2].double()).abs().amax(1)[sure] * item.image.shape[-1]
    if len(off) and off.max() > PIXEL:
        raise ValueError(
            f"sample {index} is framed anew in each epoch, and its crop does not describe it (its keypoints lie "
            f"{off.max():.0f} pixels from where its crop puts them), so outputs cannot follow: {REMEDY}; synthetic "
            "hands can instead be kept as images (DATA.SYNTHETIC_FOLDER) or drawn in one framing (AUGMENT.SCALE "
            "and AUGMENT.SHIFT 0)"
        )


class Deviation(NamedTuple):
    """Mean distances of a cache's outputs for augmented crops from the teacher's own, over samples and points."""

    samples: int
    joints_mm: float  # relative to the wrist, as all millimetres here
    vertices_mm: float
    keypoints_px: float  # of the crop's pixels
    error_mm: tuple[float, float] | None  # of the cache's joints and of the teacher's own, where all have labels

    def __str__(self) -> str:
        text = (
            f"on {self.samples} augmented crops the cache's outputs differ from the teacher's own by "
            f"{self.joints_mm:.2f} mm (joints), {self.vertices_mm:.2f} mm (vertices) and {self.keypoints_px:.2f} pixels"
        )
        if self.error_mm:
            text += "; its joints are {:.2f} mm off their labels, the teacher's own {:.2f} mm".format(*self.error_mm)
        return text


def deviation(cached: CachedTeacher, teacher: Teacher, batch: Batch) -> Deviation:
    """Compares cache and teacher on one batch of augmented crops.

    Args:
        cached: open.
        teacher: the one whose outputs it holds, on the CPU or a device.
        batch: from the loader, on the CPU.
    """
    device = next(teacher.parameters()).device
    ours, own = cached.recall(batch, device), teacher(batch.image.to(device))
    joints = _apart(ours.joints, own.joints, ours.joints, own.joints)
    vertices = _apart(ours.vertices, own.vertices, ours.joints, own.joints)
    pixels = (ours.keypoints_2d - own.keypoints_2d).norm(dim=-1).mean().item() * batch.image.shape[-1]
    error = None
    if (batch.joints[..., 3] > 0).all():
        truth = batch.joints[..., :3].to(device)
        error = (_apart(ours.joints, truth, ours.joints, truth), _apart(own.joints, truth, own.joints, truth))
    return Deviation(len(batch.image), joints, vertices, pixels, error)


def _apart(one: Tensor, other: Tensor, joints: Tensor, other_joints: Tensor) -> float:
    """Millimetres between points (B, N, 3) of hands that are moved to one wrist."""
    return 1000 * ((one - joints[:, :1]) - (other - other_joints[:, :1])).norm(dim=-1).mean().item()
