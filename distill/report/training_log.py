"""The log of a run, as a report shows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from fasthamer.one_line import one_line


class TrainingLog(NamedTuple):
    """The log of a run."""

    name: str
    lines: list[dict[str, Any]]  # of metrics.jsonl


def read_training_log(run: Path, name: str) -> TrainingLog | None:
    """The log of a run directory; None where there is none.

    Args:
        run: the run directory; one that is still training has a last line that is not whole, which is left out.
        name: of the run in the page.

    Raises:
        ValueError: the file is not the log of a run.
    """
    file = run / "metrics.jsonl"
    if not file.is_file():
        return None
    try:
        lines = [
            json.loads(line) for line in file.read_text(encoding="utf-8").splitlines(keepends=True) if line[-1:] == "\n"
        ]
        return TrainingLog(name, [{**line, "step": int(line["step"]), "phase": str(line["phase"])} for line in lines])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        what = one_line(error)
        raise ValueError(f"{file}: expected lines of JSON with step and phase ({what})") from None
