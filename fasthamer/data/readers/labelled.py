"""Images with a teacher's labels, written by `tools/prepare_data.py label`; the files: `labelled_files`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from fasthamer.data import augment, crop
from fasthamer.data.crop import CROPPING, Cropping
from fasthamer.data.dataset import DatasetInfo
from fasthamer.data.readers.base import ImageDataset, RawSample
from fasthamer.data.readers.labelled_files import ABOUT, read_about, read_table
from fasthamer.data.sample import Labels
from fasthamer.hand.mano import Hand
from fasthamer.one_line import one_line

SPLITS = ("training", "evaluation", "all")
IN_FRONT = np.array([0.0, 0.0, 1.0])  # metres; labels stand before the camera, but no teacher knows how far


class Labelled(ImageDataset):
    """One sample for each labelled hand. The crop is drawn around the teacher's 21 keypoints: `crop.hand_box`.

    The images are searched in the folders that labels.json lists as `images`, absolute or relative to it: the first one
    that exists. The other entries of a folder of labels need not be edited when it moves.

    Args:
        root: the folder of labels.json.
        split: training, evaluation (the images that were held out) or all.
        hand: the hand model of the run; labels with a mesh must be of the same one.
        image_size, strength, seed, cropping: see `ImageDataset`.
        meshes: whether vertices are read.

    Raises:
        FileNotFoundError: no labels, or no images.
        ValueError: labels that are damaged, incomplete or of another hand model; no such split, or an empty one.
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
        meshes: bool = True,
    ) -> None:
        super().__init__(image_size, strength, seed, cropping)
        if split not in SPLITS:
            raise ValueError(f"labelled images have no split {split!r}: choose {', '.join(SPLITS)}")
        self.root = Path(root)
        about = read_about(self.root)
        if not about["complete"]:
            raise ValueError(f"{self.root}: the labels are incomplete: run the command that began them again")
        settings = about["settings"]
        made_for = settings["hand"]
        if made_for is not None and made_for != hand.fingerprint:
            raise ValueError(
                f"{self.root}: the labels are meshes and parameters of the hand model {made_for}, this run has "
                f"{hand.name} ({hand.fingerprint}): give --mano as when they were made (with {settings['teacher']})"
            )
        self.images = _first_folder(self.root, about["images"])
        self.table = read_table(self.root, sorted(about["parts"]), meshes and made_for is not None)
        wanted = {"training": ~self.table.held_out, "evaluation": self.table.held_out}
        self.rows = np.flatnonzero(wanted.get(split, np.ones(len(self.table.names), bool)))
        if not len(self.rows):
            raise ValueError(
                f"{self.root}: the split {split} is empty; tools/prepare_data.py label --hold-out chooses images to "
                "evaluate on. Or evaluate on another set: DATA.EVAL_NAME and DATA.EVAL_ROOT"
            )
        left_out = sum(len(part["left_out"]) for part in about["parts"].values())
        self.info = DatasetInfo(
            "Labelled",
            meshes=bool(self.table.vertices),
            poses=self.table.pose is not None,
            source=self.root / ABOUT,
            left_out=(f"{left_out} images or hands, each with its reason in {ABOUT}",) if left_out else (),
        )
        if not os.path.isfile(self.image_path(0)):  # unlike Path.is_file, false for a name that is too long
            raise FileNotFoundError(f"no image {one_line(self.image_path(0))}, the first that was labelled")

    def __len__(self) -> int:
        return len(self.rows)

    def raw_sample(self, index: int) -> RawSample:
        labels = self.labels(index)
        assert labels.keypoints is not None
        box = crop.hand_box(np.column_stack((labels.keypoints[:, :2], np.ones(21))), self.cropping.shape)
        return RawSample(self.image_path(index), labels, box, self.is_left(index), upright=True)

    def labels(self, index: int) -> Labels:
        row, table = int(self.rows[index]), self.table
        joints = table.joints[row].astype(np.float64)
        joints[:, :3] += IN_FRONT
        vertices = None
        if table.vertices:
            part = int(np.searchsorted(table.ends, row, side="right"))
            vertices = table.vertices[part][row - table.ends[part]].astype(np.float64)  # counted from the part's end
            if not np.isfinite(vertices).all():
                raise ValueError(f"{self.root}: the vertices of hand {row} are not finite: label the images again")
            vertices += IN_FRONT
        pose, betas = table.pose, table.betas
        return Labels(
            table.keypoints[row].astype(np.float64),
            joints,
            vertices,
            None if pose is None else pose[row].astype(np.float64),
            None if betas is None else betas[row].astype(np.float64),
        )

    def image_path(self, index: int) -> Path:
        return self.images / self._name(index)

    def is_left(self, index: int) -> bool:
        return not self.table.right[self.rows[index]]

    def sample_name(self, index: int) -> str:
        """The image's path in its folder, and the hand's side."""
        return f"{self._name(index)}:{'left' if self.is_left(index) else 'right'}"

    def _name(self, index: int) -> str:
        return self.table.names[self.rows[index]].decode("utf-8", "surrogateescape")


def _first_folder(root: Path, folders: list[str]) -> Path:
    for folder in folders:
        if (root / folder).is_dir():
            return root / folder
    missing = one_line(" or ".join(folders))
    raise FileNotFoundError(
        f"{root}: no folder {missing} of images: put the path of the images first in the list `images` of "
        f"{root / ABOUT}"
    )
