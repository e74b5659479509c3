"""Synthetic images, rendered once and stored as JPEG files with their labels, augmented anew in every epoch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from fasthamer.data import augment
from fasthamer.data.articulation import Articulation
from fasthamer.data.crop import Box
from fasthamer.data.dataset import DatasetInfo, HandDataset
from fasthamer.data.sample import Labels, make_item
from fasthamer.data.synthetic.dataset import PlacedHand, SyntheticDataset
from fasthamer.data.synthetic.viewpoints import Crop
from fasthamer.files.atomic import replacing, write_text
from fasthamer.files.images import read_image, write_image
from fasthamer.files.mapped import new_rows
from fasthamer.files.safe_json import read_json
from fasthamer.hand.rotation import matrix_to_axis_angle
from fasthamer.one_line import one_line
from fasthamer.types import Batch

ABOUT, LABELS = "about.json", "labels.npy"
QUALITY = 95  # of the JPEG files
STORED = np.dtype(  # a row of labels.npy: a hand takes as long to sample and pose as its image to read
    [
        ("there", "u1"),  # 1 once the row is written
        ("keypoints", "f8", (21, 2)),  # pixels of the stored image
        ("joints", "f4", (21, 3)),
        ("vertices", "f4", (778, 3)),
        ("pose", "f4", (16, 3)),
        ("betas", "f4", (10,)),
    ]
)


class CachedSyntheticDataset(HandDataset):
    """`ds[(epoch, index)]`: image `index` of a synthetic dataset, augmented like a real image.

    An image is rendered and stored at its first use. Rendering takes several times as long as reading, so the cache
    pays off if training uses every image often; in return, all epochs augment the same rendering.

    Args:
        hands: the dataset to cache; its crops must not vary (scale and shift 0).
        folder: for the images; created if missing.
        strength: of the augmentation.

    Raises:
        ValueError: the folder holds the images of another dataset.
    """

    info = DatasetInfo("KeptHands", meshes=True, poses=True)

    def __init__(self, hands: SyntheticDataset, folder: str | Path, strength: augment.Strength) -> None:
        self.hands, self.folder, self.strength = hands, Path(folder), strength
        self.folder.mkdir(parents=True, exist_ok=True)
        about = {"hand": hands.fingerprint, "seed": hands.seed, "image_size": hands.image_size}
        if hands.shape != "hamer":  # else as in folders that are older than this entry
            about["shape"] = hands.shape
        if hands.distribution != "hard":
            about["distribution"] = hands.distribution
        self._rows: np.ndarray | None = None  # opened at first use, in each process
        path = self.folder / ABOUT
        if not path.is_file():
            write_text(path, json.dumps(about))
        elif read_json(path) != about:
            raise ValueError(f"{self.folder} holds images of another set ({path}): name another folder or remove it")

    def __len__(self) -> int:
        return len(self.hands)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        """Item `index`, augmented for epoch `epoch`.

        Raises:
            ValueError: a stored image is damaged; the message names it.
        """
        epoch, index = key
        size = self.hands.image_size
        row, path = self._row(index), self.folder / f"{index:08d}.jpg"
        if not path.is_file():
            write_image(path, self.hands.draw(*self._framed(index)), QUALITY)
        one = np.ones((21, 1))
        labels = Labels(
            keypoints=np.hstack([row["keypoints"], one]),
            joints=np.hstack([row["joints"], one]),
            vertices=row["vertices"],
            pose=row["pose"],
            betas=row["betas"],
        )
        change = augment.draw(np.random.default_rng((self.hands.seed, epoch, index)), self.strength)
        whole = Box(np.array([size / 2, size / 2]), float(size))
        return make_item(read_image(path), labels, whole, size, index, change)

    def _framed(self, index: int) -> tuple[PlacedHand, Crop]:
        hand = self.hands.hand(index)
        return hand, self.hands.frame(np.random.default_rng(0), hand.joints)

    def _row(self, index: int) -> np.void:
        """The stored labels of a sample, made at its first use."""
        if self._rows is None:
            self._rows = self._open_rows()
        if not self._rows[index]["there"]:
            hand, frame = self._framed(index)
            pose = matrix_to_axis_angle(torch.cat([hand.mano.global_orient, hand.mano.hand_pose])).numpy()
            self._rows[index] = 0, frame.project(hand.joints), hand.joints, hand.vertices, pose, hand.mano.betas.numpy()
            self._rows[index]["there"] = 1
        return self._rows[index]

    def _open_rows(self) -> np.ndarray:
        """The file of labels, which all processes that use the folder share; made, or made longer, where needed."""
        path = self.folder / LABELS
        try:
            old = np.load(path, mmap_mode="r+") if path.is_file() else np.empty(0, STORED)
        except Exception as error:  # NumPy's parser of headers raises anything
            raise ValueError(f"{path}: damaged ({one_line(error)}); remove it") from None
        if old.dtype != STORED:
            raise ValueError(f"{path}: labels in another form: name another folder or remove it")
        if len(old) >= len(self):
            return old
        with replacing(path) as draft:  # a process that has the shorter one open goes on with it
            rows = new_rows(draft, STORED, len(self))
            rows[: len(old)] = old
        return rows

    def articulation(self, index: int) -> Articulation:
        """The pose and shape of hand `index`."""
        return self.hands.articulation(index)
