"""What a run keeps of its walk over tar shards: where the lanes are, and what could not be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object

from fasthamer.data.loader import Feed
from fasthamer.data.streams import Place
from fasthamer.training.log import RunLog

NAMED = 3  # skipped samples that the summary names; the file has all


def lane_facts(feed: Feed, accelerator: Accelerator) -> dict[str, Any]:
    """For a checkpoint: the places of all processes' lanes; empty for an indexed set. Every process calls it."""
    if feed.places is None:
        return {}
    mine = [list(feed.places)]
    return {"lanes": gather_object(mine) if accelerator.num_processes > 1 else mine}


def places_of(facts: Mapping[str, Any], rank: int) -> list[Place] | None:
    """The places of one process's lanes, as a checkpoint has them."""
    lanes = facts.get("lanes")
    return None if lanes is None else lanes[rank]


def check_lanes(facts: Mapping[str, Any], processes: int, workers: int) -> None:
    """Refuses to go on with another number of lanes: they would meet other samples than the run would have met.

    Args:
        facts: of the checkpoint; an indexed set's says nothing about lanes.
        processes: of the run that goes on.
        workers: loader processes of each.

    Raises:
        ValueError: the numbers differ.
    """
    lanes = facts.get("lanes")
    if lanes is None:
        return
    before, now = (len(lanes), len(lanes[0])), (processes, max(1, workers))
    if before != now:
        raise ValueError(
            f"the run reads its shards in {before[0]} processes with {before[1]} loader workers each, not {now[0]} "
            f"with {now[1]}: resume it so (DATA.WORKERS {before[1]}), or start a new run from its student with --init"
        )


@contextmanager
def noting_skipped(feed: Feed, file: Path, log: RunLog) -> Iterator[None]:
    """Appends to a file, when all is done or broken off, each sample that was skipped, and says how many there are."""
    known = set(file.read_text(encoding="utf-8").splitlines()) if file.is_file() else set()
    try:
        yield
    finally:
        new = [line for line in feed.skipped if line not in known]
        if new:
            with file.open("a", encoding="utf-8") as lines:  # other processes append theirs
                lines.write("".join(f"{line}\n" for line in new))
            first = "; ".join(new[:NAMED])
            log.say(f"{len(new)} samples or places in the shards could not be read, see {file}: {first}")
