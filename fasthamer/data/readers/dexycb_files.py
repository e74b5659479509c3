"""DexYCB's files: splits, sequences and calibration as in the official toolkit (dex_ycb.py).

ROOT/20200709-subject-01/20200709_141754/meta.yml, pose.npz     100 sequences each of 10 subjects
ROOT/.../20200709_141754/836212060125/color_000000.jpg, labels_000000.npz ...       8 cameras
ROOT/calibration/intrinsics/836212060125_640x480.yml
ROOT/calibration/extrinsics_<id>/extrinsics.yml, mano_<id>/mano.yml
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from fasthamer.files.index import Arrays, cached
from fasthamer.files.safe_npz import read_npz
from fasthamer.files.safe_yaml import read_yaml
from fasthamer.one_line import one_line
from fasthamer.registry import unknown

Kind = TypeVar("Kind")
SITE = "https://dex-ycb.github.io"
SERIALS = (
    *("836212060125", "839512060362", "840412060917", "841412060263"),
    *("932122060857", "932122060861", "932122061900", "932122062010"),
)
SEQUENCES = 100  # per subject; the splits refer to sequences by number
_ALL = tuple(range(10))
_CAMERAS = tuple(range(8))


class SplitDefinition(NamedTuple):
    """The subjects, cameras and sequences of a split."""

    subjects: tuple[int, ...]
    cameras: tuple[int, ...]
    sequences: Callable[[int], bool]  # selects sequence numbers 0 to 99 of each subject


SPLIT_DEFINITIONS = {
    "s0_train": SplitDefinition(_ALL, _CAMERAS, lambda i: i % 5 != 4),  # seen subjects, cameras and objects
    "s0_val": SplitDefinition((0, 1), _CAMERAS, lambda i: i % 5 == 4),
    "s0_test": SplitDefinition((2, 3, 4, 5, 6, 7, 8, 9), _CAMERAS, lambda i: i % 5 == 4),
    "s1_train": SplitDefinition((0, 1, 2, 3, 4, 5, 9), _CAMERAS, lambda i: True),  # unseen subjects
    "s1_val": SplitDefinition((6,), _CAMERAS, lambda i: True),
    "s1_test": SplitDefinition((7, 8), _CAMERAS, lambda i: True),
    "s2_train": SplitDefinition(_ALL, (0, 1, 2, 3, 4, 5), lambda i: True),  # unseen cameras
    "s2_val": SplitDefinition(_ALL, (6,), lambda i: True),
    "s2_test": SplitDefinition(_ALL, (7,), lambda i: True),
    "s3_train": SplitDefinition(_ALL, _CAMERAS, lambda i: i // 5 not in (3, 7, 11, 15, 19)),  # unseen objects
    "s3_val": SplitDefinition(_ALL, _CAMERAS, lambda i: i // 5 in (3, 19)),
    "s3_test": SplitDefinition(_ALL, _CAMERAS, lambda i: i // 5 in (7, 11, 15)),
}
SPLITS = {"training": "s0_train", "evaluation": "s0_test"} | {name: name for name in SPLIT_DEFINITIONS}


class Frames(NamedTuple):
    """The N frames of a split that show a hand, in the toolkit's order: sequences, then cameras, then time."""

    folders: list[str]  # of each sequence, relative to the root
    left: NDArray[np.bool_]  # of each sequence: whether its hand is a left hand
    calibrations: list[str]  # of each sequence: name of the MANO shape calibration
    extrinsics: list[str]  # of each sequence: name of the camera calibration
    sequence: NDArray[np.int32]  # (N,)
    camera: NDArray[np.int8]  # (N,) index into SERIALS
    time: NDArray[np.int32]  # (N,) frame number in the file name
    image_id: NDArray[np.int32]  # (N,) the official number; it also counts frames without a hand


def frames_of(root: Path, split: str, cache: str = "auto") -> Frames:
    """The frames of a split that show a hand.

    Args:
        root: DexYCB's folder.
        split: a name of SPLITS; training and evaluation are s0's train and test.
        cache: see `fasthamer.files.index.cached`.

    Raises:
        FileNotFoundError: a file of the layout is missing.
        ValueError: no such split, or a damaged file.
    """
    if split not in SPLITS:
        raise ValueError(unknown("DexYCB split", split, SPLITS))
    definition = SPLIT_DEFINITIONS[SPLITS[split]]
    cameras = np.array(definition.cameras, np.int8)
    indexes = [_subject_index(folder, cache) for folder in _subjects(root, definition.subjects)]
    chosen = np.array([number for number in range(SEQUENCES) if definition.sequences(number)])
    merged = {key: [row for index in indexes for row in index[key][chosen]] for key in _TEXTS}
    lengths = np.concatenate([index["lengths"][chosen] for index in indexes])
    with_hand = [
        np.flatnonzero(hand)
        for index in indexes
        for hand in (np.split(index["hand"], np.cumsum(index["lengths"])[:-1])[number] for number in chosen)
    ]
    offsets = np.concatenate(([0], np.cumsum(lengths * len(cameras))))
    parts = [
        (
            np.full(len(cameras) * len(times), number, np.int32),
            np.repeat(cameras, len(times)),
            np.tile(times, len(cameras)).astype(np.int32),
            (offsets[number] + lengths[number] * np.arange(len(cameras))[:, None] + times).ravel().astype(np.int32),
        )
        for number, times in enumerate(with_hand)
    ]
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    if not len(columns[0]):
        raise ValueError(f"{root}: no frame of {SPLITS[split]} shows a hand according to its pose.npz")
    left = np.array([side == "left" for side in merged["sides"]])
    texts = [[str(each) for each in merged[key]] for key in ("folders", "calibrations", "extrinsics")]
    return Frames(texts[0], left, texts[1], texts[2], *columns)


def read_intrinsics(root: Path, serial: str) -> NDArray[np.float64]:
    """(3, 3) intrinsics of a colour camera, pixels."""
    path = root / "calibration" / "intrinsics" / f"{serial}_640x480.yml"
    colour = _entry(path, "color", dict)
    fx, fy, x, y = (_numbers(path, f"color: {key}", colour.get(key), ()) for key in ("fx", "fy", "ppx", "ppy"))
    return np.array([[fx, 0, x], [0, fy, y], [0, 0, 1]], np.float64)


def read_extrinsics(root: Path, name: str) -> dict[str, NDArray[np.float64]]:
    """By camera serial (and `apriltag`): (3, 4) from that camera's frame to the master camera's frame, metres."""
    path = root / "calibration" / f"extrinsics_{name}" / "extrinsics.yml"
    found = _entry(path, "extrinsics", dict)
    return {str(key): _numbers(path, str(key), value, (12,)).reshape(3, 4) for key, value in found.items()}


def read_betas(root: Path, name: str) -> NDArray[np.float64]:
    """(10,) MANO shape of one hand of one subject."""
    path = root / "calibration" / f"mano_{name}" / "mano.yml"
    return _numbers(path, "betas", _entry(path, "betas", list), (10,))


_TEXTS = ("folders", "sides", "calibrations", "extrinsics")


def _subjects(root: Path, numbers: tuple[int, ...]) -> list[Path]:
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}: DATA.ROOT must be the unpacked DexYCB ({SITE})")
    found = {path.name[-2:]: path for path in sorted(root.glob("*-subject-[01][0-9]")) if path.is_dir()}
    missing = [f"*-subject-{number + 1:02d}" for number in numbers if f"{number + 1:02d}" not in found]
    if missing:
        raise FileNotFoundError(f"{root}: this split of DexYCB needs {', '.join(missing)} as well ({SITE})")
    return [found[f"{number + 1:02d}"] for number in numbers]


def _subject_index(subject: Path, cache: str) -> Arrays:
    """From meta.yml and pose.npz of all sequences of a subject: texts, `lengths` (100,) and `hand` (all frames,)."""
    sequences = sorted(path for path in subject.iterdir() if path.is_dir())
    if len(sequences) != SEQUENCES:
        raise ValueError(
            f"{subject} holds {len(sequences)} sequences, expected {SEQUENCES}: splits refer to their numbers"
        )
    sources = [path / name for path in sequences for name in ("meta.yml", "pose.npz")]

    def make() -> Arrays:
        rows = [_sequence(path) for path in sequences]
        texts = {key: np.array([row[key] for row in rows]) for key in _TEXTS}
        hands = [row["hand"] for row in rows]
        return texts | {"lengths": np.array([len(hand) for hand in hands]), "hand": np.concatenate(hands)}

    return cached(f"dexycb {subject.resolve()}", sources, make, cache)


def _sequence(folder: Path) -> dict:
    path = folder / "meta.yml"
    meta = read_yaml(path)
    try:
        length, extrinsics = meta["num_frames"], str(meta["extrinsics"])
        (side,), (calibration,) = meta["mano_sides"], meta["mano_calib"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not DexYCB's ({type(error).__name__}: {one_line(error)})") from None
    if not isinstance(length, int) or length < 1 or side not in ("left", "right"):
        found = one_line(f"num_frames is {length!r} and mano_sides [{side!r}]")
        raise ValueError(f"{path}: {found}: expected a number, left or right")
    poses = read_npz(folder / "pose.npz", {"pose_m": (length, 1, 51)})["pose_m"]
    name = f"{folder.parent.name}/{folder.name}"
    texts = {"folders": name, "sides": side, "calibrations": str(calibration), "extrinsics": extrinsics}
    return {**texts, "hand": (poses != 0).any((1, 2))}


def _entry(path: Path, key: str, kind: type[Kind]) -> Kind:
    value = read_yaml(path).get(key)
    if not isinstance(value, kind):
        raise ValueError(f"{path}: {key} is {one_line(repr(value))}, expected a {kind.__name__}")
    return value


def _numbers(path: Path, key: str, value: object, shape: tuple[int, ...]) -> NDArray[np.float64]:
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.empty(0)
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"{path}: {key} is {str(value)[:60]}, expected {shape[0] if shape else 'a number'}")
    return array
