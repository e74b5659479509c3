"""The hand poses among a dataset's annotations, without a look at its images."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from yacs.config import CfgNode

from fasthamer.data.articulation import Articulation
from fasthamer.data.build import build_training_set
from fasthamer.data.parallel import Numbers, in_pieces
from fasthamer.data.poses import PIECE, HandPoses, gathered
from fasthamer.data.readers.base import ImageDataset
from fasthamer.data.readers.tars import TarDataset
from fasthamer.data.streams import Indexed, Mix
from fasthamer.data.subsets import LabelledOnly, PartlyLabelled, WithSynthetic
from fasthamer.data.synthetic.cached import CachedSyntheticDataset
from fasthamer.data.synthetic.dataset import SyntheticDataset
from fasthamer.hand.mano import Hand
from fasthamer.types import N_BETAS, N_HAND_JOINTS


class Found(NamedTuple):
    """The poses of a part of a set."""

    hand_pose: NDArray[np.float32]  # (n, 15, 3, 3)
    betas: NDArray[np.float32]  # (n, 10), NaN where they are not known
    skipped: list[str]  # a line for each sample that could not be read


class Source(NamedTuple):
    """A set that holds poses, or one of a mix."""

    read: partial[Found]  # of some of the numbers
    numbers: Numbers  # of hands, or of shards
    piece: int  # read at a time


def poses_of_config(cfg: CfgNode, hand: Hand) -> HandPoses:
    """Of the training set that `DATA.*` names, in which only `DATA.LABELLED` have labels.

    Raises:
        KeyError: no such dataset.
        FileNotFoundError, ValueError: files missing or unfit, or no poses in them.
    """
    own = cfg.clone()
    own.defrost()
    own.LOSS.VERTICES = 0.0  # readers make meshes only where a loss looks at them
    own.freeze()
    return poses_of_dataset(build_training_set(own, hand), cfg.DATA.WORKERS)


def poses_of_dataset(dataset: Any, workers: int = 0) -> HandPoses:
    """Every different hand that a set has a pose of; a mix's sets are joined, whatever their weights.

    Left hands are mirrored. Shapes that belong to another hand model, or are not known, are sampled anew.

    Args:
        dataset: of any kind, indexed or streamed.
        workers: processes that read.

    Raises:
        FileNotFoundError, ValueError: a damaged annotation of an indexed set, or no poses at all. Damage in shards is
            stepped over with a warning.
    """
    found = [
        part
        for source in _sources(dataset)
        for part in in_pieces(source.read, source.numbers, source.piece, workers, "reading poses")
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


def _sources(dataset: Any, which: Numbers | None = None) -> Iterator[Source]:
    """The sets within a set that hold poses.

    Args:
        dataset: of any kind.
        which: of its samples have labels; None are all.
    """
    if isinstance(dataset, Mix):
        for part in dataset.parts:
            yield from _sources(part)
    elif isinstance(dataset, Indexed):
        yield from _sources(dataset.dataset)
    elif isinstance(dataset, WithSynthetic):
        yield from _sources(dataset.images)
        yield from _sources(dataset.synthetic)
    elif isinstance(dataset, PartlyLabelled):
        yield from _sources(dataset.dataset, np.flatnonzero(dataset.labelled))
    elif isinstance(dataset, LabelledOnly):
        yield from _sources(dataset.dataset, dataset.labelled)
    elif isinstance(dataset, CachedSyntheticDataset):
        yield from _sources(dataset.hands, which)
    elif isinstance(dataset, TarDataset):
        yield Source(partial(_of_shards, dataset), np.arange(len(dataset.shards)), 1)
    elif isinstance(dataset, ImageDataset | SyntheticDataset) and dataset.has_poses:
        yield Source(partial(_of_hands, dataset), np.arange(len(dataset)) if which is None else which, PIECE)


def _of_hands(dataset: ImageDataset | SyntheticDataset, numbers: Numbers) -> Found:
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
