"""FreiHAND (Zimmermann et al. 2019) in its official layout, and any set of photographs kept in the same layout.

    ROOT/training/rgb/00000000.jpg ...      K, xyz (metres, camera frame, OpenPose order): needed for training
    ROOT/training_{K,xyz,verts,mano}.json   verts and mano: used if there
    ROOT/evaluation/rgb/..., evaluation_{K,xyz,...}.json

The training set shows every annotated hand before four backgrounds: picture i belongs to annotation i modulo the
number of annotations (32,560). All hands are right hands.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from fasthamer.camera import project_pixels
from fasthamer.data import augment, crop
from fasthamer.data.item import Labels, make_item
from fasthamer.data.json_records import JsonRecords
from fasthamer.data.pictures import read_picture
from fasthamer.hand.mano import Hand
from fasthamer.types import Batch

_SHAPES = {"K": (3, 3), "xyz": (21, 3), "verts": (778, 3), "mano": (1, 61)}
_GET_IT = "https://lmb.informatik.uni-freiburg.de/resources/datasets/FreihandDataset.en.html"


class FreiHAND(Dataset):
    """`dataset[(epoch, index)]` is a `Batch` item, a pure function of (seed, epoch, index).

    The vertices and MANO parameters are labels only for a MANO hand: the embedded hand has another surface and other
    parameters, so with it joints and keypoints alone are used. Poses on disk are relative to MANO's mean pose, which
    is added here.

    Args:
        root: the folder that contains `training/` and the JSON files.
        split: training or evaluation.
        hand: whose parameters are to be learned.
        image_size: pixels of the crops.
        strength: of the augmentation; None for none.
        seed: of the augmentation.
        box: keypoints: around the projected joints, see `crop.keypoint_box`; image: the whole picture, as HaMeR
            evaluates this set. Pictures without joints always take the whole picture.

    Raises:
        FileNotFoundError: folder or file missing.
        ValueError: JSON files and pictures that do not fit together.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        hand: Hand,
        image_size: int = 256,
        strength: augment.Strength | None = None,
        seed: int = 0,
        box: str = "keypoints",
    ) -> None:
        if box not in ("keypoints", "image"):
            raise ValueError(f"DATA.BOX is {box!r}, expected keypoints or image")
        self.root, self.split = Path(root), split
        self.image_size, self.strength, self.seed, self.box = image_size, strength, seed, box
        self.folder = self.root / split / "rgb"
        if not self.folder.is_dir():
            raise FileNotFoundError(f"no folder {self.folder}: DATA.ROOT is to be an unpacked FreiHAND set ({_GET_IT})")
        names = ["K", "xyz"] if hand.is_embedded else ["K", "xyz", "verts", "mano"]
        required = ("K", "xyz") if split == "training" else ()
        self.records = {name: self._open(name) for name in names if name in required or self._path(name).is_file()}
        self.hands_mean = hand.hands_mean.reshape(15, 3)
        self.size = _count_pictures(self.folder)
        self._check_lengths()

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        """Item `index` as it looks in epoch `epoch`.

        Raises:
            ValueError: a damaged picture or label; the message names the file.
        """
        epoch, index = key
        if not 0 <= index < self.size:
            raise IndexError(f"sample {index} of {self.size}")
        image = read_picture(self.folder / f"{index:08d}.jpg")
        labels = self.labels(index)
        if labels.keypoints is None or self.box == "image":
            box = crop.image_box(image.shape[1], image.shape[0])
        else:
            box = crop.keypoint_box(labels.keypoints[:, :2])
        change = None
        if self.strength is not None:
            change = augment.draw(np.random.default_rng((self.seed, epoch, index)), self.strength)
        return make_item(image, labels, box, self.image_size, index, change)

    def labels(self, index: int) -> Labels:
        """What the files say about picture `index`, before any crop."""
        found = {name: records[index % len(records)] for name, records in self.records.items()}
        keypoints = joints = pose = betas = None
        if "xyz" in found:
            joints = np.column_stack((found["xyz"], np.ones(21)))
            if "K" in found:
                keypoints = np.column_stack((project_pixels(found["xyz"], found["K"]), np.ones(21)))
        if "mano" in found:
            pose = found["mano"][0, :48].reshape(16, 3).copy()
            pose[1:] += self.hands_mean
            betas = found["mano"][0, 48:58]
        return Labels(keypoints, joints, found.get("verts"), pose, betas)

    def _path(self, name: str) -> Path:
        return self.root / f"{self.split}_{name}.json"

    def _open(self, name: str) -> JsonRecords:
        try:
            return JsonRecords(self._path(name), _SHAPES[name])
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}: FreiHAND's {self.split} split needs it ({_GET_IT})") from None

    def _check_lengths(self) -> None:
        lengths = {self._path(name).name: len(records) for name, records in self.records.items()}
        if not lengths:
            return
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise ValueError(f"{self.root}: the JSON files have different lengths ({told}): they are not of one set")
        length = next(iter(lengths.values()))
        if self.size % length:
            raise ValueError(
                f"{self.folder} holds {self.size} pictures, {next(iter(lengths))} {length} annotations: "
                "expected one picture, or a fixed number of backgrounds, for each annotation"
            )


def _count_pictures(folder: Path) -> int:
    """How many pictures there are.

    Raises:
        ValueError: none, or the numbering has a gap.
    """
    names = {path.name for path in folder.glob("*.jpg")}
    if not names:
        raise ValueError(f"{folder} holds no .jpg pictures")
    gap = next((i for i in range(len(names)) if f"{i:08d}.jpg" not in names), None)
    if gap is not None:
        raise ValueError(f"{folder}: {gap:08d}.jpg is missing among {len(names)} pictures")
    return len(names)
