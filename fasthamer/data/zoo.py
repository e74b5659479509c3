"""The datasets by name, each built from a `DatasetSpec`: plain values, no config."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from fasthamer.data.augment import UNCHANGED, Strength
from fasthamer.data.crop import CROPPING, Cropping
from fasthamer.data.dataset import HandDataset, HandStream, fingerprint
from fasthamer.data.stored import StoredSamples
from fasthamer.data.streams import Indexed, Mix
from fasthamer.hand.mano import Hand
from fasthamer.registry import Registry, unknown

DATASETS = Registry("dataset")
TRAINING_ONLY = ("tars", "mix")  # datasets that cannot be evaluated on
BOXED = ("freihand", "dexycb", "ho3d")  # datasets that have other boxes to choose than their labels' own
EVALUATION_SEED = 77_003_917  # of the synthetic evaluation set: the same in every run, whatever its own seed
MIX_KEYS = ("data", "root", "split", "weight", "shards")


class DatasetSpec(NamedTuple):
    """All that a dataset is built from; `fasthamer.data.build` resolves it from a config."""

    name: str  # one of DATASETS
    root: str  # the dataset's folder
    split: str
    train: bool  # the training set, or the evaluation set
    image_size: int  # pixels, side of the crops
    strength: Strength | None  # of the augmentation; None: no augmentation
    seed: int  # of augmentation, order and synthetic images
    box: str  # see `fasthamer.data.readers.boxes.Boxes`
    index_cache: str  # see `fasthamer.files.index.cached`
    left_file: str  # MANO_LEFT.pkl, or empty
    meshes: bool  # whether vertices are read or computed
    labelled_only: bool  # samples without labels are of no use: there is no teacher
    labelled: float  # fraction of the samples that keep their labels
    synthetic_size: int  # samples of a synthetic dataset
    synthetic_folder: str  # where synthetic images are cached; empty: they are not
    synthetic_fraction: float  # of an epoch, mixed into another dataset
    mix_split: str  # of the synthetic hands that are mixed in
    mix: tuple[Any, ...]  # the entries of DATA.MIX, unchecked
    cropping: Cropping = CROPPING


@DATASETS.register
def freihand(spec: DatasetSpec, hand: Hand) -> HandDataset:
    """FreiHAND, or any dataset in its layout, in the folder `DATA.ROOT`."""
    from fasthamer.data.readers.freihand import FreiHAND

    return FreiHAND(hand=hand, **_image_arguments(spec), **_mano_arguments(spec))


@DATASETS.register
def dexycb(spec: DatasetSpec, hand: Hand) -> HandDataset:
    """DexYCB, both hands; splits s0_train to s3_test."""
    from fasthamer.data.readers.dexycb import DexYCB

    return DexYCB(hand=hand, left_file=spec.left_file, **_image_arguments(spec), **_mano_arguments(spec))


@DATASETS.register
def ho3d(spec: DatasetSpec, hand: Hand) -> HandDataset:
    """HO-3D, version 2 or 3."""
    from fasthamer.data.readers.ho3d import HO3D

    return HO3D(hand=hand, **_image_arguments(spec), **_mano_arguments(spec))


@DATASETS.register
def synthetic(spec: DatasetSpec, hand: Hand) -> HandDataset:
    """Synthetic images, rendered on the fly or cached in a folder; needs no files."""
    from fasthamer.data.synthetic.dataset import SyntheticDataset

    if spec.cropping.find is not None:
        raise ValueError("DATA.BOX detector is for images of files: synthetic hands are rendered inside their box")
    size, pixels, shape = spec.synthetic_size, spec.image_size, spec.cropping.shape
    kind = spec.split if spec.split not in ("training", "evaluation") else "hard"
    if not spec.train:
        held_out = SyntheticDataset(hand, size, EVALUATION_SEED, pixels, 0.0, 0.0, shape, distribution=kind)
        if not spec.synthetic_folder:
            return held_out
        return StoredSamples(held_out, Path(spec.synthetic_folder) / f"evaluation_{fingerprint(held_out)}.npy", pixels)
    strength = spec.strength or UNCHANGED
    if spec.synthetic_folder:
        from fasthamer.data.synthetic.cached import CachedSyntheticDataset

        hands = SyntheticDataset(hand, size, spec.seed, pixels, 0.0, 0.0, shape, distribution=kind)
        return CachedSyntheticDataset(hands, spec.synthetic_folder, strength)
    turning = strength.rotation, strength.rotation_probability
    return SyntheticDataset(hand, size, spec.seed, pixels, strength.scale, strength.shift, shape, *turning, kind)


@DATASETS.register
def hint(spec: DatasetSpec, hand: Hand) -> HandDataset:
    """HInt: hands in the wild with 2D keypoints, from its folders or HaMeR's lists."""
    from fasthamer.data.readers.hint import HInt

    return HInt(**_image_arguments(spec))


@DATASETS.register
def coco(spec: DatasetSpec, hand: Hand) -> HandDataset:
    """2D hand keypoints in COCO's JSON, or COCO-WholeBody's hands."""
    from fasthamer.data.readers.coco import CocoHands

    return CocoHands(cache=spec.index_cache, **_image_arguments(spec))


@DATASETS.register
def interhand(spec: DatasetSpec, hand: Hand) -> HandDataset:
    """InterHand2.6M: both hands, 3D joints and cameras."""
    from fasthamer.data.readers.interhand import InterHand

    return InterHand(cache=spec.index_cache, **_image_arguments(spec))


@DATASETS.register
def folder(spec: DatasetSpec, hand: Hand) -> HandDataset:
    """Images without labels and a list of boxes: the targets are a teacher's predictions."""
    from fasthamer.data.readers.folder import Folder

    if spec.train and spec.labelled_only:
        raise ValueError(
            "DATA.NAME folder has no labels to learn from: --kd output, feature or hybrid has a teacher predict them"
        )
    return Folder(**_image_arguments(spec))


@DATASETS.register
def labelled(spec: DatasetSpec, hand: Hand) -> HandDataset:
    """A folder of images with a teacher's labels: `tools/prepare_data.py label`."""
    from fasthamer.data.readers.labelled import Labelled

    return Labelled(hand=hand, meshes=spec.meshes, **_image_arguments(spec))


@DATASETS.register
def tars(spec: DatasetSpec, hand: Hand) -> HandStream:
    """Tar shards: HaMeR's training data, or shards of `tools/prepare_data.py pack`; for training."""
    from fasthamer.data.readers.tars import TarDataset

    if spec.cropping.find is not None:
        raise ValueError("DATA.BOX detector is for whole images: tar shards hold the boxes they were made with")
    if not spec.train:
        raise ValueError("tar shards are for training: name the set to evaluate on with DATA.EVAL_NAME and EVAL_ROOT")
    return TarDataset(_root(spec), hand, spec.image_size, spec.strength, spec.seed, cropping=spec.cropping)


@DATASETS.register
def mix(spec: DatasetSpec, hand: Hand) -> HandStream:
    """The datasets that `DATA.MIX` lists, each sample drawn from one of them by weight; for training.

    An entry names a registered dataset (`data`) and its `weight`; `root` is relative to `DATA.ROOT`, `split` is
    `DATA.SPLIT` unless given, `shards` is how many a complete dataset of tars has. See configs/data/hamer_mix.yaml.

    Raises:
        KeyError: no such dataset.
        FileNotFoundError, ValueError: files missing or unfit, or an entry of another form.
    """
    if not spec.train:
        raise ValueError("a mix is for training: name the set to evaluate on with DATA.EVAL_NAME and DATA.EVAL_ROOT")
    if not spec.mix:
        raise ValueError(
            "DATA.NAME mix needs DATA.MIX, a list of sets: --data MIX.yaml, such as configs/data/hamer_mix.yaml"
        )
    parts, weights = [], []
    for number, entry in enumerate(spec.mix):
        where = f"DATA.MIX[{number}]"
        _check_entry(entry, where)
        try:
            parts.append(_part(spec, entry, hand))
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{where}: {error}; roots of a mix are relative to DATA.ROOT ({spec.root or 'not set'})"
            ) from None
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        weights.append(float(entry["weight"]))
    return Mix(parts, weights, spec.seed)


def _part(spec: DatasetSpec, entry: dict[str, Any], hand: Hand) -> HandStream:
    """The dataset of one entry of a mix, as a stream."""
    from fasthamer.data.readers.tars import PIPE, shards_and_info

    root = entry.get("root", spec.root)
    if "root" in entry and not root.startswith(PIPE):
        root = str(Path(spec.root, root))
    part = spec._replace(name=entry["data"], root=root, split=entry.get("split", spec.split))
    if "shards" in entry:
        there = len(shards_and_info(root)[0])
        if there != entry["shards"]:
            raise ValueError(f"{root} holds {there} shards, the set has {entry['shards']}: get the others")
    dataset: HandDataset | HandStream = DATASETS.build(part.name, part, hand)
    if isinstance(dataset, HandStream):
        return dataset
    return Indexed(dataset, spec.seed, fingerprint(dataset))


def _check_entry(entry: Any, where: str) -> None:
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is {entry!r}, expected a mapping such as data: freihand, root: DIR, weight: 0.5")
    for key in entry:
        if key not in MIX_KEYS:
            raise ValueError(f"{where}: {unknown('key', str(key), MIX_KEYS)}")
    for key, kinds, example in (("data", str, "freihand"), ("weight", (int, float), 0.5)):
        if not isinstance(entry.get(key), kinds) or isinstance(entry[key], bool):
            raise ValueError(f"{where}: {key} is {entry.get(key)!r}, expected something like {example!r}")
    for key, kind in (("root", str), ("split", str), ("shards", int)):
        if key in entry and not isinstance(entry[key], kind):
            raise ValueError(f"{where}: {key} is {entry[key]!r}, expected a {kind.__name__}")
    if entry["data"] == "mix":
        raise ValueError(f"{where}: a mix within a mix; list its sets instead")
    DATASETS[entry["data"]]  # a KeyError with the nearest name


def _root(spec: DatasetSpec) -> str:
    if not spec.root:
        raise ValueError(f"DATA.NAME {spec.name} needs DATA.ROOT, the folder of the unpacked set (--data-root DIR)")
    return spec.root


def _image_arguments(spec: DatasetSpec) -> dict[str, Any]:
    """The arguments of every reader of images."""
    return {
        "root": _root(spec),
        "split": spec.split,
        "image_size": spec.image_size,
        "strength": spec.strength,
        "seed": spec.seed,
        "cropping": spec.cropping,
    }


def _mano_arguments(spec: DatasetSpec) -> dict[str, Any]:
    """The further arguments of readers of datasets with MANO's parameters."""
    return {"box": spec.box, "meshes": spec.meshes, "cache": spec.index_cache}
