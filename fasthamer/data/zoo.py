"""The datasets by name, each made from a config."""

from __future__ import annotations

from typing import Any

from yacs.config import CfgNode

from fasthamer.data.augment import Strength
from fasthamer.data.dataset import HandDataset
from fasthamer.data.streams import HandStream
from fasthamer.hand.mano import Hand
from fasthamer.registry import Registry

DATASETS = Registry("dataset")
EVALUATION_SEED = 77_003_917  # of the synthetic hands held out: the same in every run, whatever its own seed


@DATASETS.register
def freihand(cfg: CfgNode, hand: Hand, train: bool) -> HandDataset:
    """FreiHAND, or any set in its layout, in the folder `DATA.ROOT`."""
    from fasthamer.data.readers.freihand import FreiHAND

    return FreiHAND(hand=hand, **_measured(cfg, train))


@DATASETS.register
def dexycb(cfg: CfgNode, hand: Hand, train: bool) -> HandDataset:
    """DexYCB, both hands; splits s0_train to s3_test."""
    from fasthamer.data.readers.dexycb import DexYCB

    return DexYCB(hand=hand, left_file=cfg.HAND.LEFT, **_measured(cfg, train))


@DATASETS.register
def ho3d(cfg: CfgNode, hand: Hand, train: bool) -> HandDataset:
    """HO-3D, version 2 or 3."""
    from fasthamer.data.readers.ho3d import HO3D

    return HO3D(hand=hand, **_measured(cfg, train))


@DATASETS.register
def synthetic(cfg: CfgNode, hand: Hand, train: bool) -> HandDataset:
    """Hands drawn on the fly; needs no file."""
    from fasthamer.data.synthetic.dataset import SyntheticDataset

    size, seed = cfg.DATA.SYNTHETIC_SIZE, cfg.SEED
    if train and cfg.DATA.SYNTHETIC_FOLDER:
        from fasthamer.data.synthetic.cached import CachedSyntheticDataset

        hands = SyntheticDataset(hand, size, seed, cfg.IMAGE_SIZE, scale=0.0, shift=0.0)
        return CachedSyntheticDataset(hands, cfg.DATA.SYNTHETIC_FOLDER, _strength(cfg))
    if train:
        return SyntheticDataset(hand, size, seed, cfg.IMAGE_SIZE, cfg.AUGMENT.SCALE, cfg.AUGMENT.SHIFT)
    return SyntheticDataset(hand, cfg.DATA.SYNTHETIC_EVAL_SIZE, EVALUATION_SEED, cfg.IMAGE_SIZE, scale=0.0, shift=0.0)


@DATASETS.register
def hint(cfg: CfgNode, hand: Hand, train: bool) -> HandDataset:
    """HInt: hands in the wild with 2D keypoints, from its folders or HaMeR's lists."""
    from fasthamer.data.readers.hint import HInt

    return HInt(*_image_arguments(cfg, train))


@DATASETS.register
def coco(cfg: CfgNode, hand: Hand, train: bool) -> HandDataset:
    """2D hand keypoints in COCO's JSON, or COCO-WholeBody's hands."""
    from fasthamer.data.readers.coco import CocoHands

    return CocoHands(*_image_arguments(cfg, train), cfg.DATA.INDEX)


@DATASETS.register
def interhand(cfg: CfgNode, hand: Hand, train: bool) -> HandDataset:
    """InterHand2.6M: both hands, 3D joints and cameras."""
    from fasthamer.data.readers.interhand import InterHand

    return InterHand(*_image_arguments(cfg, train), cfg.DATA.INDEX)


@DATASETS.register
def folder(cfg: CfgNode, hand: Hand, train: bool) -> HandDataset:
    """Images without labels and a list of boxes: only a teacher can say anything about them."""
    from fasthamer.data.readers.folder import Folder

    if train and cfg.KD.MODE == "none":
        raise ValueError("DATA.NAME folder has no labels to learn from: --kd output, feature or hybrid asks a teacher")
    return Folder(*_image_arguments(cfg, train))


@DATASETS.register
def tars(cfg: CfgNode, hand: Hand, train: bool) -> HandStream:
    """Tar shards: HaMeR's training data, or what `tools/prepare_data.py pack` has packed; for training."""
    from fasthamer.data.readers.tars import TarDataset

    if not train:
        raise ValueError("tar shards are for training: name the set to evaluate on with DATA.EVAL_NAME and EVAL_ROOT")
    root, _, image_size, strength, seed = _image_arguments(cfg, train)
    return TarDataset(root, hand, image_size, strength, seed)


@DATASETS.register
def mix(cfg: CfgNode, hand: Hand, train: bool) -> HandStream:
    """Several sets by weight, see configs/data/hamer_mix.yaml; for training."""
    from fasthamer.data.mixes import build_mix

    if not train:
        raise ValueError("a mix is for training: name the set to evaluate on with DATA.EVAL_NAME and DATA.EVAL_ROOT")
    return build_mix(cfg, hand)


def _measured(cfg: CfgNode, train: bool) -> dict[str, Any]:
    """What readers of sets with MANO's parameters are made from; meshes only where a score or a loss looks at them."""
    names = ("root", "split", "image_size", "strength", "seed")
    meshes = not train or cfg.LOSS.VERTICES > 0
    common = dict(zip(names, _image_arguments(cfg, train), strict=True))
    return common | {"box": cfg.DATA.BOX, "meshes": meshes, "cache": cfg.DATA.INDEX}


def _image_arguments(cfg: CfgNode, train: bool) -> tuple[str, str, int, Strength | None, int]:
    """What readers of images are made from: root, split, image size, augmentation and seed."""
    if not cfg.DATA.ROOT:
        raise ValueError(f"DATA.NAME {cfg.DATA.NAME} needs DATA.ROOT, the folder of the unpacked set (--data-root DIR)")
    split = cfg.DATA.SPLIT if train else cfg.DATA.EVAL_SPLIT
    return cfg.DATA.ROOT, split, cfg.IMAGE_SIZE, _strength(cfg) if train else None, cfg.SEED


def _strength(cfg: CfgNode) -> Strength:
    node = cfg.AUGMENT
    return Strength(node.SCALE, node.ROTATION, node.ROTATION_PROBABILITY, node.SHIFT, node.COLOUR)
