"""The log of a run: a progress bar, `metrics.jsonl` and TensorBoard, all under the same names."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from fasthamer.files.atomic import write_text


class RunLog:
    """One process's log; every method does nothing where it is muted."""

    def __init__(
        self,
        folder: Path,
        first_step: int,
        steps: int,
        images_per_step: int,
        muted: bool = False,
        unevaluated: bool = False,
    ) -> None:
        """
        Args:
            folder: the run directory.
            first_step: steps already done; later lines of an interrupted run are dropped.
            steps: steps in all.
            images_per_step: over all processes.
            muted: print and write nothing: a process that is not the main one.
            unevaluated: the evaluation after `first_step` is still to come; what the log has of it is dropped too.
        """
        self.muted, self.steps, self.images = muted, steps, images_per_step
        self.began, self.warm = time.perf_counter(), 0.0
        self.first_step = self.logged_step = first_step
        self.logged_at = self.began
        if muted:
            return
        self.file = folder / "metrics.jsonl"
        line = _cut(self.file, first_step, unevaluated)
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + (not unevaluated))
        if unevaluated:  # TensorBoard drops all of the step, the line of its training too
            self._show(first_step, line, "train")
        pace = 0.2 if sys.stderr.isatty() else 20.0  # seconds between redraws; a log file wants few
        self.bar = tqdm(total=steps, initial=first_step, unit="step", mininterval=pace, dynamic_ncols=True)

    def message(self, text: str) -> None:
        """One line for the user."""
        if not self.muted:
            tqdm.write(text)

    def stepped(self, done: int) -> None:
        """Call after each step, with the number of steps done: moves the bar and, once, estimates the duration."""
        if self.muted:
            return
        self.bar.update(done - self.bar.n)
        passed = done - self.first_step
        if passed == 1:
            self.warm = time.perf_counter()  # the first step compiles, allocates and waits for the loader
        elif passed == 5:
            pace = (time.perf_counter() - self.warm) / 4
            left = self.steps - done
            self.message(f"about {duration(pace * left)} for the {left} steps left ({pace:.2f} s a step)")

    def scalars(self, done: int, values: Mapping[str, float], prefix: str = "train") -> None:
        """Appends one line of numbers; training lines get the images a second since the last one."""
        if self.muted:
            return
        values = dict(values)
        if prefix == "train":
            now = time.perf_counter()
            steps = done - self.logged_step
            values["images_per_second"] = steps * self.images / max(now - self.logged_at, 1e-9)
            self.logged_at, self.logged_step = now, done
            loss, pace = values.get("total", float("nan")), values["images_per_second"]
            self.bar.set_postfix(loss=f"{loss:.4g}", images_s=f"{pace:.1f}", refresh=False)
        with self.file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"step": done, "phase": prefix, **values}) + "\n")
        self._show(done, values, prefix)

    def _show(self, done: int, values: Mapping[str, Any], prefix: str) -> None:
        """In TensorBoard."""
        for name, value in values.items():
            if isinstance(value, int | float) and name != "step":
                self.writer.add_scalar(f"{prefix}/{name}", value, done)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Around work that is not training: its time does not count against the images a second."""
        since = time.perf_counter()
        yield
        self.logged_at += time.perf_counter() - since

    def image(self, done: int, name: str, image: np.ndarray) -> None:
        """An image (H, W, 3) uint8 RGB for TensorBoard."""
        if not self.muted:
            self.writer.add_image(name, image, done, dataformats="HWC")

    def flush(self) -> None:
        """Call before a checkpoint: all lines up to now are on the disk then, however the process ends."""
        if self.muted:
            return
        self.writer.flush()
        if self.file.is_file():
            with self.file.open("rb") as lines:
                os.fsync(lines.fileno())

    def close(self) -> None:
        """Flushes and ends the bar."""
        if not self.muted:
            self.bar.close()
            self.writer.close()


def _cut(file: Path, last: int, unevaluated: bool) -> dict[str, Any]:
    """Drops lines after step `last`, its evaluation if that is to come, and a line that a kill has left half-written.

    Returns:
        What the line of training of step `last` holds, if there is one.
    """
    if not file.is_file():
        return {}
    kept, found = [], {}
    for text in file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        line = _parsed(text)
        if not text.endswith("\n") or line["step"] > last:
            continue
        if line["step"] == last and line["phase"] == "train":
            found = line
        elif line["step"] == last and unevaluated:
            continue
        kept.append(text)
    write_text(file, "".join(kept))
    return found


def _parsed(text: str) -> dict[str, Any]:
    """A line of the log; a damaged one as if it were of a later step."""
    try:
        line = json.loads(text)
        return line | {"step": int(line["step"]), "phase": str(line["phase"])}
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return {"step": math.inf, "phase": ""}


def duration(seconds: float) -> str:
    """As text with a unit, rounded."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
