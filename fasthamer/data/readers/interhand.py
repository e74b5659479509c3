"""InterHand2.6M (Moon et al. 2020): COCO's JSON, with cameras and 3D joints of both hands in separate files.

    ROOT/annotations/SPLIT/InterHand2.6M_SPLIT_{data,camera,joint_3d}.json     SPLIT: train, val or test
    ROOT/images/SPLIT/Capture0/...

On disk, joints are millimetres in the world frame: first the right hand's 21, then the left hand's, each finger from
tip to knuckle and the wrist last. This reader converts to metres in the camera frame and OpenPose order.
The MANO fits published by the authors (NeuralAnnot) are not read.
"""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthamer.camera import project_pixels
from fasthamer.data import augment, crop
from fasthamer.data.crop import CROPPING, Cropping
from fasthamer.data.dataset import DatasetInfo
from fasthamer.data.label_checks import check_in_front, check_metres, check_sides
from fasthamer.data.readers.base import MINIMUM_KEYPOINTS, ImageDataset, RawSample
from fasthamer.data.readers.coco import LARGE, find_images, find_rows, read_coco
from fasthamer.data.sample import Labels
from fasthamer.files.index import Arrays, cached
from fasthamer.files.json_stream import JsonStream
from fasthamer.files.safe_json import read_json
from fasthamer.hand.conventions import INTERHAND_TO_OPENPOSE
from fasthamer.one_line import one_line
from fasthamer.types import N_JOINTS

SPLITS = {"training": "train", "evaluation": "test"}  # to the official names
_SITE = "https://mks0601.github.io/InterHand2.6M/"


class InterHand(ImageDataset):
    """One sample for each hand of each image, the right hand first; needs no MANO file.

    As in the official code, a joint is a label if `joint_valid` is set (annotated and inside the image), and a 3D label
    only if the wrist is valid too.

    Args:
        root: the folder with `annotations` and `images`, or with their content directly in it.
        split: training, evaluation, or an official name: train, val, test.
        image_size, strength, seed, cropping: see `ImageDataset`.
        cache: see `fasthamer.files.index.cached`.

    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: a file is damaged, the three files do not match, or left and right are swapped.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        image_size: int = 256,
        strength: augment.Strength | None = None,
        seed: int = 0,
        cropping: Cropping = CROPPING,
        cache: str = "auto",
    ) -> None:
        super().__init__(image_size, strength, seed, cropping)
        name = SPLITS.get(split, split)
        self.file = _find(Path(root), name)
        joints = _sibling_file(self.file, "joint_3d")
        found = cached(
            f"interhand {self.file.resolve()}",
            [self.file, joints],
            lambda: {**_read_data(self.file), **_read_joints(joints)},
            cache if self.file.stat().st_size >= LARGE else "none",
        )
        self.images = _Images(*(found[key] for key in _Images._fields))
        self.hands = _Hands(*(found[key] for key in _Hands._fields))
        if not len(self.hands.image):
            raise ValueError(f"{self.file}: no hand with {MINIMUM_KEYPOINTS} joints or more among its annotations")
        self.world, self.measured = found["world"], found["measured"]
        self.frames = {(capture, frame): row for row, (capture, frame) in enumerate(found["moments"].tolist())}
        self.cameras = _read_cameras(_sibling_file(self.file, "camera"))
        first = self.images.names[self.hands.image[0]].decode()
        official = Path(root) / "images" / name
        self.folder = official if official.is_dir() else find_images(Path(root), first)
        self.info = DatasetInfo("InterHand", cameras=True, source=self.file)
        check_sides(self._complete_joints, self.is_left, len(self), str(self.file))

    def __len__(self) -> int:
        return len(self.hands.image)

    def raw_sample(self, index: int) -> RawSample:
        left, where = self.is_left(index), f"{self.file}: hand {index} ({self.sample_name(index)})"
        row = self._frame(index)
        part = slice(N_JOINTS, None) if left else slice(0, N_JOINTS)
        rotation, position, intrinsics = self._camera(index)
        millimetres = (self.world[row, part].astype(np.float64) - position) @ rotation.T
        joints = millimetres[list(INTERHAND_TO_OPENPOSE)] / 1000
        measured = self.measured[row, part][list(INTERHAND_TO_OPENPOSE)]
        valid = self.hands.valid[index][list(INTERHAND_TO_OPENPOSE)] & measured  # the two files may disagree
        if not measured.any():
            raise ValueError(
                f"{where}: joint_valid is set in {self.file.name} and for no joint in "
                f"{_sibling_file(self.file, 'joint_3d').name}: the two files do not belong together"
            )
        if valid[0] and valid[9]:
            check_metres(joints, where)
        check_in_front(joints[measured], where)
        pixels = project_pixels(np.where(measured[:, None], joints, (0, 0, 1)), intrinsics)
        labels = Labels(keypoints=np.column_stack((pixels, valid)), joints=np.column_stack((joints, valid & valid[0])))
        box = crop.hand_box(np.column_stack((pixels, measured)), self.cropping.shape)
        return RawSample(self.image_path(index), labels, box, left)

    def image_path(self, index: int) -> Path:
        return self.folder / self.images.names[self.hands.image[index]].decode()

    def is_left(self, index: int) -> bool:
        return bool(self.hands.left[index])

    def camera(self, index: int) -> NDArray[np.float64]:
        """(3, 3) intrinsics of the image of hand `index`."""
        return self._camera(index)[2]

    def sample_name(self, index: int) -> str:
        """The image's name and the hand's side."""
        name = self.images.names[self.hands.image[index]].decode()
        return f"{name}:{'left' if self.hands.left[index] else 'right'}"

    def _complete_joints(self, index: int) -> NDArray[np.float64] | None:
        """The joints (21, 3) of hand `index`; None unless all are labels."""
        joints = self.labels(index).joints
        return joints[:, :3] if joints is not None and joints[:, 3].all() else None

    def _camera(self, index: int) -> _Camera:
        row = self.hands.image[index]
        key = int(self.images.captures[row]), self.images.cameras[row].decode()
        if key not in self.cameras:
            raise ValueError(f"{_sibling_file(self.file, 'camera')} has no camera {key[1]} of capture {key[0]}")
        return self.cameras[key]

    def _frame(self, index: int) -> int:
        row = self.hands.image[index]
        key = int(self.images.captures[row]), int(self.images.frames[row])
        if key not in self.frames:
            raise ValueError(f"{_sibling_file(self.file, 'joint_3d')} has no frame {key[1]} of capture {key[0]}")
        return self.frames[key]


class _Images(NamedTuple):
    """The images of a split; N images."""

    names: NDArray[np.bytes_]  # (N,) file names
    captures: NDArray[np.int32]  # (N,)
    cameras: NDArray[np.bytes_]  # (N,) camera names
    frames: NDArray[np.int32]  # (N,)


class _Hands(NamedTuple):
    """The hands in the images; M hands."""

    image: NDArray[np.int64]  # (M,) row of `_Images`
    left: NDArray[np.bool_]  # (M,)
    valid: NDArray[np.bool_]  # (M, 21) in the file's joint order


class _Camera(NamedTuple):
    rotation: NDArray[np.float64]  # (3, 3) world to camera
    position: NDArray[np.float64]  # (3,) in the world, millimetres
    intrinsics: NDArray[np.float64]  # (3, 3) pixels


def _find(root: Path, name: str) -> Path:
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}: DATA.ROOT must be an unpacked InterHand2.6M ({_SITE})")
    for folder in (root / "annotations" / name, root / "annotations" / "all", root / "annotations", root):
        for path in sorted(folder.glob("*_data.json")):
            if name in path.name.lower().split("_"):
                return path
    raise FileNotFoundError(f"{root}: no InterHand2.6M_{name}_data.json in it or its annotations ({_SITE})")


def _sibling_file(data: Path, kind: str) -> Path:
    return data.with_name(data.name.replace("_data.json", f"_{kind}.json"))


def _read_data(path: Path) -> Arrays:
    """The images and hands of a split, collected in plain arrays because the training split has 1.4 million images.

    Returns:
        the fields of `_Images` and `_Hands`.
    """
    names: list[bytes] = []
    cameras: dict[str, bytes] = {}  # one object per name, not per image
    camera_of: list[bytes] = []
    ids, captures, frames = array("q"), array("i"), array("i")
    images, left, valid = array("q"), array("b"), bytearray()

    def image(record: dict) -> None:
        camera = str(record["camera"])
        camera_of.append(cameras.setdefault(camera, camera.encode()))
        names.append(record["file_name"].encode())
        captures.append(int(record["capture"]))
        frames.append(int(record["frame_idx"]))
        ids.append(int(record["id"]))

    def annotation(record: dict) -> None:
        both = np.array(record["joint_valid"]).astype(bool).reshape(-1)
        if both.size != 2 * N_JOINTS:
            raise ValueError(f"joint_valid of {both.size} joints, expected 42")
        for part in range(2):
            flags = both[part * N_JOINTS : (part + 1) * N_JOINTS]
            if flags.sum() >= MINIMUM_KEYPOINTS:
                images.append(int(record["image_id"]))
                left.append(part)
                valid.extend(flags.tobytes())

    read_coco(path, image, annotation)
    image_columns = _Images(
        np.array(names, dtype=bytes),
        np.array(captures, dtype=np.int32),
        np.array(camera_of, dtype=bytes),
        np.array(frames, dtype=np.int32),
    )
    rows = find_rows(np.array(ids), np.array(images), path)
    flags = np.frombuffer(valid, dtype=bool).reshape(-1, N_JOINTS)
    return {**image_columns._asdict(), **_Hands(rows, np.array(left, dtype=bool), flags)._asdict()}


def _read_cameras(path: Path) -> dict[tuple[int, str], _Camera]:
    """The cameras, by capture and camera name."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing ({_SITE})")
    found, content = {}, read_json(path)
    try:
        for capture, cameras in content.items():
            for name, position in cameras["campos"].items():
                (fx, fy), (cx, cy) = cameras["focal"][name], cameras["princpt"][name]
                rotation = np.array(cameras["camrot"][name], dtype=np.float64).reshape(3, 3)
                intrinsics = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=np.float64)
                found[int(capture), name] = _Camera(rotation, np.array(position, np.float64).reshape(3), intrinsics)
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{path}: damaged ({one_line(error)}); download it again") from None
    except KeyError as error:
        raise ValueError(f"{path}: a camera without {error}; download it again") from None
    return found


def _read_joints(path: Path) -> Arrays:
    """The joints of both hands at each moment (capture and frame).

    Returns:
        `moments` (K, 2) capture and frame, `world` (K, 42, 3) millimetres, `measured` (K, 42) bool.
    """
    moments = []
    world: list[NDArray[np.float32]] = []
    measured: list[NDArray[np.bool_]] = []
    with JsonStream(path) as stream:
        for capture in stream.members():
            for frame in stream.members():
                where = f"{path}: capture {capture}, frame {frame}"
                record = stream.value()
                try:
                    joints = np.array(record["world_coord"], dtype=np.float32)
                    known = np.array(record["joint_valid"]).astype(bool).reshape(-1)
                    moments.append((np.int64(int(capture)), np.int64(int(frame))))
                except (KeyError, TypeError, ValueError, OverflowError) as error:
                    raise ValueError(f"{where}: no world_coord and joint_valid ({one_line(error)})") from None
                if joints.shape != (2 * N_JOINTS, 3) or known.shape != (2 * N_JOINTS,):
                    raise ValueError(f"{where}: {joints.size // 3} joints, expected 42")
                if not np.isfinite(joints[known]).all():
                    raise ValueError(f"{where}: joints that are not finite")
                world.append(joints)
                measured.append(known)
    return {
        "moments": np.array(moments, dtype=np.int64).reshape(-1, 2),
        "world": np.array(world, dtype=np.float32).reshape(-1, 2 * N_JOINTS, 3),
        "measured": np.array(measured, dtype=bool).reshape(-1, 2 * N_JOINTS),
    }
