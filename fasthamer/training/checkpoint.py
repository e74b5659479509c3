"""Checkpoints that are complete or absent, are checked when they are read, and hold nothing that could be executed."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fasthamer.files.atomic import DRAFT, remove_drafts, replacing
from fasthamer.files.safe_checkpoint import check_stored
from fasthamer.files.safe_json import read_json
from fasthamer.one_line import one_line

FACTS, SUMS = "state.json", "SHA256SUMS"  # the latter as sha256sum writes it: `sha256sum -c` checks it too


class Trainable(NamedTuple):
    """All that a step changes. What is random or scheduled is a function of the step, and not here."""

    modules: Mapping[str, nn.Module]  # by file name: learner, average, discriminator
    optimizers: Mapping[str, Any]  # anything with state_dict and load_state_dict, the gradient scaler included


def save_checkpoint(
    folder: Path, step: int, state: Trainable, facts: Mapping[str, Any] | None = None, keep: int = 2
) -> Path:
    """Writes `folder/step_N`, complete or not at all, then removes older ones, and damaged ones of later steps.

    Args:
        folder: the run's `checkpoints`.
        step: optimizer steps done.
        state: what to save.
        facts: plain data that a resumed run needs.
        keep: how many to keep.

    Raises:
        OSError: it could not be written, with the space that it needs; those before it are intact.
    """
    target = folder / f"step_{step}"
    folder.mkdir(parents=True, exist_ok=True)
    remove_drafts(folder, older_than=0.0)  # left by a kill: one process alone writes here
    size = _bytes_of([each.state_dict() for each in (*state.modules.values(), *state.optimizers.values())])
    try:
        if shutil.disk_usage(folder).free < size:
            raise OSError(errno.ENOSPC, "the disk is full")
        with replacing(target) as draft:
            _write(draft, step, state, facts or {})
    except (OSError, SafetensorError, RuntimeError) as error:  # the last is how torch.save reports a full disk
        if str(error).startswith("DataLoader worker"):  # the death of a loader process is raised wherever we just are
            raise
        raise OSError(_no_space(folder, step, size, keep, error)) from error
    found = checkpoints(folder)
    earlier = [path for path in found if _step_of(path) < step]
    later = [path for path in found if _step_of(path) > step]
    for each in later + earlier[: max(0, len(earlier) + 1 - keep)]:
        _remove(each)
    return target


def load_checkpoint(path: Path, state: Trainable) -> dict[str, Any]:
    """Fills `state` from a checkpoint.

    Returns:
        Its facts: `step`, the optimizer steps done, and what it was saved with.

    Raises:
        ValueError: it is damaged, or belongs to another model; the message names the file, or the keys that differ.
    """
    if fault := fault_of(path):
        raise ValueError(f"{path} is damaged: {fault}")
    for name, module in state.modules.items():
        file = path / f"{name}.safetensors"
        if not file.is_file():
            raise ValueError(f"{path} holds no {name}: it was written with other settings")
        _load_strictly(module, _read(file, load_file), file)

    def load_optimizers(file: Path) -> None:
        check_stored(file)
        saved = torch.load(file, map_location="cpu", weights_only=True)
        for name, each in state.optimizers.items():
            each.load_state_dict(saved[name])

    _read(path / "optimizers.pt", load_optimizers)
    return read_facts(path)


def read_facts(path: Path) -> dict[str, Any]:
    """What `load_checkpoint` returns, without filling anything."""
    facts = read_json(path / FACTS)
    if not isinstance(facts, dict) or not isinstance(facts.get("step"), int):
        raise ValueError(f"{path / FACTS} is damaged: it has no step")
    return facts


def checkpoints(folder: Path) -> list[Path]:
    """The complete ones, oldest first."""
    found = [path for path in folder.glob("step_*") if path.name[5:].isdigit() and (path / FACTS).is_file()]
    return sorted(found, key=_step_of)


def fault_of(path: Path) -> str:
    """What is wrong with a checkpoint's files; empty if they have their checksums, or are older than checksums."""
    sums = path / SUMS
    if not sums.is_file():
        return ""
    try:
        pairs = [line.split("  ", 1) for line in sums.read_text(encoding="utf-8").splitlines()]
        expected = {name: digest for digest, name in pairs}
    except ValueError:
        return f"{SUMS} is no list of checksums"
    found = {each.name for each in path.iterdir()} - {SUMS}
    if missing := sorted(expected.keys() - found):
        return f"{missing[0]} is missing"
    changed = sorted(name for name in found if _digest(path / name) != expected.get(name))
    return f"{changed[0]} does not have its checksum" if changed else ""


def _write(draft: Path, step: int, state: Trainable, facts: Mapping[str, Any]) -> None:
    draft.mkdir()
    for name, module in state.modules.items():
        tensors = {key: value.detach().cpu().contiguous().clone() for key, value in module.state_dict().items()}
        save_file(tensors, draft / f"{name}.safetensors")
    torch.save({name: each.state_dict() for name, each in state.optimizers.items()}, draft / "optimizers.pt")
    (draft / FACTS).write_text(json.dumps({"step": step, **facts}), encoding="utf-8")
    lines = [f"{_digest(each)}  {each.name}\n" for each in sorted(draft.iterdir())]
    (draft / SUMS).write_text("".join(lines), encoding="utf-8")


def _no_space(folder: Path, step: int, size: int, keep: int, error: Exception) -> str:
    free, before = shutil.disk_usage(folder).free, checkpoints(folder)
    intact = f"{before[-1]} is intact" if before else "there is none before it"
    return (
        f"the checkpoint of step {step} could not be written to {folder} ({error}): it takes {_megabytes(size)}, "
        f"{_megabytes(free)} are free, and TRAIN.KEEP {keep} with the one being written takes "
        f"{_megabytes((keep + 1) * size)}; {intact}. Free some space, then go on with --resume"
    )


def _remove(path: Path) -> None:
    """Out of sight at once: a kill while its files are removed leaves a draft, not half a checkpoint."""
    hidden = path.with_name(f".{path.name}{DRAFT}")
    path.rename(hidden)
    shutil.rmtree(hidden)


def _bytes_of(tree: Any) -> int:
    """Of all tensors in nested dictionaries and lists."""
    if isinstance(tree, Tensor):
        return tree.nbytes
    if isinstance(tree, Mapping):
        return sum(map(_bytes_of, tree.values()))
    return sum(map(_bytes_of, tree)) if isinstance(tree, list | tuple) else 0


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step_"))


def _read(file: Path, read: Callable[[Path], Any]) -> Any:
    try:
        return read(file)
    except Exception as error:  # safetensors, torch and its optimizers raise a dozen types
        raise ValueError(
            f"{file} is damaged, or of other settings ({type(error).__name__}: {one_line(error)})"
        ) from None


def _load_strictly(module: nn.Module, tensors: dict[str, Tensor], file: Path) -> None:
    wanted = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in tensors.items()}
    if wanted != found:
        differ = sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
        raise ValueError(f"{file} is of another model: {len(differ)} tensors differ, such as {', '.join(differ[:3])}")
    module.load_state_dict(tensors)
