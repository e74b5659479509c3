"""From a config to its datasets: the only place in `data/` that reads the config."""

from __future__ import annotations

import copy

from yacs.config import CfgNode

from fasthamer.data.augment import Strength
from fasthamer.data.crop import BOX_SHAPES, Cropping, FindBoxes
from fasthamer.data.dataset import HandDataset, HandStream
from fasthamer.data.readers.boxes import check_choice
from fasthamer.data.streams import Indexed, Mix
from fasthamer.data.subsets import LabelledOnly, PartlyLabelled, WithSynthetic, choose_labelled
from fasthamer.data.zoo import BOXED, DATASETS, TRAINING_ONLY, DatasetSpec
from fasthamer.hand.mano import Hand
from fasthamer.registry import unknown


def build_dataset(cfg: CfgNode, hand: Hand, train: bool, find: FindBoxes | None = None) -> HandDataset:
    """The indexed dataset of a config: the training set, augmented and mixed, or the evaluation set.

    Args:
        cfg: the resolved config.
        hand: the hand model.
        train: whether it is the training set.
        find: finds the boxes where DATA.BOX is detector.

    Raises:
        KeyError: no such dataset.
        FileNotFoundError, ValueError: files missing or unfit, or a setting out of range.
    """
    if not train:
        spec = evaluation_spec(cfg, find)
        return DATASETS.build(spec.name, spec, _on_cpu(hand))
    dataset = build_training_set(cfg, hand, find)
    if isinstance(dataset, HandStream):
        raise ValueError(f"DATA.NAME {cfg.DATA.NAME} is read as a stream: name an indexed set")
    return dataset


def build_training_set(cfg: CfgNode, hand: Hand, find: FindBoxes | None = None) -> HandDataset | HandStream:
    """The training set of a config, indexed or a stream, augmented and mixed; arguments as `build_dataset`.

    Raises:
        KeyError: no such dataset.
        FileNotFoundError, ValueError: files missing or unfit, or a setting out of range.
    """
    return training_set_of(training_spec(cfg, find), hand)


def training_set_of(spec: DatasetSpec, hand: Hand) -> HandDataset | HandStream:
    """The training set of a spec.

    `labelled` takes labels from the named dataset only: synthetic samples mixed into it keep theirs. Without a teacher
    samples without labels are of no use, so there the labelled ones alone make up the dataset.

    Raises:
        KeyError: no such dataset.
        FileNotFoundError, ValueError: files missing or unfit, or a value out of range.
    """
    hand = _on_cpu(hand)
    dataset: HandDataset | HandStream = DATASETS.build(spec.name, spec, hand)
    if spec.labelled != 1.0:
        dataset = _partly_labelled(dataset, spec.labelled, spec.seed, spec.labelled_only)
    if spec.synthetic_fraction and spec.name != "synthetic":
        mixed_in = spec._replace(name="synthetic", split=spec.mix_split, cropping=spec.cropping._replace(find=None))
        rendered: HandDataset = DATASETS.build("synthetic", mixed_in, hand)
        dataset = _with_synthetic(dataset, rendered, spec.synthetic_fraction, spec.seed)
    return dataset


def training_spec(cfg: CfgNode, find: FindBoxes | None = None) -> DatasetSpec:
    """The training set of a config, as plain values; `find` as for `build_dataset`.

    Raises:
        KeyError, ValueError: no such box shape; DATA.BOX is detector, but there is none.
    """
    node = cfg.AUGMENT
    return DatasetSpec(
        name=dataset_name(cfg),
        root=cfg.DATA.ROOT,
        split=cfg.DATA.SPLIT,
        train=True,
        image_size=cfg.IMAGE_SIZE,
        strength=Strength(node.SCALE, node.ROTATION, node.ROTATION_PROBABILITY, node.SHIFT, node.COLOUR),
        seed=cfg.SEED,
        box=cfg.DATA.BOX,
        index_cache=cfg.DATA.INDEX,
        left_file=cfg.HAND.LEFT,
        meshes=_needs_meshes(cfg),
        labelled_only=cfg.KD.MODE == "none",
        labelled=cfg.DATA.LABELLED,
        synthetic_size=cfg.DATA.SYNTHETIC_SIZE,
        synthetic_folder=cfg.DATA.SYNTHETIC_FOLDER,
        synthetic_fraction=cfg.DATA.MIX_SYNTHETIC,
        mix_split=cfg.DATA.MIX_SPLIT,
        mix=tuple(cfg.DATA.MIX),
        cropping=_cropping(cfg, find),
    )


def evaluation_spec(cfg: CfgNode, find: FindBoxes | None = None) -> DatasetSpec:
    """The evaluation set of a config, as plain values: no augmentation, every label, meshes included."""
    return training_spec(cfg, find)._replace(
        name=dataset_name(cfg, train=False),
        root=cfg.DATA.EVAL_ROOT if cfg.DATA.EVAL_NAME else cfg.DATA.ROOT,
        split=cfg.DATA.EVAL_SPLIT,
        train=False,
        strength=None,
        meshes=True,
        labelled_only=False,
        labelled=1.0,
        synthetic_size=cfg.DATA.SYNTHETIC_EVAL_SIZE,
        synthetic_fraction=0.0,
    )


def _on_cpu(hand: Hand) -> Hand:
    """A copy: labels are posed on the CPU, in loader processes too, while a model takes its hand to its device."""
    return copy.deepcopy(hand).cpu()


def _cropping(cfg: CfgNode, find: FindBoxes | None) -> Cropping:
    shape, detected = cfg.DATA.BOX_SHAPE, cfg.DATA.BOX == "detector"
    check_choice(cfg.DATA.BOX)
    used = {dataset_name(cfg), dataset_name(cfg, train=False), *_names_in_mix(cfg)}
    if cfg.DATA.BOX not in ("keypoints", "detector") and not used & set(BOXED):
        raise ValueError(f"DATA.BOX {cfg.DATA.BOX} is for {', '.join(BOXED)}; {' and '.join(sorted(used))} ignores it")
    if shape != "auto" and shape not in BOX_SHAPES:
        raise KeyError(unknown("DATA.BOX_SHAPE", shape, ["auto", *BOX_SHAPES]))
    if detected and find is None:
        raise ValueError("DATA.BOX detector is for tools/distill.py and tools/eval.py")
    return Cropping("hamer" if shape == "auto" else shape, cfg.DATA.BLUR, find if detected else None)


def _needs_meshes(cfg: CfgNode) -> bool:
    """Whether a loss looks at labelled vertices: they are the largest of all labels to read."""
    tokens = cfg.LOSS.TOKENS or cfg.LOSS.TOKEN_SOFT or cfg.LOSS.TOKEN_RELATIONS
    return cfg.LOSS.VERTICES > 0 or bool(cfg.STUDENT.DECODER == "token" and tokens)


def _names_in_mix(cfg: CfgNode) -> list[str]:
    return [str(entry.get("data")) for entry in cfg.DATA.MIX if isinstance(entry, dict)]


def dataset_name(cfg: CfgNode, train: bool = True) -> str:
    """What `DATA.NAME` stands for: auto is freihand where a root is given, else synthetic.

    Evaluation is on `DATA.EVAL_NAME` where it is set; datasets that are for training only are evaluated on synthetic
    images.
    """
    if not train and cfg.DATA.EVAL_NAME:
        return cfg.DATA.EVAL_NAME
    if cfg.DATA.NAME == "auto":
        return "freihand" if cfg.DATA.ROOT else "synthetic"
    return "synthetic" if not train and cfg.DATA.NAME in TRAINING_ONLY else cfg.DATA.NAME


def _partly_labelled(
    dataset: HandDataset | HandStream, fraction: float, seed: int, only: bool
) -> HandDataset | HandStream:
    if isinstance(dataset, HandStream):
        return dataset.partly_labelled(fraction, only)
    labelled = choose_labelled(len(dataset), fraction, seed)
    return (LabelledOnly if only else PartlyLabelled)(dataset, labelled)


def _with_synthetic(
    dataset: HandDataset | HandStream, synthetic: HandDataset, fraction: float, seed: int
) -> HandDataset | HandStream:
    if isinstance(dataset, HandStream):
        if not 0 < fraction < 1:
            raise ValueError(f"DATA.MIX_SYNTHETIC is {fraction}: it is a part of all samples, 0 or more, under 1")
        return Mix([dataset, Indexed(synthetic, seed, "synthetic")], [1 - fraction, fraction], seed)
    return WithSynthetic(dataset, synthetic, fraction)
