"""The samples that a run could not read, in a file of the run directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fasthamer.training.log import RunLog
from fasthamer.training.trainer import Feed

NAMED = 3  # skipped samples in the message for the user; the file has all


@contextmanager
def recording_skipped(feed: Feed, file: Path, log: RunLog) -> Iterator[None]:
    """On exit, also after an error, appends the feed's skipped samples to a file and reports their number."""
    known = set(file.read_text(encoding="utf-8").splitlines()) if file.is_file() else set()
    try:
        yield
    finally:
        new = [line for line in feed.skipped if line not in known]
        if new:
            with file.open("a", encoding="utf-8") as lines:  # other processes append theirs
                lines.write("".join(f"{line}\n" for line in new))
            first = "; ".join(new[:NAMED])
            log.message(f"{len(new)} samples or places in the shards could not be read, see {file}: {first}")
