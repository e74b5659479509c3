"""Hands in tar shards, as HaMeR's training data come: `<key>.jpg` beside `<key>.data.pyd`, read from front to back.

    ROOT/000000.tar, ROOT/000001.tar, ...       see `fasthamer.data.readers.tar_record` for what a sample holds
    ROOT/pack.json                              only beside shards that were packed here

The shards of an epoch are shuffled and dealt out to the lanes in groups; the shards of a group are read side by side,
and their samples shuffled once more in a buffer. Which samples a lane meets, and in which order, is a function of
(seed, lane, lanes); all lanes together meet every sample once an epoch.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fasthamer.data import augment
from fasthamer.data.articulation import Articulation, articulation_of
from fasthamer.data.readers.tar_members import members
from fasthamer.data.readers.tar_record import Filters, TarHand, read_record
from fasthamer.data.sample import Labels, make_item
from fasthamer.data.streams import HandStream, Place
from fasthamer.files.images import decode_image
from fasthamer.hand.mano import Hand
from fasthamer.types import Batch

ABOUT = "pack.json"
TOGETHER = 4  # shards read side by side
BUFFER = 1000  # samples among which the next is drawn, still as files; HaMeR's has 4,000 of all ten sets
AT_ONCE = 16  # samples whose labels are read, before their images are
NUMBERED = 1_000_000  # a sample's number is its shard's times this, plus its place in there
IMAGE_SUFFIXES = ("jpg", "jpeg", "png")
RECORD = "data.pyd"


class RawSample(NamedTuple):
    """One sample as its shard has it, nothing decoded."""

    name: str  # the shard's path and the sample's key
    index: int  # type: ignore[assignment]
    image: bytes
    record: bytes


class Framed(NamedTuple):
    """A hand, and how an epoch shows it."""

    hand: TarHand
    change: augment.Augmentation | None


class TarDataset(HandStream):
    """The shards of a folder as a stream of items; an item is a pure function of (seed, epoch, sample).

    Args:
        root: the folder with the .tar files, or one such file.
        hand: whose parameters are to be learned. Poses, shapes and vertices are labels only for the hand they were
            made with: HaMeR's tars are MANO's, packed ones say which.
        image_size: pixels of the crops.
        strength: of the augmentation; None for none.
        seed: of order and augmentation.
        filters: HaMeR's by default; packed shards are never filtered.

    Raises:
        FileNotFoundError: no such folder, or no shards in it.
        ValueError: the folder was only half packed.
    """

    def __init__(
        self,
        root: str | Path,
        hand: Hand,
        image_size: int = 256,
        strength: augment.Strength | None = None,
        seed: int = 0,
        filters: Filters | None = None,
    ) -> None:
        webdataset()
        self.shards = find_shards(Path(root))
        about = read_about(self.shards[0].parent)
        self.filters = None if about else filters or Filters()
        self.mano_labels = hand.is_embedded == (about.get("hand") == "embedded")
        self.image_size, self.strength, self.seed = image_size, strength, seed
        self.fingerprint = _fingerprint(self.shards)
        self.told = f"{len(self.shards)} shards in {self.shards[0].parent}"
        self.fraction, self.only = 1.0, False  # of samples with labels; whether the others are left out

    def partly_labelled(self, fraction: float, only: bool) -> TarDataset:
        if not 0 < fraction <= 1:
            raise ValueError(f"DATA.LABELLED is {fraction}: it is the fraction of images with labels, in (0, 1]")
        part = copy.copy(self)
        part.fraction, part.only = fraction, only
        return part

    def walk(self, lane: int, lanes: int, place: Place, skipped: list[str]) -> Iterator[tuple[Batch, Place]]:
        place = place or [lane, 0, 0]
        barren = 0
        while barren <= self._groups(lanes):
            barren += 1
            for item, behind in self._group(place, lanes, skipped):
                barren = 0
                yield item, behind
            place = [place[0] + lanes, 0, 0]
        raise ValueError(f"{self.told}: not one sample can be read (the last: {skipped[-1] if skipped else 'empty'})")

    def epoch(self, epoch: int, lane: int, lanes: int, skipped: list[str]) -> Iterator[Batch]:
        """The items of one epoch that belong to a lane: what `walk` gives of it, and no more."""
        groups = self._groups(lanes)
        for group in range(epoch * groups, (epoch + 1) * groups):
            if group % lanes == lane:
                yield from (item for item, _ in self._group([group, 0, 0], lanes, skipped))

    def _together(self, lanes: int) -> int:
        """How many shards are a group."""
        return max(1, min(TOGETHER, len(self.shards) // lanes))

    def _groups(self, lanes: int) -> int:
        """How many groups are an epoch."""
        return -(-len(self.shards) // self._together(lanes))

    def _group(self, place: Place, lanes: int, skipped: list[str]) -> Iterator[tuple[Batch, Place]]:
        """The items of a group of shards behind a place in it: group, sample in it, hand of that sample."""
        group, begin, hand = place
        epoch, part = divmod(group, self._groups(lanes))
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.shards))
        size = self._together(lanes)
        samples = self._shuffled(order[part * size : (part + 1) * size].tolist(), epoch, skipped)
        numbered = enumerate(islice(samples, begin, None), begin)
        # Some at once, step by step: decoding and warping between two lines of Python doubles what these cost.
        while ready := [(n, sample, self._hands(sample, epoch, skipped)) for n, sample in islice(numbered, AT_ONCE)]:
            for number, sample, hands in ready:
                for each, item in self._items(sample, hands, hand if number == begin else 0, skipped):
                    yield item, [group, number, each + 1]

    def items(self, sample: RawSample, epoch: int, skipped: list[str]) -> Iterator[tuple[int, Batch]]:
        """The hands of a sample, numbered, as they look in an epoch."""
        return self._items(sample, self._hands(sample, epoch, skipped), 0, skipped)

    def _hands(self, sample: RawSample, epoch: int, skipped: list[str]) -> list[Framed]:
        """The hands of a sample and what is done to each in an epoch, as far as their labels can be read."""
        labelled = self._is_labelled(sample)
        if self.only and not labelled:
            return []
        try:
            hands = read_record(sample.record, sample.name, self.filters)
        except ValueError as error:
            skipped.append(str(error))
            return []
        framed = []
        for number, hand in enumerate(hands):
            change, labels = None, hand.labels if labelled else Labels()
            if self.strength is not None:
                seed = (self.seed, epoch, sample.index, number)
                change = augment.draw(np.random.default_rng(seed), self.strength)
            if not self.mano_labels:
                labels = labels._replace(vertices=None, pose=None, betas=None)
            framed.append(Framed(hand._replace(labels=labels), change))
        return framed

    def _items(
        self, sample: RawSample, hands: list[Framed], first: int, skipped: list[str]
    ) -> Iterator[tuple[int, Batch]]:
        """The items of a sample's hands from number `first` on."""
        if not hands:
            return
        try:
            image = decode_image(sample.image, sample.name)
        except ValueError as error:
            skipped.append(str(error))
            return
        for number, (hand, change) in enumerate(hands[first:], first):
            yield number, make_item(image, hand.labels, hand.box, self.image_size, sample.index, change, hand.left)

    def _is_labelled(self, sample: RawSample) -> bool:
        """The same in every epoch."""
        if self.fraction == 1.0:
            return True
        return np.random.default_rng((self.seed, sample.index)).random() < self.fraction

    def articulations(self, shard: int, skipped: list[str]) -> Iterator[Articulation]:
        """The poses that are labels in a shard, with the betas where they are this hand's; no image is read."""
        for sample in self.samples(shard, skipped, images=False):
            try:
                hands = read_record(sample.record, sample.name, self.filters) if self._is_labelled(sample) else []
            except ValueError as error:
                skipped.append(str(error))
                continue
            for hand in hands:
                if hand.labels.pose is not None:
                    betas = hand.labels.betas if self.mano_labels else None
                    yield articulation_of(hand.labels.pose, betas, hand.left)

    def samples(self, shard: int, skipped: list[str], images: bool = True) -> Iterator[RawSample]:
        """The samples of a shard in its own order; one that lacks its image or labels is skipped.

        Without `images` these stay on the disk and come empty.
        """
        path = self.shards[shard]
        unread = () if images else tuple(f".{kind}" for kind in IMAGE_SUFFIXES)
        for number, sample in enumerate(_grouped(path, skipped, unread)):
            name = f"{path}: {sample['__key__']}"
            image = next((sample[kind] for kind in IMAGE_SUFFIXES if kind in sample), None)
            if image is None or RECORD not in sample:
                skipped.append(f"{name}: no {'image' if image is None else RECORD}")
                continue
            yield RawSample(name, shard * NUMBERED + number, image, sample[RECORD])

    def _shuffled(self, shards: list[int], epoch: int, skipped: list[str]) -> Iterator[RawSample]:
        library = webdataset()
        side_by_side = library.mix.round_robin_longest(*(self.samples(shard, skipped) for shard in shards))
        rng = random.Random(f"{self.seed} {epoch} {shards}")
        return library.shuffle(BUFFER, initial=BUFFER, rng=rng)(side_by_side)


def find_shards(root: Path) -> list[Path]:
    """The .tar files of a folder by name, or the one that is named.

    Raises:
        FileNotFoundError: there are none.
    """
    if root.suffix == ".tar" and root.is_file():
        return [root]
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}: DATA.ROOT is to be a folder of .tar shards, or one .tar file")
    found = sorted(path for path in root.glob("*.tar") if not path.name.startswith("."))
    if not found:
        raise FileNotFoundError(f"{root} holds no .tar shards")
    return found


def read_about(folder: Path) -> dict[str, Any]:
    """What `pack.json` says about the shards of a folder; empty for HaMeR's own.

    Raises:
        ValueError: packing was interrupted, or the file is damaged.
    """
    path = folder / ABOUT
    if not path.is_file():
        return {}
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        complete = about["complete"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); pack the set again") from None
    if not complete:
        raise ValueError(f"{folder} is only half packed: give the same pack command again, it goes on from there")
    return about


def _grouped(path: Path, skipped: list[str], unread: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """A shard's files by key, as webdataset groups them."""

    def note(error: Exception) -> bool:
        skipped.append(f"{path}: {error.args[0] if error.args else error}")
        return True

    return webdataset().tariterators.group_by_keys(members(path, skipped, unread), handler=note)


def _fingerprint(shards: list[Path]) -> str:
    about = [(path.name, path.stat().st_size) for path in shards]
    return hashlib.sha256(str(about).encode()).hexdigest()[:16]


def webdataset() -> Any:
    """The library, which only tar shards need.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import webdataset as library
        import webdataset.mix
    except ImportError:
        raise ValueError("tar shards need the package webdataset: pip install 'fasthamer-kd[data]'") from None
    return library
