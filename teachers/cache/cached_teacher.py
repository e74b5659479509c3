"""A teacher's outputs from disk, moved with the augmented crop, in place of the teacher."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fasthamer.data.dataset import HandDataset
from fasthamer.data.faults import BadSample
from fasthamer.teachers.cache.build import Builder
from fasthamer.teachers.cache.geometry import Motion, crop_motion, move_output
from fasthamer.teachers.cache.manifest import CacheKey, CacheRequest, cache_key, components_of, read_manifest, shards_of
from fasthamer.teachers.cache.shards import is_gap
from fasthamer.teachers.teacher import Teacher
from fasthamer.types import Batch, HandOutput, ManoParams


class CachedTeacher(nn.Module):
    """`recall(batch, device) -> HandOutput` in place of `teacher(image)`, once `build` has made the cache complete.

    The cache holds the teacher's outputs for the images without augmentation. Outputs follow an augmented crop in
    closed form, see `fasthamer.teachers.cache.geometry`; feature maps do not: a network's features neither rotate nor
    scale with its image, and a map warped after the crop is no nearer to the true one than the map as it is (measured:
    docs/distillation.md). So with feature maps every crop must be one that the teacher has seen.

    Args:
        folder: of the cache; may not exist yet, or be incomplete.
        teacher: computes what is missing; released after that.
        images: the training set without augmentation, indexed by (epoch, index), every epoch the same.
        request: what to store.

    Raises:
        ValueError: the folder holds something else, or a cache of another teacher, hand or dataset.
    """

    def __init__(self, folder: Path, teacher: Teacher, images: HandDataset, request: CacheRequest) -> None:
        super().__init__()
        self.folder, self.images, self.request = folder, images, request
        self.teacher: Teacher | None = teacher
        self.view, self.feature_channels, self.image_size = teacher.view, teacher.feature_channels, teacher.image_size
        self.hand = teacher.hand
        if not 0 <= request.channels <= self.feature_channels:
            raise ValueError(
                f"TEACHER.CACHE_CHANNELS is {request.channels}: this teacher has {self.feature_channels} feature "
                "channels; 0 keeps them all"
            )
        self.key: CacheKey = cache_key(teacher, images)
        manifest = read_manifest(folder, self.key, request)
        if manifest is not None:
            components_of(folder, manifest)
            shards_of(folder, manifest, request.rows).check()

    def build(
        self,
        batch: int,
        workers: int,
        report: Callable[[str], None],
        rank: int = 0,
        processes: int = 1,
        barrier: Callable[[], None] = lambda: None,
        faults: float = 0.0,
    ) -> bool:
        """Computes what is missing, releases the teacher and opens the cache.

        Args:
            batch: images at a time.
            workers: loader processes.
            report: receives one line with size and expected time, before the computation.
            rank: this process.
            processes: how many share the work.
            barrier: returns when all processes have called it.
            faults: DATA.FAULTS: the largest share of samples that may be unreadable.

        Returns:
            Whether anything was missing; False on all but the first process.

        Raises:
            OSError: not enough space on the disk.
            Interrupted, FloatingPointError, BadSample: see `Builder.fill`.
        """
        assert self.teacher is not None, "a cache is built once"
        builder, missing = Builder(self.folder, self.teacher, self.images, self.key, self.request), False
        if rank == 0:
            builder.begin(batch, workers)
            builder.reopen()
            missing = bool(builder.shards().missing())
            report(builder.estimate(batch, processes))
        barrier()
        builder.fill(batch, workers, rank, processes, faults)
        barrier()
        self.teacher = None
        self._open()
        return missing

    @torch.no_grad()
    def recall(self, batch: Batch, device: torch.device | str = "cpu") -> HandOutput:
        """The teacher's outputs for every crop of a batch.

        Args:
            batch: as the loader gives it; its indices are looked up on the CPU.
            device: of the outputs.

        Returns:
            As of `Teacher`; `features` have no cells if the cache stores none.

        Raises:
            BadSample: a sample has no outputs, a feature map is damaged, or its crop is not the one that was cached.
        """
        index, rows, motion = self._found(batch)
        if not self.maps:
            features = torch.zeros(len(rows), self.feature_channels, 0, 0, device=device)
        else:
            features = self._maps(index, rows, motion, device)
        return move_output(self._outputs(rows, features, device), Motion(*(each.to(device) for each in motion)))

    def recall_maps(self, batch: Batch, device: torch.device | str = "cpu") -> Tensor:
        """The feature maps alone, (B, C, h, w); arguments and errors as of `recall`."""
        return self._maps(*self._found(batch), device)

    def _found(self, batch: Batch) -> tuple[NDArray, NDArray, Motion]:
        """A batch's numbers, its rows, and how its crops differ from the cached ones."""
        index = batch.index.cpu().numpy()
        rows = self.rows[index]
        if len(gaps := index[is_gap(rows)]):
            raise BadSample(
                f"sample {gaps[0]} could not be read when the cache was built: remove "
                f"{self.shards.marker(int(gaps[0]))} and the next run computes it anew"
            )
        return index, rows, crop_motion(torch.from_numpy(rows["crop"]), batch.crop.cpu(), batch.image.shape[-1])

    def _maps(self, index: NDArray, rows: NDArray, motion: Motion, device: torch.device | str) -> Tensor:
        """(B, C, h, w) float32, all channels."""
        features = self._features(index, rows, motion).to(device, non_blocking=True).float()
        return self.components.expand(features) if self.components else features

    def _open(self) -> None:
        manifest = read_manifest(self.folder, self.key, self.request)
        assert manifest is not None
        self.shards = shards_of(self.folder, manifest, self.request.rows)
        self.rows = self.shards.read_outputs()
        self.maps: list[NDArray[np.float16]] = self.shards.open_maps() if self.request.maps else []
        self.components = components_of(self.folder, manifest) if self.request.maps else None

    def _outputs(self, rows: NDArray, features: Tensor, device: torch.device | str) -> HandOutput:
        def tensor(name: str) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(rows[name])).to(device, non_blocking=True)

        mano, names = None, rows.dtype.names or ()
        if "betas" in names:
            mano = ManoParams(tensor("global_orient"), tensor("hand_pose"), tensor("betas"))
        vertices = tensor("vertices") if mano is None else self.hand.pose(mano)[0]
        return HandOutput(vertices, tensor("joints"), tensor("keypoints_2d"), tensor("camera"), features, mano)

    def _features(self, index: NDArray, rows: NDArray, motion: Motion) -> Tensor:
        """(B, K, h, w) float16."""
        if not motion.is_none.all():
            sample = int(index[int(torch.argmin(motion.is_none.int()))])
            raise BadSample(f"sample {sample}: its crop is augmented, but the cache has features of the plain one only")
        try:
            found = [
                self.shards.read_map(self.maps, int(number), int(mark))
                for number, mark in zip(index, rows["map_checksum"], strict=True)
            ]
        except ValueError as error:
            raise BadSample(str(error)) from None
        return torch.from_numpy(np.stack(found))
