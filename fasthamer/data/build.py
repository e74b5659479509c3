"""The datasets that a config names, for training as it mixes them and for evaluation."""

from __future__ import annotations

from yacs.config import CfgNode

from fasthamer.data.dataset import HandDataset
from fasthamer.data.streams import HandStream, Indexed, Mix
from fasthamer.data.subsets import LabelledOnly, PartlyLabelled, WithSynthetic, choose_labelled
from fasthamer.data.zoo import DATASETS
from fasthamer.hand.mano import Hand

WITHOUT_EVALUATION = ("tars", "mix")  # sets that are for training only


def build_dataset(cfg: CfgNode, hand: Hand, train: bool) -> HandDataset:
    """The indexed set that a config names: for training, augmented and mixed as it says, or for evaluation as it is.

    Raises:
        KeyError: no such dataset.
        FileNotFoundError, ValueError: files missing or unfit, or a setting out of range.
    """
    if not train:
        return DATASETS.build(dataset_name(cfg, train=False), _evaluation(cfg), hand, False)
    dataset = build_training_set(cfg, hand)
    if isinstance(dataset, HandStream):
        raise ValueError(f"DATA.NAME {cfg.DATA.NAME} is read as a stream: name an indexed set")
    return dataset


def build_training_set(cfg: CfgNode, hand: Hand) -> HandDataset | HandStream:
    """The training set of a config, indexed or walked, augmented and mixed as it says.

    `DATA.LABELLED` takes labels from the named set only: synthetic hands mixed into images keep theirs. Without
    a teacher nothing can be learnt from the others, so there the labelled ones alone make up the set.

    Raises:
        KeyError: no such dataset.
        FileNotFoundError, ValueError: files missing or unfit, or a setting out of range.
    """
    name, only = dataset_name(cfg), cfg.KD.MODE == "none"
    dataset: HandDataset | HandStream = DATASETS.build(name, cfg, hand, True)
    if cfg.DATA.LABELLED != 1.0:
        dataset = _partly_labelled(dataset, cfg.DATA.LABELLED, cfg.SEED, only)
    if cfg.DATA.MIX_SYNTHETIC and name != "synthetic":
        dataset = _with_synthetic(dataset, DATASETS.build("synthetic", cfg, hand, True), cfg)
    return dataset


def dataset_name(cfg: CfgNode, train: bool = True) -> str:
    """What `DATA.NAME` stands for: auto is freihand where a root is given, else synthetic.

    Evaluation is on `DATA.EVAL_NAME` where it is set; sets that are for training only are followed by synthetic hands.
    """
    if not train and cfg.DATA.EVAL_NAME:
        return cfg.DATA.EVAL_NAME
    if cfg.DATA.NAME == "auto":
        return "freihand" if cfg.DATA.ROOT else "synthetic"
    return "synthetic" if not train and cfg.DATA.NAME in WITHOUT_EVALUATION else cfg.DATA.NAME


def _evaluation(cfg: CfgNode) -> CfgNode:
    """The config of the evaluation set: its own root where it has a name of its own."""
    if not cfg.DATA.EVAL_NAME:
        return cfg
    other = cfg.clone()
    other.defrost()
    other.DATA.NAME, other.DATA.ROOT = cfg.DATA.EVAL_NAME, cfg.DATA.EVAL_ROOT
    other.freeze()
    return other


def _partly_labelled(
    dataset: HandDataset | HandStream, fraction: float, seed: int, only: bool
) -> HandDataset | HandStream:
    if isinstance(dataset, HandStream):
        return dataset.partly_labelled(fraction, only)
    labelled = choose_labelled(len(dataset), fraction, seed)
    return (LabelledOnly if only else PartlyLabelled)(dataset, labelled)


def _with_synthetic(dataset: HandDataset | HandStream, drawn: HandDataset, cfg: CfgNode) -> HandDataset | HandStream:
    fraction = cfg.DATA.MIX_SYNTHETIC
    if isinstance(dataset, HandStream):
        if not 0 < fraction < 1:
            raise ValueError(f"DATA.MIX_SYNTHETIC is {fraction}: it is a part of all samples, 0 or more, under 1")
        return Mix([dataset, Indexed(drawn, cfg.SEED, "synthetic")], [1 - fraction, fraction], cfg.SEED)
    return WithSynthetic(dataset, drawn, fraction)
