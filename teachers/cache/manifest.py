"""What a teacher cache holds: which teacher's outputs, for which images, and whether feature maps are among them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from fasthamer.data.dataset import HandDataset, fingerprint
from fasthamer.nn.normalise import Normalise
from fasthamer.one_line import one_line
from fasthamer.students.split_backbone import FrozenStages
from fasthamer.students.student import Student
from fasthamer.teachers.cache.components import Components, load_components
from fasthamer.teachers.cache.shards import ROWS, Shards, read_json, row_type
from fasthamer.teachers.ensemble import Ensemble
from fasthamer.teachers.teacher import Teacher

FORMAT = "fasthamer-teacher-cache-1"
MANIFEST, COMPONENTS = "about.json", "components.npz"


class CacheKey(NamedTuple):
    """Identifies a cache: the teacher and its input; a cache with another key is refused."""

    teacher: str  # a hash of its weights, image size and view, and of what else its features depend on
    precision: str  # TEACHER.PRECISION: auto may be filled on a GPU and read on a CPU
    hand: str  # the hand model's fingerprint
    data: str  # `fasthamer.data.dataset.fingerprint` of the images without augmentation
    samples: int


class CacheRequest(NamedTuple):
    """What a cache stores beside the outputs, and how."""

    maps: bool  # the teacher's feature maps too
    channels: int  # principal components stored of them; 0 = all channels
    rows: int = ROWS  # samples of a shard; not in the manifest: open a cache with the number it was built with
    title: str = "teacher cache"  # in messages


def cache_key(teacher: Teacher, images: HandDataset) -> CacheKey:
    """The key of a teacher's outputs for a dataset; hashes every weight and three images."""
    digest = hashlib.sha256(f"{type(teacher.model).__name__} {teacher.image_size} {tuple(teacher.view)}".encode())
    for name, value in sorted(teacher.model.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    digest.update(_beside_weights(teacher.model).encode())
    return CacheKey(
        digest.hexdigest()[:16], teacher.precision, teacher.hand.fingerprint, fingerprint(images), len(images)
    )


def read_manifest(folder: Path, key: CacheKey, request: CacheRequest) -> dict[str, Any] | None:
    """The manifest of a cache's folder; None if nothing has been written there yet.

    Raises:
        ValueError: a cache with another key, without what is requested, other files, or a damaged `about.json`.
    """
    path = folder / MANIFEST
    if not path.is_file():
        if folder.exists() and (not folder.is_dir() or any(_not_ours(folder))):
            raise ValueError(
                f"{folder} holds other files, no teacher cache ({MANIFEST} is missing): name another folder"
            )
        return None
    manifest = read_json(path)
    if manifest.get("format") != FORMAT or not {*CacheKey._fields, "mano", "maps", "components"} <= manifest.keys():
        raise ValueError(
            f"{path}: format {one_line(manifest.get('format'))!r}, this version reads {FORMAT!r}: name another folder"
        )
    for name, ours in key._asdict().items():
        theirs = one_line(manifest.get(name))
        if manifest.get(name) != ours:
            raise ValueError(
                f"{folder} caches another {name if name != 'samples' else 'number of samples'} "
                f"({theirs}, this run has {ours}): name another folder, or remove this one"
            )
    maps = manifest["maps"]
    if not _are_sizes(maps):
        raise ValueError(f"{path}: damaged, its maps are {one_line(maps)}; remove the folder or name another")
    if request.maps and maps is None:
        raise ValueError(
            f"{folder} keeps outputs only, but KD.MODE compares features: name another folder, or distil outputs alone "
            "(--kd output)"
        )
    if request.maps and maps["kept"] != (request.channels or maps["channels"]):
        raise ValueError(
            f"{folder} keeps {maps['kept']} of {maps['channels']} feature channels, TEACHER.CACHE_CHANNELS asks for "
            f"{request.channels or 'all'}: name another folder"
        )
    return manifest


def shards_of(folder: Path, manifest: dict[str, Any], rows: int = ROWS) -> Shards:
    """The shards of the cache with this manifest, `rows` samples each."""
    identity = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:16]
    maps = manifest["maps"]
    shape = (maps["kept"], maps["height"], maps["width"]) if maps else None
    return Shards(folder, identity, manifest["samples"], row_type(manifest["mano"]), shape, rows)


def components_of(folder: Path, manifest: dict[str, Any]) -> Components | None:
    """The principal components of the stored maps; None where all channels are stored."""
    return load_components(folder / COMPONENTS, manifest["components"]) if manifest["components"] else None


def _beside_weights(model: nn.Module) -> str:
    """What features of models with equal weights may differ in; empty where nothing does, so that caches stay valid."""
    if isinstance(model, Ensemble):
        return _beside_weights(model.members[0])
    if isinstance(model, Student):
        layers = model.backbone.layers
        tapped = [layers[index] for index in model.backbone.tapped]
        return "" if tapped == layers[-1:] else f"features of {', '.join(tapped)}"
    parts = list(model.children())
    stages = [part.identity for part in parts if isinstance(part, FrozenStages)]
    pixels = [torch.cat((part.scale, part.shift)).tolist() for part in parts if isinstance(part, Normalise)]
    return f"{stages} {pixels}" if stages else ""


def _are_sizes(maps: Any) -> bool:
    names = {"kept", "channels", "height", "width"}
    return maps is None or (
        isinstance(maps, dict)
        and maps.keys() >= names
        and all(isinstance(maps[name], int) and 0 < maps[name] < 1 << 24 for name in names)
    )


def _not_ours(folder: Path) -> list[str]:
    ours = ("answers_", "maps_", "shard_", COMPONENTS, ".")
    return [path.name for path in folder.iterdir() if not path.name.startswith(ours)]
