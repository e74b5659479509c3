"""The datasets by name, each made from a config."""

from __future__ import annotations

from yacs.config import CfgNode

from fasthamer.data.augment import Strength
from fasthamer.data.mixture import HandDataset
from fasthamer.hand.mano import Hand
from fasthamer.registry import Registry

DATASETS = Registry("dataset")
EVALUATION_SEED = 77_003_917  # of the synthetic hands held out: the same in every run, whatever its own seed


@DATASETS.register
def freihand(cfg: CfgNode, hand: Hand, train: bool) -> HandDataset:
    """FreiHAND, or any set in its layout, in the folder `DATA.ROOT`."""
    from fasthamer.data.freihand import FreiHAND

    if not cfg.DATA.ROOT:
        raise ValueError("DATA.NAME freihand needs DATA.ROOT, the folder of the unpacked set (--data-root DIR)")
    split = cfg.DATA.SPLIT if train else cfg.DATA.EVAL_SPLIT
    strength = _strength(cfg) if train else None
    return FreiHAND(cfg.DATA.ROOT, split, hand, cfg.IMAGE_SIZE, strength, cfg.SEED, cfg.DATA.BOX)


@DATASETS.register
def synthetic(cfg: CfgNode, hand: Hand, train: bool) -> HandDataset:
    """Hands drawn on the fly; needs no file."""
    from fasthamer.data.synthetic import SyntheticHands

    size, seed = cfg.DATA.SYNTHETIC_SIZE, cfg.SEED
    if train and cfg.DATA.SYNTHETIC_FOLDER:
        from fasthamer.data.kept import KeptHands

        hands = SyntheticHands(hand, size, seed, cfg.IMAGE_SIZE, scale=0.0, shift=0.0)
        return KeptHands(hands, cfg.DATA.SYNTHETIC_FOLDER, _strength(cfg))
    if train:
        return SyntheticHands(hand, size, seed, cfg.IMAGE_SIZE, cfg.AUGMENT.SCALE, cfg.AUGMENT.SHIFT)
    return SyntheticHands(hand, cfg.DATA.SYNTHETIC_EVAL_SIZE, EVALUATION_SEED, cfg.IMAGE_SIZE, scale=0.0, shift=0.0)


@DATASETS.register
def hint(cfg: CfgNode, hand: Hand, train: bool) -> HandDataset:
    """HInt: hands in the wild with 2D keypoints, from its folders or HaMeR's lists."""
    from fasthamer.data.hint import HInt

    return HInt(*_photographs(cfg, train))


@DATASETS.register
def coco(cfg: CfgNode, hand: Hand, train: bool) -> HandDataset:
    """2D hand keypoints in COCO's JSON, or COCO-WholeBody's hands."""
    from fasthamer.data.coco import CocoHands

    return CocoHands(*_photographs(cfg, train))


@DATASETS.register
def interhand(cfg: CfgNode, hand: Hand, train: bool) -> HandDataset:
    """InterHand2.6M: both hands, 3D joints and cameras."""
    from fasthamer.data.interhand import InterHand

    return InterHand(*_photographs(cfg, train))


@DATASETS.register
def folder(cfg: CfgNode, hand: Hand, train: bool) -> HandDataset:
    """Pictures without labels and a list of boxes: only a teacher can say anything about them."""
    from fasthamer.data.folder import Folder

    if train and cfg.KD.MODE == "none":
        raise ValueError("DATA.NAME folder has no labels to learn from: --kd output, feature or hybrid asks a teacher")
    return Folder(*_photographs(cfg, train))


def _photographs(cfg: CfgNode, train: bool) -> tuple[str, str, int, Strength | None, int]:
    """What readers of photographs are made from: root, split, image size, augmentation and seed."""
    if not cfg.DATA.ROOT:
        raise ValueError(f"DATA.NAME {cfg.DATA.NAME} needs DATA.ROOT, the folder of the unpacked set (--data-root DIR)")
    split = cfg.DATA.SPLIT if train else cfg.DATA.EVAL_SPLIT
    return cfg.DATA.ROOT, split, cfg.IMAGE_SIZE, _strength(cfg) if train else None, cfg.SEED


def _strength(cfg: CfgNode) -> Strength:
    node = cfg.AUGMENT
    return Strength(node.SCALE, node.ROTATION, node.ROTATION_PROBABILITY, node.SHIFT, node.COLOUR)
