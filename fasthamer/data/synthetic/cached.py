"""Synthetic images that are drawn once, kept as files, and framed anew from there in every epoch."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from fasthamer.data import augment
from fasthamer.data.sample import Labels, make_item
from fasthamer.data.synthetic.dataset import SyntheticDataset
from fasthamer.files.images import read_image
from fasthamer.hand.rotation import matrix_to_axis_angle
from fasthamer.types import Batch

ABOUT = "about.json"
QUALITY = 95  # of the JPEG files


class CachedSyntheticDataset(Dataset):
    """`ds[(epoch, index)]`: image `index` of a synthetic set, augmented as an image from a camera would be.

    Whoever asks for an image first draws it and keeps it; drawing costs several times what reading does, so this
    is for trainings that see every image often. In exchange no epoch shows the hand with pixels of its own.

    Args:
        hands: what is drawn; its own framing is to be constant (scale and shift 0).
        folder: for the images; made where missing.
        strength: of the augmentation.

    Raises:
        ValueError: the folder keeps another set's images.
    """

    def __init__(self, hands: SyntheticDataset, folder: str | Path, strength: augment.Strength) -> None:
        self.hands, self.folder, self.strength = hands, Path(folder), strength
        self.folder.mkdir(parents=True, exist_ok=True)
        about = {"hand": hands.fingerprint, "seed": hands.seed, "image_size": hands.image_size}
        path = self.folder / ABOUT
        if not path.is_file():
            _write(path, json.dumps(about).encode())
        elif json.loads(path.read_text(encoding="utf-8")) != about:
            raise ValueError(f"{self.folder} keeps images of another set ({path}): name another folder or remove it")

    def __len__(self) -> int:
        return len(self.hands)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        """Item `index` as it looks in epoch `epoch`.

        Raises:
            ValueError: a kept image is damaged; the message names it.
        """
        epoch, index = key
        size = self.hands.image_size
        hand = self.hands.hand(index)
        crop = self.hands.frame(np.random.default_rng(0), hand.joints)
        path = self.folder / f"{index:08d}.jpg"
        if not path.is_file():
            image = np.ascontiguousarray(self.hands.draw(hand, crop)[..., ::-1])
            _write(path, cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes())
        one = np.ones((21, 1))
        labels = Labels(
            keypoints=np.hstack([crop.project(hand.joints), one]),
            joints=np.hstack([hand.joints, one]),
            vertices=hand.vertices,
            pose=matrix_to_axis_angle(torch.cat([hand.mano.global_orient, hand.mano.hand_pose])).numpy(),
            betas=hand.mano.betas.numpy(),
        )
        change = augment.draw(np.random.default_rng((self.hands.seed, epoch, index)), self.strength)
        middle = np.array([size / 2, size / 2])
        return make_item(read_image(path), labels, (middle, float(size)), size, index, change)


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all: another process may be at the same image, a killed one leaves no half."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(content)
    part.replace(path)
