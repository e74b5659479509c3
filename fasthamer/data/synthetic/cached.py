"""Synthetic images that are rendered once, stored as JPEG files, and augmented anew in every epoch."""

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
from fasthamer.data.synthetic.dataset import SyntheticDataset
from fasthamer.files.atomic import write_text
from fasthamer.files.images import read_image, write_image
from fasthamer.hand.rotation import matrix_to_axis_angle
from fasthamer.types import Batch

ABOUT = "about.json"
QUALITY = 95  # of the JPEG files


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
        path = self.folder / ABOUT
        if not path.is_file():
            write_text(path, json.dumps(about))
        elif json.loads(path.read_text(encoding="utf-8")) != about:
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
        hand = self.hands.hand(index)
        frame = self.hands.frame(np.random.default_rng(0), hand.joints)
        path = self.folder / f"{index:08d}.jpg"
        if not path.is_file():
            write_image(path, self.hands.draw(hand, frame), QUALITY)
        one = np.ones((21, 1))
        labels = Labels(
            keypoints=np.hstack([frame.project(hand.joints), one]),
            joints=np.hstack([hand.joints, one]),
            vertices=hand.vertices,
            pose=matrix_to_axis_angle(torch.cat([hand.mano.global_orient, hand.mano.hand_pose])).numpy(),
            betas=hand.mano.betas.numpy(),
        )
        change = augment.draw(np.random.default_rng((self.hands.seed, epoch, index)), self.strength)
        whole = Box(np.array([size / 2, size / 2]), float(size))
        return make_item(read_image(path), labels, whole, size, index, change)

    def articulation(self, index: int) -> Articulation:
        """The pose and shape of hand `index`."""
        return self.hands.articulation(index)
