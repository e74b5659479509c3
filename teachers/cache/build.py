"""Fills a teacher cache: one pass of the teacher over every image without augmentation, shard by shard."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, default_collate
from tqdm import tqdm

from fasthamer.data.dataset import HandDataset
from fasthamer.data.faults import Faults, Read, Tolerant
from fasthamer.data.loader_processes import quiet_worker, readable
from fasthamer.files.atomic import remove_drafts, write_json
from fasthamer.teachers.cache.components import FITTED_ON, components_fingerprint, fit_components, save_components
from fasthamer.teachers.cache.manifest import (
    COMPONENTS,
    FORMAT,
    MANIFEST,
    CacheKey,
    CacheRequest,
    components_of,
    read_manifest,
    shards_of,
)
from fasthamer.teachers.cache.shards import MARK, Shards
from fasthamer.teachers.teacher import Teacher
from fasthamer.training.interrupt import InterruptHandler
from fasthamer.training.log import duration
from fasthamer.types import Batch, HandOutput


class Builder:
    """Completes a cache; several processes may share the work, and a killed build is continued."""

    def __init__(
        self, folder: Path, teacher: Teacher, images: HandDataset, key: CacheKey, request: CacheRequest
    ) -> None:
        """
        Args:
            folder: of the cache.
            teacher: on the device it computes on.
            images: not augmented, indexed by (epoch, index).
            key: of teacher and images.
            request: what to store.
        """
        self.folder, self.teacher, self.images = folder, teacher, images
        self.key, self.request = key, request
        self.device = next(teacher.parameters()).device

    def shards(self) -> Shards:
        """The cache's shards; after `begin`."""
        return shards_of(self.folder, self._manifest(), self.request.rows)

    def begin(self, batch: int, workers: int) -> None:
        """Writes the manifest and, where requested, the maps' principal components; keeps what exists.

        Raises:
            ValueError: the request does not fit the teacher or the folder; see `read_manifest`.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_drafts(self.folder)
        if read_manifest(self.folder, self.key, self.request) is not None:
            return
        _, output, _ = next(self._outputs([[0]], 0))
        manifest: dict[str, Any] = {"format": FORMAT, **self.key._asdict(), "mano": output.mano is not None}
        manifest |= {"maps": None, "components": None}
        if self.request.maps:
            channels, height, width = output.features.shape[1:]
            kept = self.request.channels or channels
            manifest["maps"] = {"channels": channels, "kept": kept, "height": height, "width": width}
            if kept != channels:
                manifest["components"] = self._fit(kept, batch, workers)
        write_json(self.folder / MANIFEST, manifest)

    def reopen(self) -> None:
        """Counts a shard as missing if a sample could not be read when it was computed and can be now."""
        shards, reading = self.shards(), Tolerant(self.images, seed=None)
        for number in sorted(set(range(shards.total)) - set(shards.missing())):
            gaps = shards.gaps(number)
            if any(reading.__getitems__([(0, sample)]).items for sample in gaps):
                shards.marker(gaps[0]).unlink()

    def estimate(self, batch: int, processes: int = 1) -> str:
        """One line: what exists, the final size and the remaining time; runs one batch twice to measure it.

        Raises:
            OSError: the disk has not enough space.
        """
        shards = self.shards()
        missing = sum(len(shards.samples(number)) for number in shards.missing())
        outputs, maps = (shards.length * each for each in shards.row_bytes)
        size = f"{shards.length} outputs, {_bytes(outputs)}"
        if shards.map_shape:
            size += " and feature maps {} x {} x {}, {}".format(*shards.map_shape, _bytes(maps))
        if not missing:
            return f"{self.request.title} {self.folder}: complete ({size})"
        left, free = missing * sum(shards.row_bytes), shutil.disk_usage(self.folder).free
        if left > free:
            raise OSError(
                errno.ENOSPC,
                f"the {self.request.title} {self.folder} needs {_bytes(left)} more and its disk has {_bytes(free)}: "
                "set TEACHER.CACHE_CHANNELS lower if it keeps feature maps, or name a folder on another disk",
            )
        group = list(range(min(batch, shards.length)))
        for _ in range(2):  # the first pass warms up
            since = time.perf_counter()
            next(self._outputs([group], 0))
        pace = len(group) / (time.perf_counter() - since) * processes
        done = f"{shards.total - len(shards.missing())} of {shards.total} shards are there"
        return (
            f"{self.request.title} {self.folder}: {size}; {done}; about {duration(missing / pace)} for the other "
            f"{missing} at {pace:.1f} images/s"
        )

    def fill(self, batch: int, workers: int, rank: int = 0, processes: int = 1, faults: float = 0.0) -> None:
        """Computes this process's part of the missing shards, those whose number is `rank` modulo `processes`.

        Samples that cannot be read get rows of NaN, up to a share of `faults` (DATA.FAULTS): a training takes other
        samples in their place.

        Raises:
            Interrupted: on Ctrl-C, between two batches.
            FloatingPointError: an output that is not finite, or features beyond half precision.
            BadSample: more samples cannot be read.
        """
        shards, components = self.shards(), components_of(self.folder, self._manifest())
        mine = [number for number in shards.missing() if number % processes == rank]
        groups = [(number, part) for number in mine for part in _parts(shards.samples(number), batch)]
        quiet, images = rank > 0 or not mine, sum(len(part) for _, part in groups)
        bar = tqdm(total=images, desc=self.request.title, unit="image", disable=quiet)
        rows, maps, counted = [], [], Faults(faults)
        with InterruptHandler() as interrupt, bar:
            outputs = self._outputs([part for _, part in groups], workers)
            for (number, part), (crop, output, unreadable) in zip(groups, outputs, strict=True):
                counted.add(unreadable.values(), len(self.images))
                rows.append(_rows(output, crop, shards.kind, part))
                for row in (row for row, sample in enumerate(part) if sample in unreadable):
                    for name in set(shards.kind.names or ()) - {MARK}:
                        rows[-1][name][row] = np.nan
                if shards.map_shape:
                    maps.append(_half(components.compress(output.features) if components else output.features, part))
                bar.update(len(part))
                if part[-1] == shards.samples(number)[-1]:
                    shards.write(number, np.concatenate(rows), np.concatenate(maps) if maps else None)
                    rows, maps = [], []
                if interrupt.requested:
                    break
        if interrupt.requested:
            left = len(shards.missing())
            raise interrupt.error(
                f"stopped while the {self.request.title} was built: {left} of {shards.total} shards are left"
            )

    def _outputs(
        self, groups: Sequence[Sequence[int]], workers: int
    ) -> Iterator[tuple[Tensor, HandOutput, dict[int, str]]]:
        """For each group of samples the crop's affine map, the teacher's outputs, and which could not be read and why.

        In place of those stand other samples.
        """
        keys = [[(0, index) for index in group] for group in groups]
        loader: DataLoader = DataLoader(
            Tolerant(self.images, seed=0),
            batch_sampler=keys,  # type: ignore[arg-type]
            num_workers=workers,
            worker_init_fn=quiet_worker,
            collate_fn=_collated,  # type: ignore[arg-type]
        )
        for loaded, unreadable in readable(loader):
            samples = Batch(*loaded)
            yield samples.crop, self.teacher(samples.image.to(self.device)), unreadable

    def _fit(self, kept: int, batch: int, workers: int) -> str:
        path = self.folder / COMPONENTS
        if not path.is_file():
            spread = np.linspace(0, self.key.samples - 1, min(FITTED_ON, self.key.samples)).astype(int).tolist()
            groups = _parts(spread, batch)
            maps = (output.features for _, output, _ in tqdm(self._outputs(groups, workers), "components", len(groups)))
            components, explained = fit_components(maps, kept)
            tqdm.write(f"{kept} principal components explain {explained:.1%} of the variance of the teacher's features")
            save_components(path, components)
        return components_fingerprint(path)

    def _manifest(self) -> dict[str, Any]:
        manifest = read_manifest(self.folder, self.key, self.request)
        assert manifest is not None, "begin() comes first"
        return manifest


def _collated(read: Read) -> tuple[Any, dict[int, str]]:
    return default_collate(read.items), dict(read.faults)


def _rows(output: HandOutput, crop: Tensor, kind: np.dtype, samples: Sequence[int]) -> NDArray:
    parts: dict[str, Tensor] = {"crop": crop, **output._asdict(), **(output.mano._asdict() if output.mano else {})}
    rows = np.zeros(len(samples), dtype=kind)
    for name in kind.names or ():
        if name in parts:
            rows[name] = parts[name].float().cpu().numpy()
            if not np.isfinite(rows[name]).all():
                raise FloatingPointError(
                    f"the teacher's {name} for samples {samples[0]} to {samples[-1]} are not finite"
                )
    return rows


def _half(features: Tensor, samples: Sequence[int]) -> NDArray[np.float16]:
    half = features.half()
    if not half.isfinite().all():
        raise FloatingPointError(
            f"the teacher's features for samples {samples[0]} to {samples[-1]} do not fit half precision (largest "
            f"{features.abs().max().item():.3g}): use KD.MODE output with the cache"
        )
    return half.cpu().numpy()


def _parts(samples: Sequence[int], size: int) -> list[Sequence[int]]:
    return [samples[begin : begin + size] for begin in range(0, len(samples), size)]


def _bytes(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e8 else f"{number / 1e6:.1f} MB"
