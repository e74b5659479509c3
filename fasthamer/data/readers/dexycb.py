"""DexYCB (Chao et al. 2021): hands grasping objects, seen by eight cameras; see `dexycb_files` for the layout.

A label file holds `joint_3d` (metres, camera frame, manopth's fingertips), `joint_2d` and `pose_m`: wrist rotation, 45
principal components relative to MANO's mean pose, translation. Left hands were annotated with MANO_LEFT as released
(toolkit issue 28). Their betas are therefore not used as labels, and their meshes are computed with that model.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fasthamer.data import augment
from fasthamer.data.crop import CROPPING, Cropping
from fasthamer.data.dataset import DatasetInfo
from fasthamer.data.label_checks import check_in_front, check_metres, check_sides
from fasthamer.data.readers.base import ImageDataset, RawSample, mano_vertices
from fasthamer.data.readers.boxes import Boxes
from fasthamer.data.readers.dexycb_files import SERIALS, frames_of, read_betas, read_extrinsics, read_intrinsics
from fasthamer.data.sample import Labels
from fasthamer.files.safe_npz import read_npz
from fasthamer.hand.left import left_hand
from fasthamer.hand.mano import Hand

_LABEL = {"joint_3d": (1, 21, 3), "joint_2d": (1, 21, 2), "pose_m": (1, 51)}


class DexYCB(ImageDataset):
    """The frames of a split that show a hand, in the toolkit's order.

    Poses, betas and meshes are labels only with a MANO file that has all 45 principal components.

    Args:
        root: the folder that contains the subjects and `calibration/`.
        split: s0_train to s3_test; training and evaluation are s0's train and test.
        hand: the hand model that the labels are for.
        image_size, strength, seed, cropping: see `ImageDataset`.
        box: see `fasthamer.data.readers.boxes.Boxes`.
        meshes: whether vertices are computed from the parameters.
        left_file: MANO_LEFT.pkl for the meshes of left hands; empty: the mirror image of `hand`.
        cache: see `fasthamer.files.index.cached`.

    Raises:
        FileNotFoundError: a file of the layout is missing.
        ValueError: no such split, or damaged files.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        hand: Hand,
        image_size: int = 256,
        strength: augment.Strength | None = None,
        seed: int = 0,
        cropping: Cropping = CROPPING,
        box: str = "keypoints",
        meshes: bool = True,
        left_file: str = "",
        cache: str = "auto",
    ) -> None:
        super().__init__(image_size, strength, seed, cropping)
        self.root, self.split = Path(root), split
        self.boxes = Boxes(box, cropping.shape)
        self.frames = frames_of(self.root, split, cache)
        self.hands = self._hands(hand, left_file)
        self.meshes = meshes and bool(self.hands)
        self.info = DatasetInfo("DexYCB", "dexycb", "dexycb", self.meshes, poses=bool(self.hands), cameras=True)
        self.intrinsics = {serial: read_intrinsics(self.root, serial) for serial in SERIALS}
        calibrations = sorted(set(self.frames.calibrations))
        self.betas = {name: read_betas(self.root, name) for name in calibrations} if self.hands else {}
        check_sides(self._joints, self.is_left, len(self), f"{self.root} {split}")

    def __len__(self) -> int:
        return len(self.frames.image_id)

    def raw_sample(self, index: int) -> RawSample:
        image, labels = self.image_path(index), self.labels(index)
        box = self.boxes(image, self.sample_name(index), labels.keypoints)
        return RawSample(image, labels, box, self.is_left(index))

    def labels(self, index: int) -> Labels:
        label, where = self._label(index)
        left = self.is_left(index)
        joints, pixels = (label[name][0].astype(np.float64) for name in ("joint_3d", "joint_2d"))
        if (joints == -1).all():  # the toolkit's marker for a frame without a hand, although pose.npz has a pose
            return Labels()
        check_metres(joints, where)
        check_in_front(joints, where)
        known = np.ones((21, 1))
        pose = betas = vertices = None
        if self.hands:
            hand, shape = self.hands[left], self.betas[self.frames.calibrations[self.frames.sequence[index]]]
            pose, translation = _absolute(label["pose_m"][0].astype(np.float64), hand, left)
            betas = None if left else shape
            if self.meshes:
                vertices = mano_vertices(hand, pose, shape, translation, left)
        return Labels(np.hstack((pixels, known)), np.hstack((joints, known)), vertices, pose, betas)

    def image_path(self, index: int) -> Path:
        return self._folder(index) / f"color_{self.frames.time[index]:06d}.jpg"

    def is_left(self, index: int) -> bool:
        return bool(self.frames.left[self.frames.sequence[index]])

    def camera(self, index: int) -> NDArray[np.float64]:
        """(3, 3) intrinsics of the image, pixels."""
        return self.intrinsics[SERIALS[self.frames.camera[index]]]

    def extrinsics(self, index: int) -> NDArray[np.float64]:
        """(3, 4) from this camera's frame to the master camera's frame, the same for a whole sequence."""
        name = self.frames.extrinsics[self.frames.sequence[index]]
        return _extrinsics(self.root, name)[SERIALS[self.frames.camera[index]]]

    def sample_name(self, index: int) -> str:
        """The image_id of the official result files: the number in the split, frames without hands counted."""
        return str(self.frames.image_id[index])

    def _folder(self, index: int) -> Path:
        return self.root / self.frames.folders[self.frames.sequence[index]] / SERIALS[self.frames.camera[index]]

    def _label(self, index: int) -> tuple[dict[str, NDArray], str]:
        path = self._folder(index) / f"labels_{self.frames.time[index]:06d}.npz"
        return read_npz(path, _LABEL), str(path)

    def _hands(self, hand: Hand, left_file: str) -> dict[bool, Hand]:
        """The hand models by `is_left`; empty if the parameters cannot be used as labels."""
        if hand.is_embedded:
            return {}
        if len(hand.hands_components) < 45:
            warnings.warn(
                f"{hand.name} has {len(hand.hands_components)} of MANO's 45 pose components, so DexYCB's poses cannot "
                "be read: only joints and keypoints are labels (HAND.MODEL MANO_RIGHT.pkl has all)",
                stacklevel=3,
            )
            return {}
        return {False: hand, True: left_hand(hand, left_file)}

    def _joints(self, index: int) -> NDArray | None:
        joints = self._label(index)[0]["joint_3d"][0]
        return None if (joints == -1).all() else joints


def _absolute(pose: NDArray, hand: Hand, left: bool) -> tuple[NDArray, NDArray]:
    """Absolute axis-angles (16, 3) and translation (3,) from `pose_m` (51,); a left hand's are not mirrored."""
    articulation = (hand.hands_mean + pose[3:48] @ hand.hands_components).reshape(15, 3)
    if left:  # `hand` is the mirrored model, so its components give mirrored rotations
        articulation = articulation * [1, -1, -1]
    return np.vstack((pose[None, :3], articulation)), pose[48:]


@lru_cache(maxsize=16)
def _extrinsics(root: Path, name: str) -> dict[str, NDArray[np.float64]]:
    return read_extrinsics(root, name)
