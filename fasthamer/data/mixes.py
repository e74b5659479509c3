"""Weighted mixes of datasets, as `DATA.MIX` lists them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from fasthamer.data.dataset import fingerprint
from fasthamer.data.readers.tars import find_shards
from fasthamer.data.streams import HandStream, Indexed, Mix
from fasthamer.data.zoo import DATASETS
from fasthamer.hand.mano import Hand
from fasthamer.registry import unknown

KEYS = ("data", "root", "split", "weight", "shards")


def build_mix(cfg: CfgNode, hand: Hand) -> Mix:
    """The training sets of `DATA.MIX`, each sample drawn from one of them by weight.

    An entry names a registered dataset (`data`) and its `weight`; `root` is relative to `DATA.ROOT`, `split` is
    `DATA.SPLIT` unless given, `shards` is how many a complete set of tars has.

    Raises:
        KeyError: no such dataset.
        FileNotFoundError, ValueError: files missing or unfit, or an entry that says something else.
    """
    if not cfg.DATA.MIX:
        raise ValueError(
            "DATA.NAME mix needs DATA.MIX, a list of sets: --data MIX.yaml, such as configs/data/hamer_mix.yaml"
        )
    parts, weights = [], []
    for number, entry in enumerate(cfg.DATA.MIX):
        where = f"DATA.MIX[{number}]"
        _check_entry(entry, where)
        try:
            parts.append(_part(cfg, entry, hand))
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{where}: {error}; roots of a mix are relative to DATA.ROOT ({cfg.DATA.ROOT or 'not set'})"
            ) from None
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        weights.append(float(entry["weight"]))
    return Mix(parts, weights, cfg.SEED)


def _part(cfg: CfgNode, entry: dict[str, Any], hand: Hand) -> HandStream:
    own = cfg.clone()
    own.defrost()
    own.DATA.NAME = entry["data"]
    own.DATA.ROOT = str(Path(cfg.DATA.ROOT, entry["root"])) if "root" in entry else cfg.DATA.ROOT
    own.DATA.SPLIT = entry.get("split", cfg.DATA.SPLIT)
    own.freeze()
    if "shards" in entry:
        there = len(find_shards(Path(own.DATA.ROOT)))
        if there != entry["shards"]:
            raise ValueError(f"{own.DATA.ROOT} holds {there} shards, the set has {entry['shards']}: get the others")
    dataset = DATASETS.build(own.DATA.NAME, own, hand, True)
    if isinstance(dataset, HandStream):
        return dataset
    return Indexed(dataset, cfg.SEED, fingerprint(dataset))


def _check_entry(entry: Any, where: str) -> None:
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is {entry!r}, expected a mapping such as data: freihand, root: DIR, weight: 0.5")
    for key in entry:
        if key not in KEYS:
            raise ValueError(f"{where}: {unknown('key', str(key), KEYS)}")
    for key, kinds, example in (("data", str, "freihand"), ("weight", (int, float), 0.5)):
        if not isinstance(entry.get(key), kinds) or isinstance(entry[key], bool):
            raise ValueError(f"{where}: {key} is {entry.get(key)!r}, expected something like {example!r}")
    for key, kind in (("root", str), ("split", str), ("shards", int)):
        if key in entry and not isinstance(entry[key], kind):
            raise ValueError(f"{where}: {key} is {entry[key]!r}, expected a {kind.__name__}")
    if entry["data"] == "mix":
        raise ValueError(f"{where}: a mix within a mix; list its sets instead")
    DATASETS[entry["data"]]  # a KeyError with the nearest name
