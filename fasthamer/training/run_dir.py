"""The run directory: who may write into it, and the small files that say what the run is."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from fasthamer.config import RENAMED, load_config
from fasthamer.training.checkpoint import checkpoints

logger = logging.getLogger(__name__)

# What a resumed run may change: device, speed, length and how often it logs; nothing else of what it computes.
FREE = (
    *("DEVICE", "DATA.ROOT", "DATA.WORKERS", "TEACHER.CHECKPOINT", "EVAL.BATCH"),
    *("TRAIN.STEPS", "TRAIN.LOG_EVERY", "TRAIN.EVAL_EVERY", "TRAIN.IMAGE_EVERY", "TRAIN.CHECKPOINT_EVERY"),
)


def refuse_foreign(run: Path) -> None:
    """Raises ValueError if the folder already holds something: a run is never overwritten."""
    if run.exists() and (not run.is_dir() or any(run.iterdir())):
        what = "a run" if (run / "config.yaml").is_file() else "other files"
        raise ValueError(f"{run} already holds {what}: continue it with --resume, or choose another --out")


def resumed_config(run: Path, overrides: list[str]) -> CfgNode:
    """The config a run was started with, and what may be changed about it.

    Args:
        run: the run directory.
        overrides: `KEY VALUE ...` typed now.

    Raises:
        FileNotFoundError: there is no run to resume.
        ValueError: an override would make it another run.
    """
    saved = run / "config.yaml"
    if not saved.is_file():
        raise FileNotFoundError(f"{run} holds no run to resume (no config.yaml); leave --resume out to start one there")
    before, after = load_config(saved), load_config(saved, overrides)
    for key in (RENAMED.get(key, key) for key in overrides[::2]):
        if key not in FREE and _get(before, key) != _get(after, key):
            raise ValueError(
                f"{run} was started with {key} {_get(before, key)}, a resumed run keeps it; for {_get(after, key)} "
                "start a new run with another --out"
            )
    return after


def last_checkpoint(run: Path) -> Path | None:
    """The last complete one."""
    found = checkpoints(run / "checkpoints")
    return found[-1] if found else None


def continued(run: Path, origin: dict[str, Any], checkpoint: Path) -> dict[str, Any]:
    """A run's provenance after it is taken up again: its own, with a note of what goes on now.

    Args:
        run: the run directory.
        origin: the provenance of what goes on now.
        checkpoint: where it goes on.

    Raises:
        ValueError: the hand or the tokenizer is not the one the run began with.
    """
    before = json.loads((run / "provenance.json").read_text(encoding="utf-8"))
    for key, flag in (("hand", "--mano"), ("tokenizer", "--tokenizer")):
        if key in before and before[key] != origin.get(key):
            raise ValueError(
                f"{run} began with another {key} ({before[key]}, now {origin.get(key)}), with which what it has learnt "
                f"means something else: give the same {flag}, or start a new run with another --out"
            )
    if before["data"] != origin["data"]:  # another version of OpenCV is enough, so it is no reason to refuse
        logger.warning("%s goes on with data that differ from what it began with", run)
    note = {key: origin[key] for key in ("command", "revision", "packages", "data")} | {"from": checkpoint.name}
    return {**before, "resumed": [*before.get("resumed", []), note]}


def _get(cfg: CfgNode, key: str) -> Any:
    node: Any = cfg
    for name in key.split("."):
        node = node[name]
    return node
