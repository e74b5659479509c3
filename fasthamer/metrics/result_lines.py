"""DexYCB's result file: a line per image, `image_id,x1,y1,z1,...,x21,y21,z21` in millimetres.

The image id is the frame's number in the toolkit's list of the split (`dex_ycb_toolkit/hpe_eval.py`); every frame with
a hand must be there, others are ignored, and of two lines with one id the later counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fasthamer.files.atomic import write_text
from fasthamer.metrics.alignment import require_finite
from fasthamer.types import N_JOINTS

_NUMBERS = 1 + 3 * N_JOINTS


def write_result_lines(path: str | Path, image_ids: Sequence[int], joints: NDArray) -> None:
    """
    Args:
        path: of the file.
        image_ids: N numbers.
        joints: (N, 21, 3) metres, camera frame, OpenPose order.
    """
    rows = 1000 * np.asarray(joints, np.float64).reshape(len(joints), -1)
    form = ",".join(["%d"] + ["%.4f"] * (_NUMBERS - 1))
    lines = [form % (image_id, *row) for image_id, row in zip(image_ids, rows.tolist(), strict=True)]
    write_text(Path(path), "\n".join(lines) + "\n")


def read_result_lines(path: str | Path, image_ids: Sequence[int]) -> NDArray[np.float64]:
    """The joints of the images asked for, in their order: (N, 21, 3) metres.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line of another form, an image that is missing, or a number that is not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text file: expected lines of {_NUMBERS} numbers, comma-separated") from None
    table = np.array([_row(line, number, path) for number, line in enumerate(lines, 1)]).reshape(-1, _NUMBERS)
    row_of = {int(image_id): row for row, image_id in enumerate(table[:, 0])}
    missing = [image_id for image_id in image_ids if image_id not in row_of]
    if missing:
        raise ValueError(
            f"{path}: image {missing[0]} is missing ({len(missing)} of {len(image_ids)} are): every frame of the split "
            "that shows a hand needs a line"
        )
    joints = table[[row_of[image_id] for image_id in image_ids], 1:].reshape(-1, N_JOINTS, 3) / 1000
    require_finite(joints, f"{path}: prediction")
    return joints


def _row(line: str, number: int, path: Path) -> NDArray[np.float64]:
    words = line.split(",")
    try:
        if len(words) != _NUMBERS:
            raise ValueError
        return np.array(words, dtype=np.float64)
    except ValueError:
        raise ValueError(
            f"{path}, line {number}: expected {_NUMBERS} comma-separated numbers (image id, then 21 times x, y, z in "
            f"millimetres), found {len(words)} beginning {line[:30]!r}"
        ) from None
