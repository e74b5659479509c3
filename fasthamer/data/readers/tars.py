"""Hands in tar shards, the format of HaMeR's training data: `<key>.jpg` and `<key>.data.pyd`, read sequentially.

    ROOT/000000.tar, ROOT/000001.tar, ...       see `fasthamer.data.readers.tar_record` for the labels
    ROOT/pack.json                              only beside shards packed by tools/prepare_data.py

ROOT may also be `pipe:` and a command that writes a shard, see `fasthamer.data.readers.piped_shard`:

    pipe:aws s3 cp s3://bucket/{000000..000099}.tar -
    pipe:aws s3 cp s3://bucket/{pack.json,{000000..000099}.tar} -

The shards of an epoch are shuffled and assigned to the lanes in groups. The shards of a group are read in parallel, and
their samples shuffled again in a buffer. The samples of a lane and their order are a function of (seed, lane, lanes);
all lanes together read every sample once per epoch.
"""

from __future__ import annotations

import copy
import hashlib
import random
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fasthamer.data import augment
from fasthamer.data.articulation import Articulation, articulation_of
from fasthamer.data.crop import CROPPING, Cropping
from fasthamer.data.dataset import HandStream, Place
from fasthamer.data.readers.piped_shard import PIPE, PipedShard, piped_shards
from fasthamer.data.readers.tar_members import members
from fasthamer.data.readers.tar_record import Filters, TarHand, read_record
from fasthamer.data.sample import Labels, make_item
from fasthamer.files.images import decode_image
from fasthamer.files.safe_json import parse_json
from fasthamer.hand.mano import Hand
from fasthamer.types import Batch

PACK_INFO = "pack.json"
GROUP_SHARDS = 4  # shards of a group
BUFFER = 1000  # undecoded samples from which the next is drawn; HaMeR's buffer has 4,000 for its ten datasets
CHUNK = 16  # samples whose labels are read before their images are decoded
SHARD_STRIDE = 1_000_000  # a sample's index is shard number * SHARD_STRIDE + position in the shard
IMAGE_SUFFIXES = ("jpg", "jpeg", "png")
RECORD = "data.pyd"


class TarSample(NamedTuple):
    """One sample of a shard, not yet decoded."""

    name: str  # the shard's path and the sample's key
    index: int  # type: ignore[assignment]
    image: bytes
    record: bytes


class AugmentedHand(NamedTuple):
    """A hand and its augmentation in one epoch."""

    hand: TarHand
    augmentation: augment.Augmentation | None


class TarDataset(HandStream):
    """The shards of a folder as a stream of items; an item is a pure function of (seed, epoch, sample).

    Args:
        root: the folder with the .tar files, one such file, or `pipe:` and a command.
        hand: the hand model that the labels are for. Betas, poses and vertices are used only with the hand model that
            they were made with: MANO in HaMeR's tars; `pack.json` names it for packed shards.
        image_size: side of the crops, pixels.
        strength: of the augmentation; None: no augmentation.
        seed: of order and augmentation.
        filters: default: HaMeR's; packed shards are never filtered.
        cropping: see `ImageDataset`.

    Raises:
        FileNotFoundError: no such folder, or no shards in it.
        ValueError: packing the folder was interrupted.
    """

    def __init__(
        self,
        root: str | Path,
        hand: Hand,
        image_size: int = 256,
        strength: augment.Strength | None = None,
        seed: int = 0,
        filters: Filters | None = None,
        cropping: Cropping = CROPPING,
    ) -> None:
        webdataset()
        self.shards, info = shards_and_info(str(root))
        self.filters = None if info else filters or Filters()
        self.mano_labels = hand.is_embedded == (info.get("hand") == "embedded")
        self.image_size, self.strength, self.seed = image_size, strength, seed
        self.cropping = cropping
        self.fingerprint = _fingerprint(self.shards, cropping)
        self.summary = f"{len(self.shards)} shards in {root}"
        self.fraction, self.only = 1.0, False  # fraction of samples with labels; whether to leave out the others

    def partly_labelled(self, fraction: float, only: bool) -> TarDataset:
        if not 0 < fraction <= 1:
            raise ValueError(f"DATA.LABELLED is {fraction}: it is the fraction of images with labels, in (0, 1]")
        part = copy.copy(self)
        part.fraction, part.only = fraction, only
        return part

    def walk(self, lane: int, lanes: int, place: Place, skipped: list[str]) -> Iterator[tuple[Batch, Place]]:
        place = place or [lane, 0, 0]
        empty_groups = 0
        while empty_groups <= self._groups_per_epoch(lanes):
            empty_groups += 1
            for item, next_place in self._read_group(place, lanes, skipped):
                empty_groups = 0
                yield item, next_place
            place = [place[0] + lanes, 0, 0]
        raise ValueError(
            f"{self.summary}: not one sample can be read (the last: {skipped[-1] if skipped else 'empty'})"
        )

    def describe(self, index: int) -> str:
        shard, number = divmod(index, SHARD_STRIDE)
        return f"sample {index} ({self.shards[shard]}, number {number} in it)"

    def epoch(self, epoch: int, lane: int, lanes: int, skipped: list[str]) -> Iterator[Batch]:
        """The items that `walk` yields for one epoch of a lane."""
        groups = self._groups_per_epoch(lanes)
        for group in range(epoch * groups, (epoch + 1) * groups):
            if group % lanes == lane:
                yield from (item for item, _ in self._read_group([group, 0, 0], lanes, skipped))

    def _shards_per_group(self, lanes: int) -> int:
        return max(1, min(GROUP_SHARDS, len(self.shards) // lanes))

    def _groups_per_epoch(self, lanes: int) -> int:
        return -(-len(self.shards) // self._shards_per_group(lanes))

    def _read_group(self, place: Place, lanes: int, skipped: list[str]) -> Iterator[tuple[Batch, Place]]:
        """The items of a group from a place (group, sample, hand of the sample) on, each with the next place."""
        group, begin, hand = place
        epoch, part = divmod(group, self._groups_per_epoch(lanes))
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.shards))
        size = self._shards_per_group(lanes)
        samples = self._shuffled(order[part * size : (part + 1) * size].tolist(), epoch, skipped)
        numbered = enumerate(islice(samples, begin, None), begin)
        # In chunks: reading labels and decoding images in turn takes twice as long for the labels.
        while chunk := [(n, sample, self._hands(sample, epoch, skipped)) for n, sample in islice(numbered, CHUNK)]:
            for number, sample, hands in chunk:
                for each, item in self._items(sample, hands, hand if number == begin else 0, skipped):
                    yield item, [group, number, each + 1]

    def items(self, sample: TarSample, epoch: int, skipped: list[str]) -> Iterator[tuple[int, Batch]]:
        """The items of a sample in an epoch, each with the number of its hand."""
        return self._items(sample, self._hands(sample, epoch, skipped), 0, skipped)

    def _hands(self, sample: TarSample, epoch: int, skipped: list[str]) -> list[AugmentedHand]:
        """The hands of a sample with their augmentation in an epoch; none if the labels cannot be read."""
        labelled = self._is_labelled(sample)
        if self.only and not labelled:
            return []
        try:
            hands = read_record(sample.record, sample.name, self.filters, self.cropping.shape)
        except ValueError as error:
            skipped.append(str(error))
            return []
        augmented = []
        for number, hand in enumerate(hands):
            augmentation, labels = None, hand.labels if labelled else Labels()
            if self.strength is not None:
                seed = (self.seed, epoch, sample.index, number)
                augmentation = augment.draw(np.random.default_rng(seed), self.strength)
            if not self.mano_labels:
                labels = labels._replace(vertices=None, pose=None, betas=None)
            augmented.append(AugmentedHand(hand._replace(labels=labels), augmentation))
        return augmented

    def _items(
        self, sample: TarSample, hands: list[AugmentedHand], first: int, skipped: list[str]
    ) -> Iterator[tuple[int, Batch]]:
        """The items of a sample's hands from number `first` on."""
        if not hands:
            return
        try:
            image = decode_image(sample.image, sample.name, upright=False)
        except ValueError as error:
            skipped.append(str(error))
            return
        for number, (hand, augmentation) in enumerate(hands[first:], first):
            size, index = self.image_size, sample.index
            blur = self.cropping.blur
            try:
                item = make_item(image, hand.labels, hand.box, size, index, augmentation, hand.left, blur)
            except ValueError as error:
                skipped.append(f"{sample.name}: {error}")
                continue
            yield number, item

    def _is_labelled(self, sample: TarSample) -> bool:
        """Whether the sample keeps its labels; the same in every epoch."""
        if self.fraction == 1.0:
            return True
        return np.random.default_rng((self.seed, sample.index)).random() < self.fraction

    def articulations(self, shard: int, skipped: list[str]) -> Iterator[Articulation]:
        """The labelled poses of a shard, with betas if they are of this hand model; reads no image."""
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

    def samples(self, shard: int, skipped: list[str], images: bool = True) -> Iterator[TarSample]:
        """The samples of a shard in its order; samples without image or labels are skipped.

        With `images=False` images are not read; their bytes are empty.
        """
        path = self.shards[shard]
        unread = () if images else tuple(f".{kind}" for kind in IMAGE_SUFFIXES)
        for number, sample in enumerate(_grouped(path, skipped, unread)):
            name = f"{path}: {sample['__key__']}"
            image = next((sample[kind] for kind in IMAGE_SUFFIXES if kind in sample), None)
            if image is None or RECORD not in sample:
                skipped.append(f"{name}: no {'image' if image is None else RECORD}")
                continue
            yield TarSample(name, shard * SHARD_STRIDE + number, image, sample[RECORD])

    def _shuffled(self, shards: list[int], epoch: int, skipped: list[str]) -> Iterator[TarSample]:
        library = webdataset()
        interleaved = library.mix.round_robin_longest(*(self.samples(shard, skipped) for shard in shards))
        rng = random.Random(f"{self.seed} {epoch} {shards}")
        return library.shuffle(BUFFER, initial=BUFFER, rng=rng)(interleaved)


def find_shards(root: Path) -> list[Path]:
    """The .tar files of a folder, sorted by name; or `root` itself if it is a .tar file.

    Raises:
        FileNotFoundError: no such folder, or no shards in it.
    """
    if root.suffix == ".tar" and root.is_file():
        return [root]
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}: DATA.ROOT must be a folder of .tar shards, or one .tar file")
    found = sorted(path for path in root.glob("*.tar") if not path.name.startswith("."))
    if not found:
        raise FileNotFoundError(f"{root} holds no .tar shards")
    return found


def shards_and_info(root: str) -> tuple[Sequence[Path | PipedShard], dict[str, Any]]:
    """The shards of DATA.ROOT, and the content of `pack.json` beside them; empty for HaMeR's own tars.

    Raises:
        FileNotFoundError: no such folder, or no shards in it.
        ValueError: packing was interrupted, `pack.json` is damaged, or what follows `pipe:` is no command.
        OSError: `pack.json` cannot be fetched.
    """
    if not root.startswith(PIPE):
        found = find_shards(Path(root))
        path = found[0].parent / PACK_INFO
        return found, read_pack_info(path) if path.is_file() else {}
    piped = piped_shards(root)
    named = [each for each in piped if any(argument.endswith(PACK_INFO) for argument in each.arguments)]
    shards = [each for each in piped if each not in named]
    if not shards:
        raise ValueError(f"{root} names no shard")
    return shards, read_pack_info(named[0]) if named else {}


def read_pack_info(path: Path | PipedShard) -> dict[str, Any]:
    """The content of `pack.json`.

    Raises:
        ValueError: packing was interrupted, or `pack.json` is damaged.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        info = parse_json(file.read(), str(path))
    try:
        complete = info["complete"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); pack the set again") from None
    if not complete:
        raise ValueError(f"{path}: only half packed; run the same pack command again, it continues from there")
    return info


def _grouped(path: Path | PipedShard, skipped: list[str], unread: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """A shard's files grouped by key, as webdataset does it."""

    def note(error: Exception) -> bool:
        skipped.append(f"{path}: {error.args[0] if error.args else error}")
        return True

    return webdataset().tariterators.group_by_keys(members(path, skipped, unread), handler=note)


def _fingerprint(shards: Sequence[Path | PipedShard], cropping: Cropping) -> str:
    files = [(path.name, path.stat().st_size) if isinstance(path, Path) else str(path) for path in shards]
    described = str(files) if cropping == CROPPING else f"{files} {tuple(cropping)}"
    return hashlib.sha256(described.encode()).hexdigest()[:16]


def webdataset() -> Any:
    """The package webdataset, imported when tar shards are used.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import webdataset as library
        import webdataset.mix
    except ImportError:
        raise ValueError("tar shards need the package webdataset: pip install 'fasthamer-kd[data]'") from None
    return library
