"""Checks that a dataset is complete and its labels are plausible; changes nothing.

Every image file is checked for its first and last bytes and for an EXIF orientation, without decoding. Evenly spaced
samples are decoded, and their labels are checked for size, position and agreement with each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fasthamer.data.dataset import HandDataset, HandStream
from fasthamer.data.file_checks import Orientations, content_problem, incomplete, shown_size
from fasthamer.data.keypoint_order import order_problem, order_score
from fasthamer.data.label_checks import (
    REPROJECTION,
    TIPS_APART,
    item_problems,
    reprojection,
    sample_problems,
    tips_apart,
)
from fasthamer.data.readers.base import ImageDataset
from fasthamer.data.readers.tars import TarDataset
from fasthamer.data.streams import Indexed, Mix
from fasthamer.files.images import TAIL, read_image_size
from fasthamer.render.overlay import crop_pixels, draw_keypoints, sheet
from fasthamer.types import N_JOINTS, Batch

SHOWN, COLUMNS = 24, 6  # crops on the contact sheet


@dataclass
class Report:
    """The result of a check."""

    problems: list[str] = field(default_factory=list)  # a line each
    facts: list[str] = field(default_factory=list)  # what was counted and measured, a line each
    shown: list[tuple[NDArray[np.uint8], str]] = field(default_factory=list)  # labelled crops and their captions

    def show(self, item: Batch, caption: str) -> None:
        """Keeps a labelled crop for the contact sheet; drops every second one when there are many."""
        self.shown.append((labelled(item), caption[-30:]))
        if len(self.shown) > 8 * SHOWN:
            self.shown = self.shown[::2]


def check(dataset: HandDataset | HandStream, sample: int) -> Report:
    """Checks the files of a whole dataset and the labels of `sample` of its hands.

    Args:
        dataset: of any kind, without augmentation.
        sample: number of hands whose images are decoded and whose labels are checked.
    """
    report = Report()
    if isinstance(dataset, Mix):
        for part in dataset.parts:
            found = check(part, max(1, sample // len(dataset.parts)))
            report.problems += found.problems
            report.facts += found.facts
            report.shown += found.shown
    elif isinstance(dataset, TarDataset):
        _check_shards(dataset, sample, report)
    elif isinstance(dataset, Indexed):
        return check(dataset.dataset, sample)
    elif not isinstance(dataset, HandStream):
        damaged = _check_files(dataset, report) if isinstance(dataset, ImageDataset) else set()
        _check_sample(dataset, sample, report, damaged)
    return report


def identity(dataset: HandDataset | HandStream) -> tuple:
    """Equal for two splits that have the same samples: some datasets ignore the split."""
    if isinstance(dataset, HandStream):
        return (dataset.fingerprint,)
    if not isinstance(dataset, ImageDataset):
        return dataset.info.name, len(dataset)
    info = dataset.info
    return info.name, len(dataset), info.source, dataset.image_path(0), dataset.image_path(len(dataset) - 1)


def contact_sheet(report: Report) -> NDArray[np.uint8] | None:
    """The labelled crops in a grid; None if there are none."""
    if not report.shown:
        return None
    spread = np.unique(np.linspace(0, len(report.shown) - 1, SHOWN).astype(int))
    shown = [report.shown[number] for number in spread]
    columns = min(COLUMNS, len(shown))
    blank = np.full_like(shown[0][0], 255), ""
    shown += [blank] * (-len(shown) % columns)
    rows = [shown[begin : begin + columns] for begin in range(0, len(shown), columns)]
    return sheet([[each for each, _ in row] for row in rows], captions=[[text for _, text in row] for row in rows])


def _check_files(dataset: ImageDataset, report: Report) -> set[Path]:
    """Checks every image file; returns those with a problem."""
    left = 0
    seen: set[Path] = set()
    damaged, misfits, orientations = set(), set(), Orientations()
    compared = type(dataset).image_problem is not ImageDataset.image_problem
    for index in range(len(dataset)):
        left += dataset.is_left(index)
        path = dataset.image_path(index)
        if path not in seen:
            seen.add(path)
            if wrong := incomplete(path):
                report.problems.append(f"{path} {wrong}")
                damaged.add(path)
            else:
                orientations.add(path, partial(dataset.raw_sample, index))
        if compared and path not in damaged and (problem := dataset.image_problem(index, *shown_size(path))):
            report.problems.append(problem)
            misfits.add(path)
    report.facts.append(f"{len(dataset)} hands ({len(dataset) - left} right, {left} left) in {len(seen)} images")
    report.problems += orientations.problems()
    report.facts += orientations.facts()
    report.facts += [f"left out by the reader: {line}" for line in dataset.info.left_out]
    return damaged | misfits


def _check_sample(dataset: HandDataset, sample: int, report: Report, damaged: set[Path]) -> None:
    """Decodes evenly spaced hands and checks their labels; skips images that are already reported as damaged."""
    seen = _Statistics()
    for index in np.unique(np.linspace(0, len(dataset) - 1, sample).astype(int)).tolist():
        name = dataset.sample_name(index)
        where = f"sample {index} ({name})" if name != f"{index}" else f"sample {index}"
        if isinstance(dataset, ImageDataset) and dataset.image_path(index) in damaged:
            continue
        try:
            item = dataset[(0, index)]
            found = list(item_problems(item))
            if isinstance(dataset, ImageDataset):
                found += _image_problems(dataset, index, seen)
        except (ValueError, KeyError, OSError) as error:
            report.problems.append(f"{where}: {error.args[0] if isinstance(error, KeyError) else error}")
            continue
        report.problems += [f"{where}: {each}" for each in found]
        seen.add(item)
        report.show(item, Path(name).name)
    seen.report(report)


def _image_problems(dataset: ImageDataset, index: int, seen: _Statistics) -> Iterator[str]:
    hand = dataset.raw_sample(index)
    width, height = read_image_size(hand.path, hand.upright)
    yield from sample_problems(hand.labels, hand.box, width, height)
    if isinstance(hand.upright, tuple) and hand.upright not in ((width, height), (height, width)):
        yield f"its image is {width}x{height}, labelled as {hand.upright[0]}x{hand.upright[1]}: was it resized since?"
    if dataset.info.cameras and hand.labels.joints is not None:
        off = reprojection(hand.labels, dataset.camera(index))
        if off is not None:
            seen.off.append(off)
            if off > REPROJECTION:
                yield f"a keypoint lies {off:.1f} pixels off its projected joint"
    apart = tips_apart(hand.labels, dataset.info.tips)
    if apart is not None:
        seen.apart.append(apart)
        if apart > TIPS_APART:
            yield f"a fingertip of the mesh lies {1000 * apart:.1f} mm off the labelled one"


def _check_shards(dataset: TarDataset, sample: int, report: Report) -> None:
    """Reads every shard to its end; decodes the first hands of each."""
    seen, samples, hands = _Statistics(), 0, 0
    each = -(-sample // len(dataset.shards))  # samples of a shard that are decoded
    for shard in range(len(dataset.shards)):
        for number, raw in enumerate(dataset.samples(shard, report.problems)):
            samples += 1
            if wrong := content_problem(raw.image[:TAIL], raw.image[-TAIL:], partial(bytes, raw.image)):
                report.problems.append(f"{raw.name}: its image {wrong}")
            elif number < each:
                for _, item in dataset.items(raw, 0, report.problems):
                    hands += 1
                    report.problems += [f"{raw.name}: {problem}" for problem in item_problems(item)]
                    seen.add(item)
                    report.show(item, raw.name.split(": ")[-1])
    report.facts.append(
        f"{samples} samples in {dataset.summary}; {hands} hands of the first {each} of each shard decoded"
    )
    seen.report(report)


def labelled(item: Batch) -> NDArray[np.uint8]:
    """(S, S, 3) RGB: an item's crop with its labelled keypoints; left hands are mirrored, as in the model's input."""
    crop = np.ascontiguousarray(item.image.numpy().transpose(1, 2, 0))
    known = (item.keypoints_2d[:, 2] > 0).numpy()
    return draw_keypoints(crop, crop_pixels(item.keypoints_2d[:, :2], crop.shape[0]), visible=known)


class _Statistics:
    """Counts and measurements of the decoded hands."""

    def __init__(self) -> None:
        self.hands = self.keypoints = self.joints = self.poses = self.meshes = 0
        self.points: list[NDArray[np.float64]] = []  # (21, 3) crop units
        self.palms: list[float] = []  # metres from wrist to middle knuckle
        self.off: list[float] = []  # pixels between keypoints and projected joints
        self.apart: list[float] = []  # metres between fingertips of joints and mesh

    def add(self, item: Batch) -> None:
        self.hands += 1
        self.keypoints += int((item.keypoints_2d[:, 2] > 0).any())
        self.points.append(item.keypoints_2d.double().numpy())
        self.joints += int((item.joints[:, 3] > 0).any())
        self.poses += int(item.has_pose)
        self.meshes += int(item.has_vertices)
        if (item.joints[[0, 9], 3] > 0).all():
            self.palms.append(float((item.joints[9, :3] - item.joints[0, :3]).norm()))

    def report(self, report: Report) -> None:
        """Adds what was measured, and what only many hands together can show, to the report."""
        report.facts += self._lines()
        points = np.array(self.points).reshape(-1, N_JOINTS, 3)
        if problem := order_problem(points):
            report.problems.append(f"{problem}: look at the contact sheet")

    def _lines(self) -> list[str]:
        lines = [
            f"{self.hands} hands sampled: {self.keypoints} with keypoints, {self.joints} with 3D joints, "
            f"{self.poses} with a pose, {self.meshes} with a mesh"
        ]
        score = order_score(np.array(self.points).reshape(-1, N_JOINTS, 3))
        if score is not None:
            lines.append(f"order of the keypoints: bone lengths deviate by {score:.2f} from a hand's")
        if self.palms:
            low, middle, high = np.quantile(self.palms, (0, 0.5, 1)) * 1000
            lines.append(f"wrist to middle knuckle: {low:.0f} to {high:.0f} mm, median {middle:.0f}")
        if self.off:
            lines.append(
                f"keypoints against projected joints: median {np.median(self.off):.3f} pixels, worst "
                f"{max(self.off):.3f} of {len(self.off)} hands"
            )
        if self.apart:
            lines.append(f"fingertips of joints and mesh: worst {1000 * max(self.apart):.2f} mm apart")
        return lines
