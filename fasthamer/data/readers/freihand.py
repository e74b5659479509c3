"""FreiHAND (Zimmermann et al. 2019) in its official layout, and other datasets in the same layout.

    ROOT/training/rgb/00000000.jpg ...      K, xyz (metres, camera frame, OpenPose order): required for training
    ROOT/training_{K,xyz,verts,mano}.json   verts and mano: used if present
    ROOT/evaluation/rgb/..., evaluation_{K,xyz,...}.json

The training split shows every annotated hand on four backgrounds: image i belongs to annotation i modulo the
number of annotations (32,560). All hands are right hands.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fasthamer.camera import project_pixels
from fasthamer.data import augment
from fasthamer.data.crop import CROPPING, Cropping
from fasthamer.data.dataset import DatasetInfo
from fasthamer.data.label_checks import check_in_front, check_metres, check_sides
from fasthamer.data.readers.base import ImageDataset, RawSample
from fasthamer.data.readers.boxes import Boxes
from fasthamer.data.sample import Labels
from fasthamer.files.json_records import JsonRecords
from fasthamer.hand.mano import Hand

_SHAPES = {"K": (3, 3), "xyz": (21, 3), "verts": (778, 3), "mano": (1, 61)}
_SITE = "https://lmb.informatik.uni-freiburg.de/resources/datasets/FreihandDataset.en.html"


class FreiHAND(ImageDataset):
    """All images of a split, in the order of their numbers.

    Vertices and MANO parameters are labels only with a MANO file: the embedded hand has another surface and other
    parameters, so with it only joints and keypoints are used. Poses on disk are relative to MANO's mean pose, which
    is added here.

    Args:
        root: the folder that contains `training/` and the JSON files.
        split: training or evaluation.
        hand: the hand model that the labels are for.
        image_size, strength, seed, cropping: see `ImageDataset`.
        box: see `fasthamer.data.readers.boxes.Boxes`; HaMeR evaluates FreiHAND with `image`. Images without
            joints always use the whole image.
        meshes: whether vertices are read.
        cache: see `fasthamer.files.index.cached`.

    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: the numbers of annotations and images do not match.
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
        cache: str = "auto",
    ) -> None:
        super().__init__(image_size, strength, seed, cropping)
        self.root, self.split = Path(root), split
        self.boxes = Boxes(box, cropping.shape)
        self.folder = self.root / split / "rgb"
        if not self.folder.is_dir():
            raise FileNotFoundError(f"no folder {self.folder}: DATA.ROOT must be an unpacked FreiHAND set ({_SITE})")
        names = ["K", "xyz"] if hand.is_embedded else ["K", "xyz", "verts", "mano"] if meshes else ["K", "xyz", "mano"]
        required = ("K", "xyz") if split == "training" else ()
        self.records = {
            name: self._open(name, cache) for name in names if name in required or self._path(name).is_file()
        }
        # FreiHAND's joints are regressed from its meshes, those of its secret test set too; other datasets in its
        # layout have joints without meshes.
        meshes_of = [self.root / f"{part}_{name}.json" for part in (split, "training") for name in ("verts", "mano")]
        own = any(path.is_file() for path in meshes_of) or not self._path("xyz").is_file()
        self.info = DatasetInfo(
            "FreiHAND",
            "freihand",
            "freihand" if own else "hamer",
            meshes="verts" in self.records,
            poses="mano" in self.records,
            cameras="K" in self.records,
        )
        self.hands_mean = hand.hands_mean.reshape(15, 3)
        self.size = _count_images(self.folder)
        self._check_lengths()
        if "xyz" in self.records:
            xyz = self.records["xyz"]
            check_sides(xyz.__getitem__, self.is_left, len(xyz), str(xyz.path))

    def __len__(self) -> int:
        return self.size

    def raw_sample(self, index: int) -> RawSample:
        image, labels = self.image_path(index), self.labels(index)
        return RawSample(image, labels, self.boxes(image, image.name, labels.keypoints))

    def labels(self, index: int) -> Labels:
        found = {name: records[index % len(records)] for name, records in self.records.items()}
        keypoints = joints = pose = betas = None
        if "xyz" in found:
            where = f"{self._path('xyz')}: record {index % len(self.records['xyz'])}"
            check_metres(found["xyz"], where)
            check_in_front(found["xyz"], where)
            joints = np.column_stack((found["xyz"], np.ones(21)))
            if "K" in found:
                keypoints = np.column_stack((project_pixels(found["xyz"], found["K"]), np.ones(21)))
        if "mano" in found:
            pose = found["mano"][0, :48].reshape(16, 3).copy()
            pose[1:] += self.hands_mean
            betas = found["mano"][0, 48:58]
        return Labels(keypoints, joints, found.get("verts"), pose, betas)

    def image_path(self, index: int) -> Path:
        return self.folder / f"{self.sample_name(index)}.jpg"

    def is_left(self, index: int) -> bool:
        return False

    def camera(self, index: int) -> NDArray[np.float64]:
        """(3, 3) intrinsics of the image, pixels.

        Raises:
            FileNotFoundError: the dataset has no intrinsics.
        """
        if "K" not in self.records:
            raise FileNotFoundError(f"{self._path('K')} is missing: the camera is unknown without it")
        return self.records["K"][index % len(self.records["K"])]

    def sample_name(self, index: int) -> str:
        return f"{index:08d}"

    def _path(self, name: str) -> Path:
        return self.root / f"{self.split}_{name}.json"

    def _open(self, name: str, cache: str) -> JsonRecords:
        try:
            return JsonRecords(self._path(name), _SHAPES[name], cache)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}: FreiHAND's {self.split} split needs it ({_SITE})") from None

    def _check_lengths(self) -> None:
        lengths = {self._path(name).name: len(records) for name, records in self.records.items()}
        if not lengths:
            return
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise ValueError(f"{self.root}: the JSON files have different lengths ({listed}): they are not of one set")
        length = next(iter(lengths.values()))
        if self.size % length:
            raise ValueError(
                f"{self.folder} holds {self.size} images, {next(iter(lengths))} {length} annotations: "
                "expected one image, or a fixed number of backgrounds, for each annotation"
            )


def _count_images(folder: Path) -> int:
    """The number of images, those included that are missing between others: reading such a one raises its own error.

    Raises:
        ValueError: no images.
    """
    with os.scandir(folder) as entries:
        names = {entry.name for entry in entries if entry.name.endswith(".jpg")}
    if not names:
        raise ValueError(f"{folder} holds no .jpg images")
    last = max(names).removesuffix(".jpg")
    if not last.isdecimal():
        raise ValueError(f"{folder}: {last}.jpg is no image of FreiHAND, whose names are numbers")
    return int(last) + 1
