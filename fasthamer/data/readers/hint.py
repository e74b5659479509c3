"""HInt (Pavlakos et al. 2024): hands in the wild with 2D keypoints, occluded ones marked.

    ROOT/{TRAIN,VAL,TEST}_{newdays,epick,ego4d}_img/NAME.jpg, NAME.json     and VAL_ego4d_seq, TEST_ego4d_seq
    ROOT/TEST_newdays_img_{all,vis,occ}.npz ...                             HaMeR's evaluation lists, optional

Each JSON file is a list with one hand: `keypoints` (21, 2) pixels in OpenPose order, `occlusion` (21,) with 1 for
occluded, `bbox` [[x1, y1, x2, y2]]. The file name ends in _l or _r. A keypoint is valid if it lies inside the image.
(In HaMeR's list of newdays, every keypoint of confidence 0 lies outside the range of the valid keypoints of its
video.)
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fasthamer.data import augment, crop
from fasthamer.data.crop import CROPPING, Cropping
from fasthamer.data.dataset import DatasetInfo
from fasthamer.data.readers.base import ImageDataset, RawSample
from fasthamer.data.sample import Labels
from fasthamer.files.images import read_image_size
from fasthamer.files.safe_json import read_json
from fasthamer.files.safe_npz import read_npz
from fasthamer.hand.sides import are_right
from fasthamer.one_line import one_line
from fasthamer.types import N_JOINTS

FOLDERS = {"training": "TRAIN_*_img", "evaluation": "TEST_*_img"}  # split: pattern of the official folders
POINTS = ("all", "vis", "occ")  # valid keypoints: all, visible, occluded
_SPLIT = re.compile(r"(training|evaluation|(?:TRAIN|VAL|TEST)_(?:newdays|epick|ego4d)_(?:img|seq))(?:_(all|vis|occ))?")
_LIST: dict[str, tuple[int | None, ...]] = {  # the arrays read from HaMeR's lists
    "imgname": (None,),
    "center": (None, 2),
    "scale": (None, 2),
    "right": (None,),
    "hand_keypoints_2d": (None, N_JOINTS, 3),
}
_SITE = "https://github.com/ddshan/hint"


class HInt(ImageDataset):
    """Labels are 2D keypoints. The crop's side is twice the annotated box's larger side, as in HaMeR's evaluation.

    Args:
        root: the folder that contains the official folders.
        split: an official folder's name; or training or evaluation: all `_img` folders of that split that hold images.
            Either may end in _vis or _occ: only visible or only occluded keypoints are valid. Or the name of one of
            HaMeR's .npz lists in `root` (or a path); its images lie in the folder of the same name.
        image_size, strength, seed, cropping: see `ImageDataset`.

    Raises:
        FileNotFoundError: a folder, list or image is missing.
        ValueError: no such split, or a damaged list.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        image_size: int = 256,
        strength: augment.Strength | None = None,
        seed: int = 0,
        cropping: Cropping = CROPPING,
    ) -> None:
        super().__init__(image_size, strength, seed, cropping)
        self.root = Path(root)
        if not self.root.is_dir():
            raise FileNotFoundError(f"no folder {self.root}: DATA.ROOT must be the unpacked HInt ({_SITE})")
        self._list = _HaMeRList(self.root, split) if split.endswith(".npz") else None
        self._names: list[tuple[Path, str]] = []  # folder and file name without extension
        self.points = "all"
        without_images: tuple[str, ...] = ()
        if self._list is None:
            self._names, self.points, without_images = self._find(split)
        left_out = (f"{', '.join(without_images)} (folders without images)",) if without_images else ()
        self.info = DatasetInfo("HInt", "hint", boxes=True, left_out=left_out)

    def __len__(self) -> int:
        return len(self._names) if self._list is None else len(self._list)

    def raw_sample(self, index: int) -> RawSample:
        if self._list is not None:
            return self._list.raw_sample(index, self.cropping.shape)
        path = self.image_path(index)
        hand = read_hand(path.with_suffix(".json"))
        width, height = read_image_size(path, upright=False)
        x, y = hand.keypoints.T
        valid = (x >= 0) & (y >= 0) & (x < width) & (y < height)
        # Of all annotated keypoints, so that the crop is the same whichever are scored.
        rotation = crop.shape_rotation(self.cropping.shape, np.column_stack((hand.keypoints, valid)))
        if self.points != "all":
            valid &= hand.occluded == (self.points == "occ")
        labels = Labels(keypoints=np.column_stack((hand.keypoints, valid)))
        box = box_of(hand.low, hand.high - hand.low)._replace(rotation=rotation)
        return RawSample(path, labels, box, self.is_left(index))

    def image_path(self, index: int) -> Path:
        if self._list is not None:
            return self._list.image_path(index)
        folder, name = self._names[index]
        return folder / f"{name}.jpg"

    def is_left(self, index: int) -> bool:
        if self._list is not None:
            return not self._list.right[index]
        return self._names[index][1].endswith("_l")

    def sample_name(self, index: int) -> str:
        """The image's file name, as in HaMeR's lists."""
        return self.image_path(index).name

    def _find(self, split: str) -> tuple[list[tuple[Path, str]], str, tuple[str, ...]]:
        """Folders and names, which keypoints are valid, and folders without images (users download Ego4D)."""
        match = _SPLIT.fullmatch(split)
        if match is None:
            raise ValueError(
                f"HInt has no split {split!r}: expected training, evaluation, a folder such as TEST_newdays_img "
                "(each may end in _vis or _occ), or one of HaMeR's .npz lists"
            )
        folder, points = match.group(1), match.group(2) or "all"
        if folder not in FOLDERS:
            return _pairs(self.root / folder), points, ()
        names: list[tuple[Path, str]] = []
        without_images = []
        for path in sorted(self.root.glob(FOLDERS[folder])):
            if any(each.suffix == ".jpg" for each in path.iterdir()):
                names += _pairs(path)
            else:
                without_images.append(path.name)
        if not names:
            raise FileNotFoundError(f"{self.root} has no folder {FOLDERS[folder]} with images ({_SITE})")
        return names, points, tuple(without_images)


class Annotation(NamedTuple):
    """The content of a JSON file of HInt."""

    keypoints: np.ndarray  # (21, 2) pixels, possibly outside the image
    occluded: np.ndarray  # (21,) bool
    low: np.ndarray  # (2,) upper left corner of the box, pixels
    high: np.ndarray  # (2,) lower right corner


def read_hand(path: Path) -> Annotation:
    """The annotation of one image.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not in HInt's format; the message names the file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: every image of HInt has one ({_SITE})")
    content = read_json(path)
    try:
        (record,) = content
        keypoints = np.array(record["keypoints"], dtype=np.float64).reshape(N_JOINTS, 2)
        occluded = np.array(record["occlusion"]).astype(bool).reshape(N_JOINTS)
        corners = np.array(record["bbox"], dtype=np.float64).reshape(2, 2)
    except KeyError as error:
        raise ValueError(f"{path}: no {error}; a hand of HInt has keypoints, occlusion and bbox") from None
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{path}: not one hand of HInt ({one_line(error)}); unpack it again") from None
    if not (np.isfinite(keypoints).all() and np.isfinite(corners).all()):
        raise ValueError(f"{path}: numbers that are not finite")
    if not (corners[1] > corners[0]).all():
        raise ValueError(f"{path}: box {corners.ravel().tolist()} is empty, expected x1, y1, x2, y2")
    return Annotation(keypoints, occluded, *corners)


def box_of(low: np.ndarray, extent: np.ndarray) -> crop.Box:
    """HaMeR's evaluation box: square, twice the annotated box's larger side.

    PCK divides distances by the annotated box's larger side, which is half the crop.
    """
    return crop.Box(low + extent / 2, float(max(extent.max() * crop.BOX_FACTOR, 2.0)))


class _HaMeRList:
    """One of HaMeR's evaluation lists (`hamer_evaluation_data/*.npz`): boxes in pixels, confidence 0 or 1."""

    def __init__(self, root: Path, split: str) -> None:
        self.path = root / split  # an absolute path stays as it is
        if not self.path.is_file():
            raise FileNotFoundError(f"no list {self.path}: HaMeR's evaluation data hold it")
        arrays = read_npz(self.path, _LIST)
        if len({len(array) for array in arrays.values()}) > 1:
            raise ValueError(f"{self.path}: its arrays have different lengths")
        if arrays["scale"].min() <= 0:
            raise ValueError(f"{self.path}: boxes without extent")
        self.names, self.right = arrays["imgname"], _right_of(arrays["right"], self.path)
        self.centre, self.extent, self.keypoints = arrays["center"], arrays["scale"], arrays["hand_keypoints_2d"]
        self.folder = root / re.sub(r"_(all|vis|occ)$", "", self.path.stem)
        if not self.folder.is_dir():
            raise FileNotFoundError(f"no folder {self.folder} with the images of {self.path.name} ({_SITE})")

    def __len__(self) -> int:
        return len(self.names)

    def image_path(self, index: int) -> Path:
        return self.folder / str(self.names[index])

    def raw_sample(self, index: int, shape: str) -> RawSample:
        keypoints = self.keypoints[index].astype(np.float64)
        labels, rotation = Labels(keypoints=keypoints), crop.shape_rotation(shape, keypoints)
        box = box_of(self.centre[index] - self.extent[index] / 2, self.extent[index])._replace(rotation=rotation)
        return RawSample(self.image_path(index), labels, box, not self.right[index])


def _pairs(folder: Path) -> list[tuple[Path, str]]:
    """The images of a folder that each have an annotation, sorted by name.

    Raises:
        FileNotFoundError: no such folder, or an image or annotation is missing.
        ValueError: a file name without the hand's side.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}: DATA.ROOT must be the unpacked HInt ({_SITE})")
    images = {path.stem for path in folder.glob("*.jpg")}
    annotations = {path.stem for path in folder.glob("*.json")}
    if not images:
        frames = ": Ego4D's frames have to be fetched separately" if "ego4d" in folder.name else ""
        raise FileNotFoundError(f"{folder} holds no .jpg images{frames} ({_SITE})")
    if unpaired := sorted(images ^ annotations):
        missing = "json" if unpaired[0] in images else "jpg"
        raise FileNotFoundError(f"{folder}: {unpaired[0]}.{missing} is missing, {len(unpaired)} pairs are incomplete")
    without_side = next((name for name in sorted(images) if name[-2:] not in ("_l", "_r")), None)
    if without_side is not None:
        raise ValueError(f"{folder}: {without_side}.jpg does not name its hand's side; HInt's names end in _l or _r")
    return [(folder, name) for name in sorted(images)]


def _right_of(values: np.ndarray, path: Path) -> np.ndarray:
    try:
        return are_right(values)
    except ValueError as error:
        raise ValueError(f"{path}: right: {error}") from None
