"""A study's file: a recipe, the axes of the grid, the seeds; its cells.

RECIPE: study
SEEDS: [0, 1, 2]
SETTINGS: {TEACHER.CACHE: "runs/study/teacher{seed}"}  # of every cell, optional; {seed} is the cell's
GRID:  # axis: level: settings; the first level of an axis is what the others are compared with
  student:
    mobilenetv3_l: {STUDENT.NAME: mobilenetv3_l}
    resnet18: {STUDENT.NAME: resnet18}
  kd:
    none: {KD.MODE: none}
    output: {KD.MODE: output}
    feature, projection never trained: {KD.MODE: feature, FAULT: frozen_projection}  # see faults.py
SETS:  # what students are scored on beside the recipe's own evaluation set, optional
  life: {DATA.EVAL_SPLIT: life}
  real: {DATA.EVAL_NAME: freihand, DATA.EVAL_ROOT: $HANDS/real}  # left out where the variable HANDS is not set
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

from yacs.config import CfgNode

from fasthamer.config import load_config, replaced
from fasthamer.files.safe_yaml import read_yaml
from fasthamer.registry import unknown

FAULT = "FAULT"  # among a level's settings: one of `fasthamer.distill.study.faults.FAULTS`
OWN_SET = "evaluation"  # the recipe's own evaluation set, in tables


class Cell(NamedTuple):
    """One training: a level of each axis, and a seed."""

    levels: dict[str, str]  # by axis
    seed: int
    settings: dict[str, str]  # by config key, the study's trailing ones included; and the fault, if it has one

    @property
    def name(self) -> str:
        """Of its run directory and in the results."""
        return ",".join([*self.levels.values(), f"seed{self.seed}"])


class Study(NamedTuple):
    """What a study's file says, with the settings typed on the command line."""

    name: str
    recipe: str
    axes: dict[str, dict[str, dict[str, str]]]  # axis: level: settings
    seeds: tuple[int, ...]
    sets: dict[str, dict[str, str]]  # evaluation sets: settings
    common: dict[str, str]  # settings of every cell

    def cells(self) -> list[Cell]:
        """All of them, the seeds of one setting together."""
        found = []
        for chosen in product(*(levels.items() for levels in self.axes.values())):
            levels = dict(zip(self.axes, (name for name, _ in chosen), strict=True))
            settings = dict(self.common)
            for _, changes in chosen:
                settings |= changes
            for seed in self.seeds:
                own = {key: value.replace("{seed}", str(seed)) for key, value in settings.items()}
                found.append(Cell(levels, seed, {**own, "SEED": str(seed)}))
        return found

    def config(self, cell: Cell) -> CfgNode:
        """The cell's resolved config."""
        return load_config(self.recipe, _pairs(_without_fault(cell.settings)))

    def set_configs(self, cell: Cell) -> dict[str, CfgNode]:
        """The config of each further evaluation set of a cell."""
        own = self.config(cell)
        return {name: replaced(own, settings) for name, settings in self.sets.items()}

    def command(self, cell: Cell) -> str:
        """What trains the cell alone; with a fault only the study can."""
        if FAULT in cell.settings:
            return shlex.join(["python", "tools/study.py", f"docs/study/{self.name}.yaml", "--only", cell.name])
        return shlex.join(["python", "tools/distill.py", "--config", self.recipe, *_pairs(cell.settings)])


def read_study(path: Path, overrides: Sequence[str] = ()) -> Study:
    """Reads a study's file and checks the settings of all of its cells.

    Args:
        path: of the YAML file.
        overrides: KEY VALUE pairs for every cell; the axes' own settings win.

    Raises:
        FileNotFoundError: no such file.
        ValueError, KeyError: a section is missing or malformed, a setting does not exist; one line says which.
    """
    content = read_yaml(path)
    needed, sections = ("RECIPE", "SEEDS", "GRID"), ("RECIPE", "SEEDS", "GRID", "SETTINGS", "SETS")
    for section in content:
        if section not in sections:
            raise KeyError(f"{path}: {unknown('section', str(section), sections)}")
    for section in needed:
        if not content.get(section):
            raise ValueError(f"{path} has no {section}: a study needs {', '.join(needed)}")
    axes = {
        str(axis): {
            _level(path, axis, level): _settings(path, f"{axis}: {level}", each) for level, each in levels.items()
        }
        for axis, levels in _mapping(path, "GRID", content["GRID"]).items()
        if _mapping(path, str(axis), levels)
    }
    sets = _mapping(path, "SETS", content.get("SETS") or {})
    seeds = content["SEEDS"]
    if not isinstance(seeds, list) or not all(type(seed) is int for seed in seeds) or len(set(seeds)) < len(seeds):
        raise ValueError(f"{path}: SEEDS is a list of different whole numbers, not {seeds!r}")
    study = Study(
        path.stem,
        str(content["RECIPE"]),
        axes,
        tuple(seeds),
        _evaluation_sets({str(name): _settings(path, f"SETS: {name}", settings) for name, settings in sets.items()}),
        _settings(path, "SETTINGS", content.get("SETTINGS")) | dict(zip(overrides[::2], overrides[1::2], strict=True)),
    )
    for cell in study.cells():
        if cell.seed == study.seeds[0]:
            study.set_configs(cell)
    return study


def chosen(study: Study, only: Sequence[str]) -> list[Cell]:
    """The cells whose names begin with one of `only`; all if none is given.

    Raises:
        KeyError: there is no such cell.
    """
    cells = study.cells()
    for start in only:
        if not any(cell.name.startswith(start) for cell in cells):
            raise KeyError(unknown("cell", start, [cell.name for cell in cells]))
    return [cell for cell in cells if not only or any(cell.name.startswith(start) for start in only)]


def _mapping(path: Path, where: str, value: object) -> dict:
    if not isinstance(value, dict):
        raise ValueError(f"{path}: {where} is a mapping, not {value!r}")
    return value


def _level(path: Path, axis: object, level: object) -> str:
    """A level's name, which is in those of its cells' folders and files."""
    if "/" in str(level):
        raise ValueError(f"{path}: {axis}: {level} has a /, which no folder's name can have: choose another name")
    return str(level)


def _settings(path: Path, where: str, value: object) -> dict[str, str]:
    """A level's settings as they would be typed."""
    return {str(key): str(each) for key, each in _mapping(path, where, value or {}).items()}


def _evaluation_sets(sets: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Without those that name a variable of the environment that is not set."""
    expanded = {
        name: {key: os.path.expandvars(value) for key, value in settings.items()} for name, settings in sets.items()
    }
    return {
        name: settings
        for name, settings in expanded.items()
        if not any(re.search(r"\$\w", value) for value in settings.values())
    }


def _without_fault(settings: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in settings.items() if key != FAULT}


def _pairs(settings: dict[str, str]) -> list[str]:
    return [text for pair in settings.items() for text in pair]
