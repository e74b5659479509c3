"""Hands with 2D keypoints in COCO's JSON: 21 keypoints an annotation, or COCO-WholeBody's two hands a person.

    ROOT/ANY.json or ROOT/annotations/ANY.json      `DATA.SPLIT` is the file's name or a part of it
    ROOT/..., ROOT/images/..., ROOT/ANY/...         the folders that the images' `file_name` may be relative to

Keypoints are pixels. Their order is that of the names in the category's `keypoints`, see
`fasthamer.data.keypoint_names`; without names, and for COCO-WholeBody's hands, it is OpenPose's, wrist first.
Annotations of groups (`iscrowd`) are left out. An annotation's side is its `hand_type` (left or right); without
one, a category name that contains "left" means a left hand; otherwise the hand is taken as a right hand.

An EXIF orientation is applied, as mmpose, detectron2 and current annotation tools do, unless it swaps width and height
and the recorded size of the image is the stored one: then the labels were made without it.
"""

from __future__ import annotations

import codecs
import os
import re
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthamer.data import augment, crop
from fasthamer.data.crop import CROPPING, Cropping
from fasthamer.data.dataset import DatasetInfo
from fasthamer.data.keypoint_names import openpose_order
from fasthamer.data.readers.base import MINIMUM_KEYPOINTS, ImageDataset, RawSample
from fasthamer.data.sample import Labels
from fasthamer.files.index import Arrays, cached
from fasthamer.files.json_stream import JsonStream
from fasthamer.files.pixels import Upright
from fasthamer.one_line import one_line
from fasthamer.types import N_JOINTS

LARGE = 1 << 25  # bytes; the index of an annotation file of at least this size is cached
SPLIT_NAMES = {"training": ("training", "train"), "evaluation": ("evaluation", "test", "val")}


class CocoHands(ImageDataset):
    """One sample for each annotated hand; 2D keypoints are its only labels.

    The crop is drawn around the keypoints if all 21 are known, else around the annotated box: `crop.keypoint_box`.

    Args:
        root: the folder with annotations and images.
        split: the name of an annotation file, or one part of its name; training also finds train, evaluation also test
            and val.
        image_size, strength, seed, cropping: see `ImageDataset`.
        cache: see `fasthamer.files.index.cached`.

    Raises:
        FileNotFoundError: no such folder, annotation file or images.
        ValueError: no COCO JSON, or one without hands.
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
        self.file = find_annotations(Path(root), split)
        # The name of the index changes with its arrays.
        cache = cache if self.file.stat().st_size >= LARGE else "none"
        name = f"coco with sizes, in OpenPose order {self.file.resolve()}"
        table = cached(name, [self.file], lambda: _read(self.file), cache)
        self.keypoints, self.boxes, self.left = table["keypoints"], table["boxes"], table["left"]
        self.sizes = table["sizes"]
        self.names, skipped, crowds = table["names"], int(table["skipped"]), int(table["crowds"])
        left_out = [f"{skipped} hands with too few keypoints"] if skipped else []
        left_out += [f"{crowds} annotations of groups (iscrowd)"] if crowds else []
        self.info = DatasetInfo("CocoHands", "hint", source=self.file, left_out=tuple(left_out))  # 2D labels alone: PCK
        if not len(self.left):
            raise ValueError(
                f"{self.file}: no hand with {MINIMUM_KEYPOINTS} keypoints or more among its annotations "
                f"({skipped} have fewer)"
            )
        self.folder = find_images(Path(root), self.names[0].decode())

    def __len__(self) -> int:
        return len(self.left)

    def raw_sample(self, index: int) -> RawSample:
        keypoints = self.keypoints[index].astype(np.float64)
        box = crop.hand_box(keypoints, self.cropping.shape)
        if not (keypoints[:, 2] > 0).all() and self.boxes[index, 2:].min() > 0:
            corners = self.boxes[index].astype(np.float64).reshape(2, 2)
            corners[1] += corners[0]
            box = crop.keypoint_box(corners, self.cropping.shape)._replace(rotation=box.rotation)
        return RawSample(self.image_path(index), Labels(keypoints), box, self.is_left(index), self._upright(index))

    def image_path(self, index: int) -> Path:
        return self.folder / self.names[index].decode()

    def is_left(self, index: int) -> bool:
        return bool(self.left[index])

    def _upright(self, index: int) -> Upright:
        width, height = self.sizes[index].tolist()
        return (width, height) if width and height else True

    def sample_name(self, index: int) -> str:
        """The image's name and the hand's side."""
        return f"{self.names[index].decode()}:{'left' if self.left[index] else 'right'}"


def read_coco(path: Path, image: Callable[[dict], None], annotation: Callable[[dict], None]) -> list[dict]:
    """Calls `image` or `annotation` with each record of a COCO file, in the file's order; returns the categories.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no COCO file, or a record with a missing or malformed entry; the message names the record.
    """
    handlers = {"images": image, "annotations": annotation}
    categories: list[dict] = []
    found = set()
    with JsonStream(path) as stream:
        for section in stream.members():
            if section == "categories":
                categories = stream.value()
            elif section in handlers:
                found.add(section)
                for number, record in enumerate(stream.elements()):
                    try:
                        handlers[section](record)
                    except KeyError as error:
                        raise ValueError(f"{path}: {section}[{number}] has no {error}") from None
                    except (ValueError, TypeError, OverflowError, AttributeError, IndexError) as error:
                        raise ValueError(f"{path}: {section}[{number}]: {one_line(error)}") from None
            else:
                stream.skip()
    if missing := handlers.keys() - found:
        raise ValueError(f"{path} has no {' and no '.join(sorted(missing))}: not a COCO annotation file")
    return categories


def find_rows(ids: NDArray[np.int64], wanted: NDArray[np.int64], path: Path) -> NDArray[np.int64]:
    """The position of each wanted image id in `ids`.

    Raises:
        ValueError: a wanted id is not among `ids`: an annotation of an image that the file does not list.
    """
    if not len(ids):
        raise ValueError(f"{path} lists no images")
    order = np.argsort(ids)
    rows = order[np.searchsorted(ids, wanted, sorter=order).clip(max=len(ids) - 1)]
    if (ids[rows] != wanted).any():
        stray = int(wanted[ids[rows] != wanted][0])
        raise ValueError(f"{path}: annotations of image {stray}, which is not among its images")
    return rows


def find_annotations(root: Path, split: str) -> Path:
    """The JSON file for `split`, in `root` or `root/annotations`.

    Raises:
        FileNotFoundError: no such folder or file.
        ValueError: several files match.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}: DATA.ROOT must hold COCO annotations and images")
    folders = [root, root / "annotations"]
    if split.endswith(".json"):
        for folder in folders:
            if (folder / split).is_file():
                return folder / split
    files = sorted(path for folder in folders for path in folder.glob("*.json") if not _is_list(path))
    there = ", ".join(path.name for path in files) or "no .json file"
    for name in SPLIT_NAMES.get(split, (split,)):
        fitting = [p for p in files if name in (p.stem, *re.split(r"[^a-z0-9]+", p.stem.lower()))]
        if len(fitting) > 1:
            names = ", ".join(path.name for path in fitting)
            raise ValueError(f"{root}: several annotation files fit {split!r} ({names}): name one with DATA.SPLIT")
        if fitting:
            return fitting[0]
    raise FileNotFoundError(f"{root}: no annotation file fits {split!r} (there: {there}): name one with DATA.SPLIT")


def find_images(root: Path, name: str) -> Path:
    """The folder that a `file_name` is relative to.

    Raises:
        FileNotFoundError: the image is in none of the folders.
    """
    folders = [root, root / "images"]
    folders += sorted(path for folder in folders if folder.is_dir() for path in folder.iterdir() if path.is_dir())
    for folder in folders:
        if os.path.isfile(folder / name):  # unlike Path.is_file, false for a name that is too long
            return folder
    raise FileNotFoundError(f"no image {one_line(name)} in {root} or its folders: DATA.ROOT must hold the images too")


def _is_list(path: Path) -> bool:
    """Whether a JSON file holds a list, as FreiHAND's files do; a COCO file holds an object."""
    with open(path, "rb") as file:
        return file.read(64).removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"["


def _read(path: Path) -> Arrays:
    """The hands of an annotation file.

    Returns:
        `keypoints` (N, 21, 3) pixels and confidence; `boxes` (N, 4) x, y, width, height, zeros without a box;
        `left` (N,) bool; `names` (N,) image names; `sizes` (N, 2) their recorded width and height, 0 where not
        recorded; `skipped`: the number of hands with too few keypoints; `crowds`: of annotations of groups.
    """
    ids, sizes = array("q"), array("i")
    files: list[bytes] = []
    hands: list[_Hand] = []
    skipped = crowds = 0

    def image(record: dict) -> None:
        ids.append(int(record["id"]))
        files.append(record["file_name"].encode())
        sizes.extend((int(record.get("width") or 0), int(record.get("height") or 0)))

    def annotation(record: dict) -> None:
        nonlocal skipped, crowds
        if record.get("iscrowd", 0) not in (0, 1):
            raise ValueError(f"iscrowd is {record['iscrowd']!r}, expected 0 or 1")
        if record.get("iscrowd", 0):
            crowds += 1
            return
        for hand in _hands(record):
            if (hand.keypoints[:, 2] > 0).sum() < MINIMUM_KEYPOINTS:
                skipped += 1
            else:
                hands.append(hand)

    categories = read_coco(path, image, annotation)
    sides, orders = _categories(path, categories, {hand.category for hand in hands if hand.named})
    rows = find_rows(np.array(ids, np.int64), np.array([hand.image for hand in hands], np.int64), path)
    return {
        "keypoints": np.array(
            [hand.keypoints[orders.get(hand.category, slice(None)) if hand.named else slice(None)] for hand in hands],
            dtype=np.float32,
        ).reshape(-1, N_JOINTS, 3),
        "boxes": np.array([hand.box for hand in hands], dtype=np.float32).reshape(-1, 4),
        "left": np.array(["left" in (hand.side or sides.get(hand.category, "")) for hand in hands], dtype=bool),
        "names": np.array(files)[rows],
        "sizes": np.array(sizes, dtype=np.int32).reshape(-1, 2)[rows],
        "skipped": np.array(skipped),
        "crowds": np.array(crowds),
    }


def _categories(path: Path, categories: list[dict], used: set) -> tuple[dict[Any, str], dict[Any, list[int]]]:
    """The name of each category in lower case, and which of its keypoints is each of OpenPose's.

    Args:
        path: of the file, for messages.
        categories: of the file.
        used: ids of the categories by whose names the keypoints of hands are ordered; of others they are not read.

    Raises:
        ValueError: a category without id, or names that are not understood.
    """
    names, orders = {}, {}
    if not isinstance(categories, list):
        raise ValueError(f"{path}: categories is a {type(categories).__name__}, expected a list")
    for number, category in enumerate(categories):
        where = f"{path}: categories[{number}]"
        if not isinstance(category, dict) or not isinstance(category.get("id"), int | float | str):
            raise ValueError(f"{where} has no 'id'")
        names[category["id"]] = str(category.get("name", "")).lower()
        if category["id"] in used and category.get("keypoints"):
            try:
                order = openpose_order(category["keypoints"])
            except (ValueError, TypeError, AttributeError) as error:
                raise ValueError(f"{where}: {one_line(error)}") from None
            if order is not None:
                orders[category["id"]] = order
    return names, orders


class _Hand(NamedTuple):
    image: int
    keypoints: NDArray[np.float32]  # (21, 3)
    box: NDArray[np.float32]  # (4,)
    side: str  # left, right, or empty: taken from the category
    category: Any
    named: bool  # whether the category's names give the order of the keypoints


def _hands(record: dict) -> Iterator[_Hand]:
    """The hands of one annotation."""
    image, category = int(record["image_id"]), record.get("category_id")
    if abs(image) >= 1 << 63 or not isinstance(category, int | float | str | None):
        raise ValueError(f"image_id {image} or category_id {category!r} is no id")
    if "lefthand_kpts" in record:  # COCO-WholeBody
        for side in ("left", "right"):
            if record[f"{side}hand_valid"] not in (0, 1):
                raise ValueError(f"{side}hand_valid is {record[f'{side}hand_valid']!r}, expected true or false")
            if record[f"{side}hand_valid"]:
                points, box = _keypoints(record[f"{side}hand_kpts"]), _box(record[f"{side}hand_box"])
                yield _Hand(image, points, box, side, category, False)
        return
    side = record.get("hand_type", "")
    if str(side).strip().lower() not in ("left", "right", ""):
        raise ValueError(f"hand_type is {side!r}, expected left or right")
    points, box = _keypoints(record["keypoints"]), _box(record.get("bbox", (0, 0, 0, 0)))
    yield _Hand(image, points, box, str(side).strip().lower(), category, True)


def _keypoints(numbers: list[float]) -> NDArray[np.float32]:
    points = np.array(numbers, dtype=np.float32)
    if points.size != N_JOINTS * 3:
        raise ValueError(f"{points.size} numbers for keypoints, a hand has 21 of x, y, visibility")
    points = points.reshape(N_JOINTS, 3)
    if not np.isfinite(points).all():
        raise ValueError("keypoints that are not finite")
    points[:, 2] = points[:, 2].clip(0, 1)  # COCO: 0 unknown, 1 hidden, 2 visible
    return points


def _box(numbers: list[float] | tuple[float, ...]) -> NDArray[np.float32]:
    box = np.array(numbers, dtype=np.float32)
    if box.shape != (4,) or not np.isfinite(box).all():
        raise ValueError(f"box {numbers}, expected x, y, width and height")
    return box
