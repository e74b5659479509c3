"""HInt's truth in the form HaMeR evaluates it, and 2D predictions for it.

HInt has no server and no submission form: predictions are kept as `keypoints.json`, a list of 21x2 pixels of the
image for each hand, in the order of HaMeR's file.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fasthamer.files.atomic import write_text
from fasthamer.metrics.pck import Annotated
from fasthamer.metrics.predictions import points_of, read_json
from fasthamer.types import N_JOINTS


def write_keypoints(path: str | Path, points: NDArray) -> None:
    """(N, 21, 2) pixels, rounded to a thousandth."""
    write_text(Path(path), json.dumps(np.round(np.asarray(points, np.float64), 3).tolist(), separators=(",", ":")))


def read_keypoints(path: str | Path, expected: int | None = None) -> NDArray[np.float64]:
    """(N, 21, 2) pixels.

    Raises:
        FileNotFoundError, ValueError: as `read_predictions`.
    """
    return points_of(read_json(Path(path)), (N_JOINTS, 2), str(path), expected)


def read_annotated(path: str | Path) -> Annotated:
    """HaMeR's `TEST_<set>_img_all.npz`; with `..._occ.npz` beside it, occluded joints are known too.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, or the two do not belong together.
    """
    path = Path(path)
    labels = _labels(path)
    points, known = labels["hand_keypoints_2d"][..., :2], labels["hand_keypoints_2d"][..., 2] > 0.5
    beside = path.with_name(path.name.replace("_all.npz", "_occ.npz"))
    occluded = None
    if beside != path and beside.is_file():
        other = _labels(beside)
        if other["imgname"].tolist() != labels["imgname"].tolist():
            raise ValueError(f"{beside} lists other images than {path.name}: they are not of one set")
        occluded = other["hand_keypoints_2d"][..., 2] > 0.5
    return Annotated(points, known, labels["scale"].reshape(len(points), -1).max(1), occluded)


def _labels(path: Path) -> dict[str, NDArray]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: --gt takes HaMeR's TEST_<set>_img_all.npz")
    try:
        with np.load(path) as content:
            found = {key: content[key] for key in ("imgname", "scale", "hand_keypoints_2d")}
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not one of HaMeR's evaluation files ({error})") from None
    if found["hand_keypoints_2d"].shape != (len(found["imgname"]), N_JOINTS, 3):
        raise ValueError(f"{path}: hand_keypoints_2d has shape {found['hand_keypoints_2d'].shape}, expected (N, 21, 3)")
    return found
