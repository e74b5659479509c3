"""What a teacher cache holds: whose answers, to which images, and how much of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fasthamer.data.dataset import HandDataset, fingerprint
from fasthamer.teachers.cache.components import Components, load_components
from fasthamer.teachers.cache.shards import Shards, read_json, row_type
from fasthamer.teachers.teacher import Teacher

FORMAT = "fasthamer-teacher-cache-1"
ABOUT, COMPONENTS = "about.json", "components.npz"


class Subject(NamedTuple):
    """Whose answers to what; a cache of anything else is refused."""

    teacher: str  # a hash of its weights and of what it looks at
    precision: str  # TEACHER.PRECISION: auto may be filled on a GPU and read on a CPU
    hand: str  # the hand model's fingerprint
    data: str  # `fasthamer.training.provenance.fingerprint` of the images, cut as they are
    samples: int


class Wanted(NamedTuple):
    """What a cache is asked to keep."""

    maps: bool  # the teacher's feature maps too
    channels: int  # principal components that are kept of them; 0 = all channels


def subject_of(teacher: Teacher, images: HandDataset) -> Subject:
    """Reads every weight and three images."""
    digest = hashlib.sha256(f"{type(teacher.model).__name__} {teacher.image_size} {tuple(teacher.view)}".encode())
    for name, value in sorted(teacher.model.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    weights = digest.hexdigest()[:16]
    return Subject(weights, teacher.precision, teacher.hand.fingerprint, fingerprint(images), len(images))


def read_about(folder: Path, subject: Subject, wanted: Wanted) -> dict[str, Any] | None:
    """What a folder says it holds; None if nothing has been written there yet.

    Raises:
        ValueError: another subject's answers, less than is wanted, other files, or a damaged `about.json`.
    """
    path = folder / ABOUT
    if not path.is_file():
        if folder.exists() and (not folder.is_dir() or any(_not_ours(folder))):
            raise ValueError(f"{folder} holds other files, no teacher cache ({ABOUT} is missing): name another folder")
        return None
    about = read_json(path)
    if about.get("format") != FORMAT or not {*Subject._fields, "mano", "maps", "components"} <= about.keys():
        raise ValueError(f"{path}: format {about.get('format')!r}, this version reads {FORMAT!r}: name another folder")
    for name, ours in subject._asdict().items():
        if about.get(name) != ours:
            raise ValueError(
                f"{folder} caches another {name if name != 'samples' else 'number of samples'} "
                f"({about.get(name)}, this run has {ours}): give --teacher-cache another folder, or remove this one"
            )
    maps = about["maps"]
    if wanted.maps and maps is None:
        raise ValueError(
            f"{folder} keeps outputs only, but KD.MODE compares features: give --teacher-cache another folder"
        )
    if wanted.maps and maps["kept"] != (wanted.channels or maps["channels"]):
        raise ValueError(
            f"{folder} keeps {maps['kept']} of {maps['channels']} feature channels, TEACHER.CACHE_CHANNELS asks for "
            f"{wanted.channels or 'all'}: give --teacher-cache another folder"
        )
    return about


def shards_of(folder: Path, about: dict[str, Any]) -> Shards:
    """The shards that `about` speaks of."""
    identity = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    maps = about["maps"]
    shape = (maps["kept"], maps["height"], maps["width"]) if maps else None
    return Shards(folder, identity, about["samples"], row_type(about["mano"]), shape)


def components_of(folder: Path, about: dict[str, Any]) -> Components | None:
    """What undoes the compression of the maps; None where they are kept as they are."""
    return load_components(folder / COMPONENTS, about["components"]) if about["components"] else None


def _not_ours(folder: Path) -> list[str]:
    ours = ("answers_", "maps_", "shard_", COMPONENTS, ".")
    return [path.name for path in folder.iterdir() if not path.name.startswith(ours)]
