"""A teacher that has answered already: its answers from disk, moved to wherever augmentation put the crop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fasthamer.data.dataset import HandDataset
from fasthamer.data.loader import BadSample
from fasthamer.teachers.cache.build import Builder
from fasthamer.teachers.cache.geometry import Motion, motion_between, moved
from fasthamer.teachers.cache.manifest import Subject, Wanted, components_of, read_about, shards_of, subject_of
from fasthamer.teachers.teacher import Teacher
from fasthamer.types import Batch, HandOutput, ManoParams


class CachedTeacher(nn.Module):
    """`recall(batch, device) -> HandOutput` in place of `teacher(image)`, once `build` has made the cache complete.

    The cache holds the teacher's answers to the images as they are. Outputs follow an augmented crop in closed
    form, see `fasthamer.teachers.cache.geometry`; feature maps do not: a network's features neither turn nor scale
    with its image, and a map warped after the crop is no better a guess than the map left alone (measured:
    docs/distillation.md). So with feature maps every crop must be one that the teacher has seen.

    Args:
        folder: of the cache; may not exist yet, or be incomplete.
        teacher: asked for what is missing, and let go after that.
        images: the training set without augmentation, indexed by (epoch, index), every epoch the same.
        wanted: what to keep.

    Raises:
        ValueError: the folder holds something else, or another teacher's, hand's or set's answers.
    """

    def __init__(self, folder: Path, teacher: Teacher, images: HandDataset, wanted: Wanted) -> None:
        super().__init__()
        self.folder, self.images, self.wanted = folder, images, wanted
        self.teacher: Teacher | None = teacher
        self.view, self.feature_channels, self.image_size = teacher.view, teacher.feature_channels, teacher.image_size
        self.hand = teacher.hand
        if not 0 <= wanted.channels <= self.feature_channels:
            raise ValueError(
                f"TEACHER.CACHE_CHANNELS is {wanted.channels}: this teacher has {self.feature_channels} feature "
                "channels; 0 keeps them all"
            )
        self.subject: Subject = subject_of(teacher, images)
        about = read_about(folder, self.subject, wanted)
        if about is not None:
            components_of(folder, about)
            shards_of(folder, about).check()

    def build(
        self,
        batch: int,
        workers: int,
        say: Callable[[str], None],
        rank: int = 0,
        processes: int = 1,
        wait: Callable[[], None] = lambda: None,
    ) -> bool:
        """Computes what is missing, lets the teacher go and opens the cache.

        Args:
            batch: images at a time.
            workers: loader processes.
            say: told how large it will be and how long it takes, before it begins.
            rank: this process.
            processes: how many share the work.
            wait: returns when all of them are there.

        Returns:
            Whether anything was missing; False on all but the first process.

        Raises:
            OSError: no trainer on the disk.
            Interrupted, FloatingPointError, BadSample: see `Builder.fill`.
        """
        assert self.teacher is not None, "a cache is built once"
        builder, missing = Builder(self.folder, self.teacher, self.images, self.subject, self.wanted), False
        if rank == 0:
            builder.begin(batch, workers)
            missing = bool(builder.shards().missing())
            say(builder.estimate(batch, processes))
        wait()
        builder.fill(batch, workers, rank, processes)
        wait()
        self.teacher = None
        self._open()
        return missing

    @torch.no_grad()
    def recall(self, batch: Batch, device: torch.device | str = "cpu") -> HandOutput:
        """The teacher's answer to every crop of a batch.

        Args:
            batch: as the loader gives it: its numbers are looked up on the CPU.
            device: of the answer.

        Returns:
            As `Teacher` gives it; `features` have no cells if the cache keeps none.

        Raises:
            BadSample: a feature map is damaged, or its crop is not the one that was cached.
        """
        index = batch.index.cpu().numpy()
        rows = self.rows[index]
        motion = motion_between(torch.from_numpy(rows["crop"]), batch.crop.cpu(), batch.image.shape[-1])
        if not self.maps:
            features = torch.zeros(len(rows), self.feature_channels, 0, 0, device=device)
        else:
            features = self._features(index, rows, motion).to(device, non_blocking=True).float()
            features = self.components.expand(features) if self.components else features
        return moved(self._outputs(rows, features, device), Motion(*(each.to(device) for each in motion)))

    def _open(self) -> None:
        about = read_about(self.folder, self.subject, self.wanted)
        assert about is not None
        self.shards = shards_of(self.folder, about)
        self.rows = self.shards.read_answers()
        self.maps: list[NDArray[np.float16]] = self.shards.open_maps() if self.wanted.maps else []
        self.components = components_of(self.folder, about) if self.wanted.maps else None

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
