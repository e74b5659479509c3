"""Checkpoints that are complete or absent, and hold nothing that could be executed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fasthamer.files.atomic import remove_drafts, replacing

KEPT = 2  # checkpoints of a run


class Trainable(NamedTuple):
    """All that a step changes. What is random or scheduled is a function of the step, and not here."""

    modules: Mapping[str, nn.Module]  # by file name: learner, average, discriminator
    optimizers: Mapping[str, Any]  # anything with state_dict and load_state_dict, the gradient scaler included


def save_checkpoint(folder: Path, step: int, state: Trainable, facts: Mapping[str, Any] | None = None) -> Path:
    """Writes `folder/step_N`, complete or not at all, and removes older ones beyond `KEPT`.

    Args:
        folder: the run's `checkpoints`.
        step: optimizer steps done.
        state: what to save.
        facts: plain data that a resumed run needs.
    """
    target = folder / f"step_{step}"
    remove_drafts(folder, older_than=0.0)  # left by a kill: one process alone writes here
    with replacing(target) as draft:
        draft.mkdir()
        for name, module in state.modules.items():
            tensors = {key: value.detach().cpu().contiguous().clone() for key, value in module.state_dict().items()}
            save_file(tensors, draft / f"{name}.safetensors")
        torch.save({name: each.state_dict() for name, each in state.optimizers.items()}, draft / "optimizers.pt")
        (draft / "state.json").write_text(json.dumps({"step": step, **(facts or {})}), encoding="utf-8")
    for old in checkpoints(folder)[:-KEPT]:
        shutil.rmtree(old)
    return target


def load_checkpoint(path: Path, state: Trainable) -> dict[str, Any]:
    """Fills `state` from a checkpoint.

    Returns:
        Its facts: `step`, the optimizer steps done, and what it was saved with.

    Raises:
        ValueError: it belongs to another model; the message names the first keys that differ.
    """
    for name, module in state.modules.items():
        file = path / f"{name}.safetensors"
        if not file.is_file():
            raise ValueError(f"{path} holds no {name}: it was written with other settings")
        _load_strictly(module, load_file(file), file)
    saved = torch.load(path / "optimizers.pt", map_location="cpu", weights_only=True)
    for name, each in state.optimizers.items():
        each.load_state_dict(saved[name])
    return read_facts(path)


def read_facts(path: Path) -> dict[str, Any]:
    """What `load_checkpoint` returns, without filling anything."""
    return json.loads((path / "state.json").read_text(encoding="utf-8"))


def checkpoints(folder: Path) -> list[Path]:
    """The complete ones, oldest first."""
    found = [path for path in folder.glob("step_*") if (path / "state.json").is_file()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step_")))


def _load_strictly(module: nn.Module, tensors: dict[str, Tensor], file: Path) -> None:
    wanted = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in tensors.items()}
    if wanted != found:
        differ = sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
        raise ValueError(f"{file} is of another model: {len(differ)} tensors differ, such as {', '.join(differ[:3])}")
    module.load_state_dict(tensors)
