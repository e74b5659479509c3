"""Where hand poses come from: the sampler, a file, or the annotations of a dataset, read without its images."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from yacs.config import CfgNode

from fasthamer.data.articulation import Articulation
from fasthamer.data.build import training_set_of, training_spec
from fasthamer.data.dataset import HandDataset, HandStream
from fasthamer.data.parallel import Numbers, in_pieces
from fasthamer.data.poses import PIECE, HandPoses, gathered, poses_of_file, sampled_poses, split, tenth
from fasthamer.data.readers.tars import TarDataset
from fasthamer.data.streams import Indexed, Mix
from fasthamer.data.subsets import WithSynthetic
from fasthamer.hand.mano import Hand
from fasthamer.types import N_BETAS, N_HAND_JOINTS

HELD_OUT_SEED = 77_003_917  # of the held-out poses: the same in every run, whatever its own seed


class Found(NamedTuple):
    """The poses of a part of a dataset."""

    hand_pose: NDArray[np.float32]  # (n, 15, 3, 3)
    betas: NDArray[np.float32]  # (n, 10), NaN where unknown
    skipped: list[str]  # a line for each sample that could not be read


class Source(NamedTuple):
    """A dataset that holds poses, or one of a mix."""

    read: partial[Found]  # reads the poses of some of the numbers
    numbers: Numbers  # of samples, or of shards
    piece: int  # how many are read at a time


def build_poses(cfg: CfgNode, hand: Hand) -> tuple[HandPoses, HandPoses]:
    """The poses to train a tokenizer on, and held-out poses to evaluate it on.

    `TOKENIZER.POSES` is sampled: `TOKENIZER.HANDS` poses of the procedural sampler, which fit MANO too; data: the
    annotations of the training set that `DATA.*` names; or an .npz, see `poses_of_file`. Held out are
    `TOKENIZER.HELD_OUT`, at most a tenth, the same ones whatever `SEED` is.

    Raises:
        FileNotFoundError, KeyError: no such file or dataset.
        ValueError: a setting out of range, or a source without poses.
    """
    source, number, held_out = cfg.TOKENIZER.POSES, cfg.TOKENIZER.HANDS, cfg.TOKENIZER.HELD_OUT
    if held_out < 1:
        raise ValueError(f"TOKENIZER.HELD_OUT is {held_out}: at least one hand has to be held out to score on")
    if source == "sampled":
        if number < 2:
            raise ValueError(f"TOKENIZER.HANDS is {number}: a tokenizer trains on thousands of hands")
        held_out = min(held_out, tenth(number))
        workers = cfg.DATA.WORKERS
        return sampled_poses(number, cfg.SEED, workers), sampled_poses(held_out, HELD_OUT_SEED, workers)
    if source == "data":
        dataset = training_set_of(training_spec(cfg)._replace(meshes=False), hand)  # of which DATA.LABELLED count
        return split(poses_of_dataset(dataset, cfg.DATA.WORKERS), held_out, HELD_OUT_SEED)
    if not source.endswith(".npz"):
        raise ValueError(f"TOKENIZER.POSES is {source!r}, expected sampled, data (DATA.NAME's labels) or an .npz file")
    if not Path(source).is_file():
        raise FileNotFoundError(f"TOKENIZER.POSES names {source!r}, which is no file")
    return split(poses_of_file(source), held_out, HELD_OUT_SEED)


def poses_of_dataset(
    dataset: HandDataset | HandStream, workers: int = 0, piece: int = PIECE, start_method: str | None = None
) -> HandPoses:
    """Every different pose among a dataset's labels; the datasets of a mix are joined, whatever their weights.

    Left hands are mirrored. Shapes that belong to another hand model, or are not known, are sampled anew.

    Args:
        dataset: of any kind.
        workers: processes that read.
        piece: samples that a process reads at a time.
        start_method: of the processes, see `in_pieces`.

    Raises:
        FileNotFoundError, ValueError: a damaged annotation of an indexed dataset, or no poses at all. Damaged samples
            in shards are skipped with a warning.
    """
    found = [
        part
        for source in _sources(dataset, piece)
        for part in in_pieces(source.read, source.numbers, source.piece, workers, "reading poses", start_method)
    ]
    skipped = [line for part in found for line in part.skipped]
    if skipped:
        warnings.warn(f"{len(skipped)} samples or places could not be read, the first: {skipped[0]}", stacklevel=2)
    if not any(len(part.betas) for part in found):
        raise ValueError(
            "this set holds no hand poses: ho3d and tars have them for any hand, freihand and dexycb for MANO, "
            "to whose mean pose theirs are relative (HAND.MODEL MANO_RIGHT.pkl); TOKENIZER.POSES sampled needs no set"
        )
    return gathered(np.concatenate([part.hand_pose for part in found]), np.concatenate([part.betas for part in found]))


def _sources(dataset: HandDataset | HandStream, piece: int) -> Iterator[Source]:
    """The datasets within a dataset that hold poses."""
    if isinstance(dataset, Mix):
        for part in dataset.parts:
            yield from _sources(part, piece)
    elif isinstance(dataset, Indexed):
        yield from _sources(dataset.dataset, piece)
    elif isinstance(dataset, WithSynthetic):
        yield from _sources(dataset.images, piece)
        yield from _sources(dataset.synthetic, piece)
    elif isinstance(dataset, TarDataset):
        yield Source(partial(_of_shards, dataset), np.arange(len(dataset.shards)), 1)
    elif not isinstance(dataset, HandStream) and dataset.info.poses:
        yield Source(partial(_of_hands, dataset), np.arange(len(dataset)), piece)


def _of_hands(dataset: HandDataset, numbers: Numbers) -> Found:
    return _found((dataset.articulation(int(number)) for number in numbers), [])


def _of_shards(tars: TarDataset, numbers: Numbers) -> Found:
    skipped: list[str] = []
    return _found((each for number in numbers for each in tars.articulations(int(number), skipped)), skipped)


def _found(hands: Iterable[Articulation | None], skipped: list[str]) -> Found:
    unknown = np.full(N_BETAS, np.nan, np.float32)
    known = [hand for hand in hands if hand is not None]
    pose = np.array([hand.hand_pose for hand in known], np.float32).reshape(-1, N_HAND_JOINTS, 3, 3)
    betas = np.array([unknown if hand.betas is None else hand.betas for hand in known], np.float32)
    return Found(pose, betas.reshape(-1, N_BETAS), skipped)
