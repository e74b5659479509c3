"""HO-3D, versions 2 and 3 (Hampali et al. 2020, 2021): right hands holding objects.

    ROOT/train.txt, evaluation.txt                      lines SEQUENCE/ID, in the order of the official predictions
    ROOT/train/ABF10/rgb/0000.png (v2) or .jpg (v3)
    ROOT/train/ABF10/meta/0000.pkl                      handPose, handTrans, handBeta, handJoints3D, camMat
    ROOT/evaluation/SM1/meta/0000.pkl                   handBoundingBox, handJoints3D (the wrist alone), camMat
    ROOT/evaluation_xyz.json, evaluation_verts.json     evaluation labels, released in 2024: used if present

On disk the axes are OpenGL's (y up, the hand at negative z), joints are in MANO's order and poses absolute. This reader
converts to x right, y down, z forward, and OpenPose's joint order.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fasthamer.data import augment
from fasthamer.data.articulation import Articulation, articulation_of
from fasthamer.data.crop import CROPPING, Cropping
from fasthamer.data.dataset import DatasetInfo
from fasthamer.data.label_checks import check_in_front, check_metres, check_sides
from fasthamer.data.readers.base import ImageDataset, RawSample, mano_vertices
from fasthamer.data.readers.boxes import Boxes
from fasthamer.data.sample import Labels
from fasthamer.files import safe_pickle
from fasthamer.files.json_records import JsonRecords
from fasthamer.hand.conventions import MANO_TO_OPENPOSE
from fasthamer.hand.mano import Hand
from fasthamer.hand.rotation import axis_angle_to_matrix, matrix_to_axis_angle
from fasthamer.one_line import one_line
from fasthamer.registry import unknown

SITE = "https://github.com/shreyashampali/ho3d"
SPLITS = {"training": "train", "train": "train", "evaluation": "evaluation"}
_ORDER = list(MANO_TO_OPENPOSE)
OPENGL = np.array([1.0, -1.0, -1.0])  # rotation by 180 degrees about x, not a mirroring: right hands stay right hands


class HO3D(ImageDataset):
    """The samples of train.txt or evaluation.txt, in their order.

    A sample without annotation (None in its file) has no labels. Evaluation samples have the position of the wrist and
    a box, and all labels if the released label files lie beside evaluation.txt.

    Args:
        root: the folder that contains `train/`, `evaluation/` and the lists.
        split: training (or train), or evaluation.
        hand: the hand model that the labels are for; with the embedded hand only joints and keypoints are labels.
        image_size, strength, seed, cropping: see `ImageDataset`.
        box: see `fasthamer.data.readers.boxes.Boxes`; HaMeR's list is ho3d_val.npz (version 2).
        meshes: whether vertices are computed from the parameters, or read.
        cache: see `fasthamer.files.index.cached`.

    Raises:
        FileNotFoundError: a file of the layout is missing.
        ValueError: no such split, or files whose lengths do not match.
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
        if split not in SPLITS:
            raise ValueError(unknown("HO-3D split", split, SPLITS))
        self.root, self.split, self.boxes = Path(root), SPLITS[split], Boxes(box, cropping.shape)
        self.names = _read_list(self.root, self.split)
        self.suffix = _image_suffix(self.root / self.split, str(self.names[0]))
        self.hand = None if hand.is_embedded else hand
        self.meshes = meshes and self.hand is not None
        self.released = {}
        if self.split == "evaluation":
            self.released = _read_released_labels(self.root, len(self.names), self.meshes, cache)
        has_meshes = self.meshes and (self.split == "train" or "verts" in self.released)
        self.info = DatasetInfo("HO3D", "ho3d", "ho3d", has_meshes, poses=self.split == "train", cameras=True)
        check_sides(self._complete_joints, self.is_left, len(self), f"{self.root} {self.split}")

    def __len__(self) -> int:
        return len(self.names)

    def raw_sample(self, index: int) -> RawSample:
        image, meta = self.image_path(index), self._meta(index)
        labels, seen, corners = self._labels(index, meta), None, None
        if labels.keypoints is not None and labels.keypoints[:, 2].all():
            seen = labels.keypoints
        if meta.get("handBoundingBox") is not None:
            corners = _array(meta, "handBoundingBox", (4,), str(self._meta_path(index))).reshape(2, 2)
        return RawSample(image, labels, self.boxes(image, self._hamer_name(index), seen, corners))

    def labels(self, index: int) -> Labels:
        return self._labels(index, self._meta(index))

    def articulation(self, index: int) -> Articulation | None:
        """See `ImageDataset.articulation`; poses on disk are absolute, so no MANO file is needed."""
        meta = self._meta(index)
        if self.split == "evaluation" or not self._joints(index, meta)[1].any():
            return None
        pose, betas = _pose(meta, str(self._meta_path(index)))
        return articulation_of(pose, None if self.hand is None else betas)

    def image_path(self, index: int) -> Path:
        sequence, number = self.sample_name(index).split("/")
        return self.root / self.split / sequence / "rgb" / f"{number}{self.suffix}"

    def is_left(self, index: int) -> bool:
        return False

    def camera(self, index: int) -> NDArray[np.float64]:
        """(3, 3) intrinsics of the image, pixels."""
        return self._matrix(self._meta(index), str(self._meta_path(index)))

    def sample_name(self, index: int) -> str:
        """SEQUENCE/ID as in the lists."""
        return str(self.names[index])

    def _hamer_name(self, index: int) -> str:
        return self.sample_name(index).replace("/", "/rgb/") + ".png"

    def _meta_path(self, index: int) -> Path:
        sequence, number = self.sample_name(index).split("/")
        return self.root / self.split / sequence / "meta" / f"{number}.pkl"

    def _meta(self, index: int) -> dict[str, Any]:
        path = self._meta_path(index)
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: {self.split}.txt names it")
        meta = safe_pickle.loads(path.read_bytes(), source=str(path))
        if not isinstance(meta, dict) or "camMat" not in meta:
            raise ValueError(f"{path}: not an annotation of HO-3D (a dict with camMat and handJoints3D)")
        return meta

    def _matrix(self, meta: dict[str, Any], where: str) -> NDArray[np.float64]:
        return _array(meta, "camMat", (3, 3), where)

    def _joints(self, index: int, meta: dict[str, Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Joints (21, 3) in OpenPose order and our camera frame, and which of them are known (21,)."""
        joints, known = np.zeros((21, 3)), np.zeros(21, bool)
        where = str(self._meta_path(index))
        if "xyz" in self.released:
            joints, known = self.released["xyz"][index][_ORDER], ~known
        elif self.split == "evaluation":
            joints[0], known[0] = _array(meta, "handJoints3D", (3,), where), True
        elif meta.get("objRot") is not None and meta.get("handJoints3D") is not None:  # else: no annotation
            joints, known = _array(meta, "handJoints3D", (21, 3), where)[_ORDER], ~known
        return joints * OPENGL, known

    def _labels(self, index: int, meta: dict[str, Any]) -> Labels:
        joints, known = self._joints(index, meta)
        if not known.any():
            return Labels()
        where = str(self._meta_path(index))
        if known.all():
            check_metres(joints, where)
        check_in_front(joints[known], where)
        keypoints = np.zeros((21, 3))
        keypoints[known] = np.column_stack((_project(joints[known], self._matrix(meta, where)), known[known]))
        pose, betas, vertices = self._parameters(index, meta, where)
        return Labels(keypoints, np.column_stack((joints, known)), vertices, pose, betas)

    def _parameters(
        self, index: int, meta: dict[str, Any], where: str
    ) -> tuple[NDArray | None, NDArray | None, NDArray | None]:
        """Pose (16, 3), betas (10,) and vertices (778, 3) in our camera frame; None for what is not a label."""
        if self.hand is None:
            return None, None, None
        if self.split == "evaluation":
            return None, None, self.released["verts"][index] * OPENGL if "verts" in self.released else None
        pose, betas = _pose(meta, where)
        translation = _array(meta, "handTrans", (3,), where)
        vertices = mano_vertices(self.hand, pose, betas, translation) * OPENGL if self.meshes else None
        turned = torch.from_numpy(np.diag(OPENGL)) @ axis_angle_to_matrix(torch.from_numpy(pose[0]))
        pose[0] = matrix_to_axis_angle(turned).numpy()
        return pose, betas, vertices

    def _complete_joints(self, index: int) -> NDArray | None:
        joints, known = self._joints(index, self._meta(index))
        return joints if known.all() else None


def _pose(meta: dict[str, Any], where: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Absolute axis-angles (16, 3) in OpenGL's axes, and betas (10,)."""
    return _array(meta, "handPose", (48,), where).reshape(16, 3), _array(meta, "handBeta", (10,), where)


def _project(points: NDArray, K: NDArray) -> NDArray[np.float64]:
    image = points @ K.T
    return image[:, :2] / image[:, 2:]


def _read_list(root: Path, split: str) -> NDArray[np.str_]:
    """The sample names of a split, in the order of its list."""
    path = root / f"{split}.txt"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: DATA.ROOT must be the unpacked HO-3D ({SITE})")
    try:
        names = path.read_text(encoding="utf-8-sig").split()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text file, expected lines such as ABF10/0000") from None
    malformed = [name for name in names if name.count("/") != 1 or ".." in name or name[0] == "/" or name[-1] == "/"]
    if malformed or not names:
        raise ValueError(
            f"{path}: {f'{malformed[0][:60]!r}' if malformed else 'empty'}, expected lines such as ABF10/0000"
        )
    return np.array(names)


def _image_suffix(folder: Path, name: str) -> str:
    """Suffix of the image files: .png in version 2, .jpg in version 3."""
    sequence, number = name.split("/")
    for suffix in (".png", ".jpg"):
        if (folder / sequence / "rgb" / f"{number}{suffix}").is_file():
            return suffix
    raise FileNotFoundError(f"no image {folder / sequence / 'rgb' / number}.png (version 2) or .jpg (version 3)")


def _read_released_labels(root: Path, length: int, meshes: bool, cache: str) -> dict[str, JsonRecords]:
    """The released labels of the evaluation split, as far as the files are present."""
    released = {}
    for name, shape in (("xyz", (21, 3)), ("verts", (778, 3))):
        path = root / f"evaluation_{name}.json"
        if path.is_file() and (meshes or name == "xyz"):
            released[name] = JsonRecords(path, shape, cache)
            if len(released[name]) != length:
                raise ValueError(
                    f"{path} has {len(released[name])} records, evaluation.txt {length} lines: they are of two versions"
                )
    return released


def _array(meta: dict[str, Any], key: str, shape: tuple[int, ...], where: str) -> NDArray[np.float64]:
    try:
        array = np.array(meta[key], np.float64)
    except KeyError:
        raise ValueError(f"{where}: {key} is missing (it has: {one_line(', '.join(map(str, meta)))})") from None
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{where}: {key} is {str(meta[key])[:60]!r}, expected numbers") from None
    if array.size != np.prod(shape):
        raise ValueError(f"{where}: {key} has shape {array.shape}, expected {shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{where}: {key} holds numbers that are not finite: correct it or leave the sample out")
    return array.reshape(shape)
