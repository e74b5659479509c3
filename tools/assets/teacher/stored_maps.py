"""The frozen part's maps of augmented crops, stored once: a training step then costs what the other part does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from fasthamer.data.dataset import DatasetInfo, HandDataset, fingerprint
from fasthamer.data.loader_processes import quiet_worker, readable
from fasthamer.data.subsets import Views
from fasthamer.files.atomic import write_json
from fasthamer.tools.assets.teacher.parts import FrozenPart
from fasthamer.types import Batch

BATCH = 32  # crops at a time
ABOUT = "about.json"


class StoredMaps(HandDataset):
    """`dataset[(epoch, index)]` is a `Batch` item whose image is a stored map.

    Args:
        folder: written by `store_maps`.
    """

    info = DatasetInfo("StoredMaps", meshes=True, poses=True)

    def __init__(self, folder: Path) -> None:
        self.fields = Batch(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in Batch._fields))

    def __len__(self) -> int:
        return len(self.fields.index)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        item = Batch(*(torch.from_numpy(np.array(field[key[1]])) for field in self.fields))
        return item._replace(vertices=item.vertices.float())


def store_maps(folder: Path, images: HandDataset, views: int, frozen: FrozenPart, workers: int) -> StoredMaps:
    """Fills the folder, or goes on where an earlier call stopped.

    Args:
        folder: of this dataset's maps.
        images: augmented anew in every epoch.
        views: crops of each image.
        frozen: on its device.
        workers: loader processes.

    Raises:
        ValueError: the folder holds the maps of other images.
        BadSample: an image cannot be read.
    """
    crops = Views(images, views)
    about = {"images": fingerprint(crops), "views": views, "crops": len(crops)}
    done = _done(folder, about)
    keys = [[(0, i) for i in range(start, min(start + BATCH, len(crops)))] for start in range(done, len(crops), BATCH)]
    loader: DataLoader = DataLoader(
        crops,
        batch_sampler=keys,  # type: ignore[arg-type]
        num_workers=workers,
        worker_init_fn=quiet_worker,
    )
    device = next(frozen.parameters()).device
    arrays: dict[str, np.memmap] = {}
    for samples in tqdm(readable(loader), "storing maps", len(keys), unit="batch", mininterval=5):
        batch = Batch(*samples)
        maps = frozen(batch.image.to(device)).half().cpu()
        batch = batch._replace(image=maps, vertices=batch.vertices.half())
        for name, field in batch._asdict().items():
            if name not in arrays:
                arrays[name] = _array(folder / f"{name}.npy", (len(crops), *field.shape[1:]), field.numpy().dtype)
            arrays[name][done : done + len(field)] = field.numpy()
        done += len(batch.index)
        if done % (100 * BATCH) == 0 or done == len(crops):
            for array in arrays.values():
                array.flush()
            write_json(folder / ABOUT, {**about, "done": done})
    return StoredMaps(folder)


def _done(folder: Path, about: dict) -> int:
    """How many crops an earlier call stored."""
    path = folder / ABOUT
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        return 0
    stored = json.loads(path.read_text(encoding="utf-8"))
    done: int = stored.pop("done")
    if stored != about:
        raise ValueError(f"{folder} holds the maps of other images ({stored}): name another folder or remove it")
    return done


def _array(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.memmap:
    if path.is_file():
        return np.load(path, mmap_mode="r+")
    return np.lib.format.open_memmap(path, "w+", dtype, shape)
