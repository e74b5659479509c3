"""Synthetic images to try the page with: no image of a person is shipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fasthamer.data.synthetic.dataset import SyntheticDataset
from fasthamer.files.images import write_image
from fasthamer.hand.mano import load_hand

SIZE = 480  # pixels
CHOSEN = {16: False, 19: True, 14: False}  # index of the dataset: whether mirrored, which makes it a left hand


def write_examples(folder: Path) -> list[Path]:
    """Renders the examples into a folder and returns their files."""
    dataset = SyntheticDataset(load_hand("embedded"), size=max(CHOSEN) + 1, seed=1, image_size=SIZE)
    files = []
    for index, mirrored in CHOSEN.items():
        image = np.ascontiguousarray(dataset[(0, index)].image.permute(1, 2, 0).numpy())
        files.append(folder / f"{'left' if mirrored else 'right'}_hand_{index}.jpg")
        write_image(files[-1], image[:, ::-1] if mirrored else image)
    return files
