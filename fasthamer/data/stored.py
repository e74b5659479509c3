"""Samples that never change, read from a file once they have been made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fasthamer.data.dataset import HandDataset, Wrapped
from fasthamer.files.atomic import replacing
from fasthamer.files.mapped import new_rows
from fasthamer.one_line import one_line
from fasthamer.types import N_BETAS, N_HAND_JOINTS, N_JOINTS, N_VERTICES, Batch

ROW = np.dtype(  # of the file
    [
        ("there", "u1"),  # 1 once the row is written
        ("size", "<i4"),  # pixels of the image
        ("keypoints_2d", "<f4", (N_JOINTS, 3)),
        ("joints", "<f4", (N_JOINTS, 4)),
        ("vertices", "<f4", (N_VERTICES, 3)),
        ("global_orient", "<f4", (1, 3, 3)),
        ("hand_pose", "<f4", (N_HAND_JOINTS, 3, 3)),
        ("betas", "<f4", (N_BETAS,)),
        *((name, "<f4") for name in ("has_vertices", "has_pose", "has_betas", "mirrored")),
        ("crop", "<f4", (2, 3)),
        ("index", "<i8"),
    ]
)


class StoredSamples(Wrapped):
    """A dataset of fixed samples, each made at its first use: the next time it is read from a file.

    Args:
        dataset: whose items do not depend on the epoch.
        path: of the file, which all processes that use the dataset share; made at the first use.
        image_size: pixels of the images, which are stored as they are; 0: none are stored, all are black.

    Raises:
        ValueError: on reading: the file is damaged, or of other samples.
    """

    def __init__(self, dataset: HandDataset, path: Path, image_size: int = 0) -> None:
        super().__init__(dataset)
        self.path = path
        image = [("image", "u1", (3, image_size, image_size))] if image_size else []
        self._type = np.dtype([*ROW.descr, *image])
        self._fields = [name for name in self._type.names or () if name in Batch._fields]
        self._rows: NDArray | None = None  # opened at first use, in each process
        self._black = torch.zeros((), dtype=torch.uint8)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        index = key[1]
        if self._rows is None:
            self._rows = self._open()
        if not 0 <= index < len(self._rows):
            raise IndexError(f"sample {index} of {len(self._rows)}")
        row = self._rows[index]
        if not row["there"]:
            item = self.dataset[key]
            for name in self._fields:
                row[name] = getattr(item, name).numpy()
            row["size"], row["there"] = item.image.shape[-1], 1
        size = int(row["size"])
        fields = {"image": self._black.expand(3, size, size)}
        return Batch(**fields | {name: torch.from_numpy(np.array(row[name])) for name in self._fields})

    def _open(self) -> NDArray:
        if not self.path.is_file():
            with replacing(self.path) as draft:
                new_rows(draft, self._type, len(self))
        try:
            rows: NDArray = np.load(self.path, mmap_mode="r+")
        except Exception as error:  # NumPy's parser of headers raises anything
            raise ValueError(f"{self.path}: damaged ({one_line(error)}); remove it") from None
        if rows.dtype != self._type or len(rows) != len(self):
            raise ValueError(f"{self.path}: samples of another set or form; remove it")
        return rows
