"""Crops, augmentation and dataset readers; `build_dataset` makes the sets that a config names."""

from __future__ import annotations

from yacs.config import CfgNode

from fasthamer.data.mixture import HandDataset, LabelledOnly, PartlyLabelled, WithSynthetic, choose_labelled
from fasthamer.data.zoo import DATASETS
from fasthamer.hand.mano import Hand


def build_dataset(cfg: CfgNode, hand: Hand, train: bool) -> HandDataset:
    """The training set of a config, augmented and mixed as it says, or its evaluation set as it is.

    `DATA.LABELLED` takes labels from the named set only: synthetic hands mixed into photographs keep theirs. Without
    a teacher nothing can be learnt from the others, so there the labelled ones alone make up the set.

    Raises:
        KeyError: no such dataset.
        FileNotFoundError, ValueError: files missing or unfit, or a setting out of range.
    """
    name = dataset_name(cfg)
    dataset = DATASETS.build(name, cfg, hand, train)
    if not train:
        return dataset
    if cfg.DATA.LABELLED != 1.0:
        labelled = choose_labelled(len(dataset), cfg.DATA.LABELLED, cfg.SEED)
        dataset = (LabelledOnly if cfg.KD.MODE == "none" else PartlyLabelled)(dataset, labelled)
    if cfg.DATA.MIX_SYNTHETIC and name != "synthetic":
        dataset = WithSynthetic(dataset, DATASETS.build("synthetic", cfg, hand, train), cfg.DATA.MIX_SYNTHETIC)
    return dataset


def dataset_name(cfg: CfgNode) -> str:
    """What `DATA.NAME` stands for: auto is freihand where a root is given, else synthetic."""
    if cfg.DATA.NAME == "auto":
        return "freihand" if cfg.DATA.ROOT else "synthetic"
    return cfg.DATA.NAME
