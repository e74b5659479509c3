"""Labels the hands of a folder of images with a teacher; the result is a dataset, see `data/readers/labelled.py`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from yacs.config import CfgNode

from fasthamer.data.loader_processes import quiet_worker
from fasthamer.data.readers.labelled_files import (
    ABOUT,
    LabelledHand,
    read_about,
    vertices_file,
    write_about,
    write_part,
)
from fasthamer.detect.detections import Detections, HandDetector
from fasthamer.device import pick_device
from fasthamer.files.atomic import remove_drafts
from fasthamer.files.images import read_image
from fasthamer.hand.mano import load_hand
from fasthamer.teachers import build_teacher, hand_for, mediapipe, notice_of, resolve_teacher, weights_of
from fasthamer.teachers.ensemble import JOINED
from fasthamer.teachers.labellers import Labeller, Labelling, MeshLabeller
from fasthamer.teachers.mediapipe import PointLabeller

# Formats that are not read are listed too: each such file is then named as left out.
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".heic", ".heif", ".avif")
PART = 1000  # images in a file of labels


class Labelled(NamedTuple):
    """What was labelled and what was left out."""

    images: int
    hands: int
    held_out: int  # of the hands
    left_out: list[str]  # images and hands, a line each with the reason


class Seen(NamedTuple):
    """The hands of one image, or why it could not be read."""

    found: Detections | None
    views: list[Any]
    problem: str = ""


class Scan(Dataset):
    """`scan[i]` reads image i and finds its hands."""

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        detector: HandDetector,
        views: Callable[[np.ndarray, Detections], list[Any]],
    ) -> None:
        self.folder, self.names, self.detector, self.views = folder, names, detector, views

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Seen:
        try:
            image = read_image(self.folder / self.names[index])
        except (ValueError, OSError) as error:
            return Seen(None, [], " ".join(str(error).split()))
        found = self.detector(image)
        return Seen(found, self.views(image, found))


def labeller_of(cfg: CfgNode) -> tuple[Labeller, dict[str, Any]]:
    """The labeller of TEACHER.NAME on DEVICE, and what its labels depend on.

    Raises:
        KeyError, FileNotFoundError, ValueError: no such teacher, hand or device, or not usable.
    """
    device, name, checkpoint = pick_device(cfg.DEVICE), cfg.TEACHER.NAME, cfg.TEACHER.CHECKPOINT
    if name == mediapipe.NAME:
        return PointLabeller(cfg.DEVICE), {"teacher": name, "teacher_file": _digest(mediapipe.WEIGHTS)}
    name, _ = resolve_teacher(name, checkpoint)
    hand = load_hand(hand_for(name, checkpoint) if cfg.HAND.MODEL == "auto" else cfg.HAND.MODEL)
    teacher = build_teacher(name, checkpoint, hand, cfg.TEACHER.PRECISION).to(device)
    about: dict[str, Any] = {"teacher": name, "teacher_file": JOINED.join(map(_digest, weights_of(name, checkpoint)))}
    if notice := notice_of(name):
        about["notice"] = notice
    return MeshLabeller(teacher, device), about


def label(
    folder: Path,
    out: Path,
    labeller: Labeller,
    detector: HandDetector,
    about: dict[str, Any],
    hold_out: str = "0.1",
    batch: int = 32,
    workers: int = 0,
    part: int = PART,
) -> Labelled:
    """Writes the labels of all hands that are found; continues where an earlier call stopped.

    Args:
        folder: of images; its folders are searched too.
        out: the folder to write; created if missing.
        labeller: gives the labels.
        detector: finds the hands.
        about: what the labels depend on, for labels.json: a call with other settings does not continue.
        hold_out: the share of images to evaluate on, chosen by a hash of their paths; or a file that lists them.
        batch: hands at a time.
        workers: loader processes.
        part: images in a file of labels.

    Raises:
        FileNotFoundError: no such folder or list, or no images in it.
        ValueError: `out` holds something else, or no hand was found in any image.
        OSError: the disk is full, or `out` cannot be written to.
    """
    names = image_names(folder)
    held_out = held_out_images(names, hold_out)
    listed = hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    held = hashlib.sha256("\0".join(sorted(held_out)).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    settings = {**about, "hand": labeller.hand, "images": len(names), "list": listed, "held_out": held, "part": part}
    record = _begin(out, folder, settings)
    parts: dict[str, dict[str, Any]] = record["parts"]
    with tqdm(total=len(names), desc="labelling", mininterval=2, leave=False, unit="image") as bar:
        for number, begin in enumerate(range(0, len(names), part)):
            file, chosen = f"{number:06d}.npz", names[begin : begin + part]
            if file in parts and (out / file).is_file():
                bar.update(len(chosen))
                continue
            scan = Scan(folder, chosen, detector, labeller.views)
            hands, left_out = _label_part(scan, labeller, held_out, batch, workers, bar)
            vertices_file(out / file).unlink(missing_ok=True)
            write_part(out / file, hands)
            kept_out = sum(hand.held_out for hand in hands)
            parts[file] = {"images": len(chosen), "hands": len(hands), "held_out": kept_out, "left_out": left_out}
            write_about(out, record)
    write_about(out, record | {"complete": True})
    left_out = [line for each in parts.values() for line in each["left_out"]]
    count, to_evaluate = (sum(each[key] for each in parts.values()) for key in ("hands", "held_out"))
    if not count:
        raise ValueError(f"not one hand of {folder} was labelled; the first image: {left_out[0]}")
    return Labelled(len(names), count, to_evaluate, left_out)


def image_names(folder: Path) -> list[str]:
    """The paths of the images in a folder and its folders, relative to it, with /, sorted.

    Raises:
        FileNotFoundError: no such folder, or no images in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}: the images to label are searched in a folder")
    paths = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    names = sorted(path.relative_to(folder).as_posix() for path in paths)
    if not names:
        raise FileNotFoundError(f"no images ({', '.join(SUFFIXES[:7])}) in {folder}")
    return names


def held_out_images(names: Sequence[str], choice: str) -> set[str]:
    """The images to evaluate on.

    Args:
        names: of all images.
        choice: a share from 0 to less than 1: an image is chosen by a hash of its path, so it stays chosen when others
            are added; or a text file with one path a line, relative to the folder of images.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no such share, or the file names an image that is not there.
    """
    try:
        share = float(choice)
    except ValueError:
        path = Path(choice)
        if not path.is_file():
            raise FileNotFoundError(f"--hold-out {choice}: neither a share, such as 0.1, nor a file of paths") from None
        lines = path.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
        listed = {line.strip() for line in lines if line.strip()}
        if strange := sorted(listed - set(names)):
            raise ValueError(
                f"{path}: {strange[0]} is no image of the folder: give paths relative to it, with /"
            ) from None
        return listed
    if not 0 <= share < 1:
        raise ValueError(f"--hold-out is {choice}: the share of images to evaluate on is 0 or more and less than 1")
    return {name for name in names if _hash(name) < share}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _hash(name: str) -> float:
    """From 0 to less than 1."""
    return int(hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8], 16) / 16**8


def _begin(out: Path, folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The record of an earlier call, or a new one."""
    images = [Path(os.path.relpath(folder.resolve(), out.resolve())).as_posix(), folder.resolve().as_posix()]
    if not (out / ABOUT).is_file():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ValueError(f"{out} holds other files: write the labels into an empty folder")
        record: dict[str, Any] = {"images": images, "settings": settings, "complete": False, "parts": {}}
        write_about(out, record)
        return record
    remove_drafts(out)
    record = read_about(out)
    before = record["settings"]
    differing = [f"{key} {before.get(key)}, now {value}" for key, value in settings.items() if before.get(key) != value]
    if differing:
        raise ValueError(f"{out} holds labels with {'; '.join(differing)}: write into another folder")
    return record


def _label_part(
    scan: Scan, labeller: Labeller, held_out: set[str], batch: int, workers: int, bar: tqdm
) -> tuple[list[LabelledHand], list[str]]:
    """The labelled hands of some images, in their order, and what was left out."""
    hands: list[LabelledHand] = []
    left_out: list[str] = []
    waiting: list[tuple[str, Detections, int, Any]] = []  # image, its hands, number of the hand, view

    def flush() -> None:
        for (name, found, number, _), labels in zip(waiting, labeller([each[-1] for each in waiting]), strict=True):
            if isinstance(labels, str):
                box = ", ".join(f"{value:.0f}" for value in found.boxes[number])
                left_out.append(f"{name}: the hand in {box}: {labels}")
            else:
                hands.append(_hand(name, name in held_out, found, number, labels))
        waiting.clear()

    loader = DataLoader(scan, None, num_workers=workers, worker_init_fn=quiet_worker, collate_fn=_as_it_is)
    for name, seen in zip(scan.names, loader, strict=True):
        bar.update()
        if seen.found is None:
            left_out.append(f"{name}: cannot be read: {seen.problem}")
            continue
        if not seen.views:
            left_out.append(f"{name}: no hand found")
        for number, view in enumerate(seen.views):
            waiting.append((name, seen.found, number, view))
            if len(waiting) == batch:
                flush()
    if waiting:
        flush()
    return hands, left_out


def _hand(name: str, held_out: bool, found: Detections, number: int, labels: Labelling) -> LabelledHand:
    score, box = float(found.score[number]), found.boxes[number]
    return LabelledHand(name, held_out, labels.right, score, box, *labels[1:])


def _as_it_is(seen: Any) -> Any:
    return seen
