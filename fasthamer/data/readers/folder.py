"""Images without labels, for distillation from a teacher alone: a folder and a list of boxes.

    ROOT/boxes.csv       path,x,y,width,height,side         one line per hand
    ROOT/boxes.json      [{"path": "a/b.jpg", "box": [x, y, width, height], "side": "left"}, ...]

A box encloses the hand tightly: pixels from the upper left corner of the image as viewers show it (an EXIF orientation
is applied). It may reach beyond the image. The side is left or right. Paths are
relative to ROOT.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fasthamer.data import augment, crop
from fasthamer.data.crop import CROPPING, Cropping
from fasthamer.data.dataset import DatasetInfo
from fasthamer.data.readers.base import ImageDataset, RawSample
from fasthamer.data.sample import Labels
from fasthamer.files.json_stream import JsonStream
from fasthamer.hand.sides import is_left_side
from fasthamer.one_line import one_line

LISTS = ("boxes.csv", "boxes.json")
COLUMNS = ("path", "x", "y", "width", "height", "side")
_Row = tuple[str, list[float], str]


class Folder(ImageDataset):
    """One sample for each box. The crop is `crop.BOX_FACTOR` times the box, as around labelled keypoints.

    Args:
        root: the folder.
        split: the file name of a list (.csv or .json); any other value: boxes.csv or boxes.json.
        image_size, strength, seed, cropping: see `ImageDataset`.

    Raises:
        FileNotFoundError: no such folder or list, or the first image is missing.
        ValueError: a malformed list; the message names the line.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "training",
        image_size: int = 256,
        strength: augment.Strength | None = None,
        seed: int = 0,
        cropping: Cropping = CROPPING,
    ) -> None:
        super().__init__(image_size, strength, seed, cropping)
        self.root = Path(root)
        self.file = _find(self.root, split)
        self.info = DatasetInfo("Folder", source=self.file)
        names, boxes, left = [], [], []
        rows = _rows_of_csv(self.file) if self.file.suffix == ".csv" else _rows_of_json(self.file)
        for number, (name, box, side) in enumerate(rows, start=1):
            where = f"{self.file}: box {number} ({one_line(name)})"
            try:
                is_left, encoded = is_left_side(side), name.encode()
            except ValueError as error:
                raise ValueError(f"{where}: {one_line(error)}") from None
            if len(box) != 4 or not np.isfinite(box).all() or min(box[2:]) <= 0:
                raise ValueError(f"{where}: {box} is no box; expected x, y, width, height in pixels")
            if problem := crop.box_problem(np.array(box[:2]), np.array(box[:2]) + box[2:]):
                raise ValueError(f"{where}: {box} {problem}")
            names.append(encoded)
            boxes.append(np.array(box, dtype=np.float32))
            left.append(is_left)
        if not names:
            raise ValueError(f"{self.file} lists no boxes")
        self.names, self.boxes, self.left = np.array(names), np.array(boxes), np.array(left)
        if not os.path.isfile(self.image_path(0)):  # unlike Path.is_file, false for a name that is too long
            raise FileNotFoundError(f"no image {one_line(self.image_path(0))}, the first that {self.file} names")

    def __len__(self) -> int:
        return len(self.names)

    def raw_sample(self, index: int) -> RawSample:
        corner, extent = self.boxes[index].astype(np.float64).reshape(2, 2)
        box = crop.keypoint_box(np.stack((corner, corner + extent)), self.cropping.shape)
        return RawSample(self.image_path(index), Labels(), box, self.is_left(index), upright=True)

    def image_problem(self, index: int, width: int, height: int) -> str | None:
        corner, extent = self.boxes[index].astype(np.float64).reshape(2, 2)
        problem = crop.box_problem(corner, corner + extent, width, height)
        name = f"{self.file}: box {index + 1} ({self.sample_name(index)})"
        return problem and f"{name}: {self.boxes[index].tolist()} {problem}"

    def image_path(self, index: int) -> Path:
        return self.root / self.names[index].decode()

    def is_left(self, index: int) -> bool:
        return bool(self.left[index])

    def sample_name(self, index: int) -> str:
        """The image's path as in the list."""
        return self.names[index].decode()


def _find(root: Path, split: str) -> Path:
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}: DATA.ROOT must hold images and a list of boxes")
    wanted = (split,) if split.endswith((".csv", ".json")) else LISTS
    for name in wanted:
        if (root / name).is_file():
            return root / name
    raise FileNotFoundError(
        f"{root} has no {' or '.join(wanted)}: list the hands there, one per line: {','.join(COLUMNS)} "
        "(pixels; side left or right)"
    )


def _rows_of_csv(path: Path) -> Iterator[_Row]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            heading = tuple(name.strip() for name in next(reader, ()))
            if heading != COLUMNS:
                raise ValueError(
                    f"{path} begins with {one_line(repr(','.join(heading)))}, expected {','.join(COLUMNS)!r}"
                )
            for row in reader:
                if not row:
                    continue
                try:
                    name, x, y, width, height, side = row
                    yield name, [float(number) for number in (x, y, width, height)], side
                except ValueError:
                    line = f"{path}: line {reader.line_num} is {one_line(repr(','.join(row)))}"
                    raise ValueError(f"{line}, expected {','.join(COLUMNS)}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a CSV text file ({error})") from None


def _rows_of_json(path: Path) -> Iterator[_Row]:
    with JsonStream(path) as stream:
        for number, record in enumerate(stream.elements(), start=1):
            try:
                yield str(record["path"]), [float(each) for each in record["box"]], str(record["side"])
            except KeyError as error:
                raise ValueError(f"{path}: record {number} has no {error}; expected path, box and side") from None
            except (TypeError, ValueError, OverflowError):
                raise ValueError(f"{path}: record {number} is not {{path, box: [x, y, width, height], side}}") from None
