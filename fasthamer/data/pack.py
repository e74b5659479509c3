"""Packs an image dataset into tar shards, which are read sequentially, for training at scale.

A shard is written under a temporary name, read back, compared with its input and then renamed. `pack.json` records the
finished shards, so the same command continues after an interruption. The format is HaMeR's, see
`fasthamer.data.readers.tar_record`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from fasthamer.data.dataset import fingerprint
from fasthamer.data.readers.base import ImageDataset, RawSample
from fasthamer.data.readers.tar_members import members
from fasthamer.data.readers.tar_record import read_record, write_record
from fasthamer.data.readers.tars import PACK_INFO, RECORD, webdataset
from fasthamer.data.sample import Labels
from fasthamer.files.atomic import remove_drafts, replacing, write_json
from fasthamer.files.images import JPEG_BEGIN, decode_image, encode_image, read_image_size, read_orientation
from fasthamer.files.safe_json import read_json

SHARD = 1000  # hands per shard, as HaMeR's
REACH = 0.95  # of the box's side: farthest from its centre that augmentation reaches (1.3 / sqrt(2) + shift)
WORTH_CUTTING = 0.7  # an image is cut if less than this part of it is within reach
LARGEST_SIDE = 768  # pixels of a cut's side, three times a crop's; larger ones are shrunk
QUALITY = 95  # of JPEG files that are encoded again


class Packed(NamedTuple):
    """The result of packing."""

    hands: int
    shards: int
    skipped: list[str]  # a line for each hand that could not be read


def pack(
    dataset: ImageDataset,
    out: str | Path,
    name: str,
    embedded: bool,
    shard: int = SHARD,
    say: Callable[[str], None] = print,
) -> Packed:
    """Writes the hands of a dataset as shards `out/000000.tar`, ...; continues where an earlier call stopped.

    An image is copied as it is, unless it is no JPEG or mostly out of augmentation's reach; then the part within reach
    is encoded as JPEG. Labels are stored as float32.

    Args:
        dataset: any reader of images.
        out: the folder; created if missing.
        name: of the dataset, for `pack.json`.
        embedded: whether the labels' poses, shapes and vertices are the embedded hand's, not MANO's.
        shard: hands per shard.
        say: called with a line about each finished shard.

    Raises:
        ValueError: the dataset cannot be packed, the folder holds other shards, or a shard reads back differently.
    """
    webdataset()  # before anything is written
    if not isinstance(dataset, ImageDataset):
        raise ValueError(f"{name} has no files to pack: only sets of images are packed")
    if not len(dataset) or shard < 1:
        raise ValueError(f"nothing to pack: {name} has {len(dataset)} hands, {shard} go into a shard")
    out = Path(out)
    remove_drafts(out)
    settings = {
        "data": name,
        "hand": "embedded" if embedded else "mano",
        "of": len(dataset),
        "shard": shard,
        "crops_and_labels": fingerprint(dataset),
    }
    about = _begin(out, settings)
    done: dict[str, dict[str, Any]] = about["shards"]
    for number, first in enumerate(range(0, len(dataset), shard)):
        file = f"{number:06d}.tar"
        if file in done and (out / file).is_file():
            continue
        indices = range(first, min(first + shard, len(dataset)))
        skipped: list[str] = []
        count = _write_shard(dataset, indices, out / file, skipped)
        done[file] = {"hands": count, "skipped": skipped}
        _save(out, about)
        say(f"{out / file}: {count} hands" + (f", {len(skipped)} skipped" if skipped else ""))
    hands = sum(each["hands"] for each in done.values())
    if not hands:
        raise ValueError(f"not one hand of {name} could be read, the first: {next(iter(done.values()))['skipped'][0]}")
    about["complete"] = True
    _save(out, about)
    return Packed(hands, len(done), [line for each in done.values() for line in each["skipped"]])


def _begin(out: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The `pack.json` of an earlier call, or a new one."""
    path = out / PACK_INFO
    if not path.is_file():
        if out.exists() and (not out.is_dir() or any(out.glob("*.tar"))):
            raise ValueError(f"{out} holds other shards: pack into another folder")
        about = settings | {"complete": False, "shards": {}}
        _save(out, about)
        return about
    try:
        about = read_json(path)
        before = {key: about[key] for key in settings}
        assert isinstance(about["shards"], dict)
    except (ValueError, KeyError, TypeError, AssertionError):
        raise ValueError(f"{path} is damaged: remove {out} and pack again") from None
    differing = [f"{key} {before[key]}, now {settings[key]}" for key in settings if before[key] != settings[key]]
    if differing:
        raise ValueError(f"{out} was packed with {'; '.join(differing)}: pack into another folder")
    return about


def _save(out: Path, about: dict[str, Any]) -> None:
    write_json(out / PACK_INFO, about)


def _write_shard(dataset: ImageDataset, indices: range, path: Path, skipped: list[str]) -> int:
    """Writes, verifies and renames one shard; returns the number of its hands."""
    hands: dict[str, RawSample] = {}
    with replacing(path) as draft:
        with draft.open("wb") as file, webdataset().TarWriter(file, encoder=False, mtime=0) as writer:
            for index in indices:
                try:
                    source = dataset.raw_sample(index)
                    if problem := dataset.image_problem(index, *read_image_size(source.path, source.upright)):
                        raise ValueError(problem)
                    image, hand = packed_hand(source)
                except (ValueError, OSError) as error:
                    skipped.append(f"hand {index}: {error}")
                    continue
                key = f"{index:09d}"
                hands[key] = hand
                record = write_record(hand.labels, hand.box, hand.left, str(source.path))
                writer.write({"__key__": key, RECORD: record, "jpg": image})
        _verify(draft, hands)
    return len(hands)


def _verify(path: Path, hands: dict[str, RawSample]) -> None:
    """Compares a shard on the disk with its input.

    Raises:
        ValueError: they differ, or an image cannot be read.
    """
    damage: list[str] = []
    left = dict(hands)
    images = 0
    for member in members(path, damage):
        key, kind = member["fname"].split(".", 1)
        if kind == RECORD:
            (found,), wanted = read_record(member["data"], f"{path}: {key}", None), left.pop(key)
            box = np.allclose(found.box.centre, wanted.box.centre) and np.isclose(found.box.side, wanted.box.side)
            if found.left != wanted.left or not box or not _same(found.labels, wanted.labels):
                raise ValueError(f"{path}: {key} reads back with other labels: is the disk sound?")
        else:
            decode_image(member["data"], f"{path}: {key}", upright=False)
            images += 1
    if damage or left or images != len(hands):
        raise ValueError(f"{path}: {len(hands)} hands went in, {images} images read back {damage[:1]}")


def _same(found: Labels, wanted: Labels) -> bool:
    """Whether labels agree to float32; points without confidence may differ."""
    for name, one, other in zip(Labels._fields, found, wanted, strict=True):
        if other is not None and name in ("keypoints", "joints") and not other[:, -1].any():
            other = None
        if one is None or other is None:
            if one is not other:
                return False
        elif not np.array_equal(one, other.astype(np.float32).reshape(one.shape), equal_nan=True):
            return False
    return True


def packed_hand(hand: RawSample) -> tuple[bytes, RawSample]:
    """The bytes of the image to pack, and the hand with labels and box in that image.

    An image whose EXIF orientation may have been applied is encoded again, without it: shards are read as stored.

    Raises:
        FileNotFoundError, ValueError: no image, or a damaged one.
    """
    content = hand.path.read_bytes()
    image = decode_image(content, str(hand.path), hand.upright)
    height, width = image.shape[:2]
    reach = REACH * hand.box.side
    corner = np.clip(np.floor(hand.box.centre - reach), 0, [width - 1, height - 1]).astype(int)
    far = np.clip(np.ceil(hand.box.centre + reach), corner + 1, [width, height]).astype(int)
    scale = min(1.0, LARGEST_SIDE / float((far - corner).max()))
    if (far - corner).prod() >= WORTH_CUTTING * width * height and scale == 1.0:
        if content.startswith(JPEG_BEGIN) and (hand.upright is False or read_orientation(hand.path) == 1):
            return content, hand
        corner, far = np.zeros(2, int), np.array([width, height])
    part: np.ndarray = image[corner[1] : far[1], corner[0] : far[0]]
    if scale < 1.0:
        part = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return encode_image(part, ".jpg", QUALITY), _moved(hand, corner, scale)


def _moved(hand: RawSample, corner: np.ndarray, scale: float) -> RawSample:
    """The hand in a part of its image that begins at `corner` and was scaled; 3D labels do not change."""

    def move(points: np.ndarray) -> np.ndarray:
        return (points - corner + 0.5) * scale - 0.5  # pixels are counted at their centres

    labels, keypoints = hand.labels, hand.labels.keypoints
    if keypoints is not None:
        labels = labels._replace(keypoints=np.column_stack((move(keypoints[:, :2]), keypoints[:, 2])))
    box = hand.box._replace(centre=move(np.asarray(hand.box.centre)), side=hand.box.side * scale)
    return hand._replace(labels=labels, box=box)
