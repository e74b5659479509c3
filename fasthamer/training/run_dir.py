"""The run directory: who may write into it, and the small files that say what the run is."""

from __future__ import annotations

import errno
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from yacs.config import CfgNode

from fasthamer.config import RENAMED, load_config
from fasthamer.files.atomic import DRAFT, remove_drafts, write_json, write_text
from fasthamer.files.safe_json import read_json
from fasthamer.one_line import one_line
from fasthamer.recipes import settings_of
from fasthamer.training.checkpoint import checkpoints, fault_of
from fasthamer.training.interrupt import sigterm_interrupts

if TYPE_CHECKING:
    from accelerate import Accelerator

try:
    import fcntl
except ImportError:  # Windows has no record locks
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)
LOCK = ".lock"  # in a run directory

# What a resumed run may change: device, threads, length and how often it logs; nothing else of what it computes.
FREE = (
    *("DEVICE", "DATA.ROOT", "DATA.WORKERS", "TEACHER.CHECKPOINT", "EVAL.BATCH"),
    *("TRAIN.STEPS", "TRAIN.LOG_EVERY", "TRAIN.EVAL_EVERY", "TRAIN.IMAGE_EVERY", "TRAIN.CHECKPOINT_EVERY"),
    *("TRAIN.KEEP", "TRAIN.BEST", "TRAIN.SKIPS", "TRAIN.THREADS", "DATA.FAULTS", "DATA.INDEX"),
)
MOVABLE = ("TEACHER.CACHE", "STUDENT.CACHE", "DATA.SYNTHETIC_FOLDER")  # folders that may be others, if there were any


def refuse_foreign(run: Path) -> None:
    """Raises ValueError if the folder already holds something: a run is never overwritten."""
    if run.exists() and (not run.is_dir() or any(not _left_by_a_kill(path) for path in run.iterdir())):
        what = "a run" if (run / "config.yaml").is_file() else "other files"
        raise ValueError(f"{run} already holds {what}: continue it with --resume, or choose another --out")


def config_of(run: Path, recipe: str | None, overrides: list[str], resume: bool, default: str | None = None) -> CfgNode:
    """The config of a run that is started or, with `resume`, may have begun.

    So one command with `--resume` both starts a run and, after a restart of its machine, continues it.

    Args:
        run: the run directory.
        recipe: a file, or the name of a shipped one.
        overrides: `KEY VALUE ...` typed now.
        resume: continue the run if it has begun.
        default: the recipe of a new run, where none is named.

    Raises:
        FileNotFoundError: there is no run to resume, and nothing that says what to start; no such recipe.
        ValueError: what is given would make it another run, the folder holds other files, or a setting is unfit.
    """
    given = [*(settings_of(recipe) if recipe else []), *overrides]
    if resume and (given == [] or (run / "config.yaml").is_file()):
        return resumed_config(run, given)
    if resume:
        refuse_foreign(run)
    return load_config(recipe or default, overrides)


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
        raise FileNotFoundError(
            f"{run} holds no run to resume (no config.yaml): to start one there, give its settings, or leave --resume "
            "out"
        )
    before, after = load_config(saved), load_config(saved, overrides)
    for key in (RENAMED.get(key, key) for key in overrides[::2]):
        old, new = _get(before, key), _get(after, key)
        if key not in FREE and old != new and not (key in MOVABLE and old and new):
            raise ValueError(
                f"{run} was started with {key} {old}, a resumed run keeps it; for {new} start a new run with another "
                "--out"
            )
    return after


class RunInUse(ValueError):
    """Another process trains into the run directory."""


@contextmanager
def writing(run: Path, cfg: CfgNode, origin: dict[str, Any], accelerator: Accelerator, resumed: bool) -> Iterator[None]:
    """Around all that writes into a run directory; it begins with `config.yaml` and `provenance.json`.

    The main process alone writes, and holds the directory's lock: a record lock, which ends with the process, however
    that ends, and which loader processes do not inherit. SIGTERM raises `Interrupted`, in the training loop after a
    checkpoint.

    Args:
        run: the run directory.
        cfg: the resolved config.
        origin: see `fasthamer.training.provenance`.
        accelerator: of the run; every process calls this.
        resumed: the run was begun before.

    Raises:
        RunInUse: another process trains into it.
        Interrupted: by SIGTERM.
        ValueError: not resumed, and in the meantime it holds something.
    """
    lock = None
    if accelerator.is_main_process:
        run.mkdir(parents=True, exist_ok=True)
        lock = _locked(run)
        if not resumed:
            refuse_foreign(run)
        for folder in (run, *(path for path in run.iterdir() if path.is_dir())):
            remove_drafts(folder, older_than=0.0)  # left by a kill
        write_text(run / "config.yaml", cfg.dump())
        write_json(run / "provenance.json", origin)
    accelerator.wait_for_everyone()
    try:
        with sigterm_interrupts():
            yield
    finally:
        if lock is not None:
            lock.close()


def refuse_busy(run: Path) -> None:
    """Raises RunInUse if another process trains into the run directory."""
    if (run / LOCK).is_file():
        _locked(run).close()


def last_checkpoint(run: Path) -> Path | None:
    """The last one that is complete and has its checksums, with a warning for each newer one that has not.

    Raises:
        ValueError: there are checkpoints, and all are damaged.
    """
    found = checkpoints(run / "checkpoints")
    for path in reversed(found):
        fault = fault_of(path)
        if not fault:
            return path
        logger.warning("%s is damaged (%s): the one before it is taken", path, fault)
    if found:
        raise ValueError(f"all checkpoints in {run / 'checkpoints'} are damaged: remove them to train from the start")
    return None


def continued(run: Path, origin: dict[str, Any], checkpoint: Path) -> dict[str, Any]:
    """A run's provenance after it is taken up again: its own, with a note of what goes on now.

    Args:
        run: the run directory.
        origin: the provenance of what goes on now.
        checkpoint: where it goes on.

    Raises:
        ValueError: the hand or the tokenizer is not the one the run began with.
    """
    before = read_json(run / "provenance.json")
    if not isinstance(before, dict) or "data" not in before or not isinstance(before.get("resumed", []), list):
        raise ValueError(f"{run / 'provenance.json'} is damaged: it is not a run's provenance")
    for key, flag in (("hand", "--mano"), ("tokenizer", "--tokenizer")):
        if key in before and before[key] != origin.get(key):
            raise ValueError(
                f"{run} began with another {key} ({one_line(before[key])}, now {origin.get(key)}), with which what it "
                f"has learnt means something else: give the same {flag}, or start a new run with another --out"
            )
    if before["data"] != origin["data"]:  # another version of OpenCV is enough, so it is no reason to refuse
        logger.warning("%s goes on with data that differ from what it began with", run)
    note = {key: origin[key] for key in ("command", "revision", "packages", "data")} | {"from": checkpoint.name}
    return {**before, "resumed": [*before.get("resumed", []), note]}


def _left_by_a_kill(path: Path) -> bool:
    return path.name == LOCK or (path.name.startswith(".") and path.suffix == DRAFT)


def _locked(run: Path) -> IO[str]:
    """The lock's file, open; closing it gives the lock up.

    Raises:
        RunInUse: another process holds it.
    """
    file = (run / LOCK).open("a+", encoding="utf-8")
    if fcntl is None:
        return file
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):  # a file system without locks
            logger.warning("%s cannot be locked (%s): see that only one process trains there", run, error)
            return file
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise RunInUse(
            f"{run} is in use by {holder}: one training at a time writes into a run directory; wait until it ends, or "
            "choose another --out"
        ) from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}\n")
    file.flush()
    return file


def _get(cfg: CfgNode, key: str) -> Any:
    node: Any = cfg
    for name in key.split("."):
        node = node[name]
    return node
