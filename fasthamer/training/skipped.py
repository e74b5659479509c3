"""What a run skips, in a file of its directory: samples that cannot be read, optimizer steps that are not finite."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from accelerate import Accelerator
from accelerate.utils import gather_object

from fasthamer.training.guard import Skip
from fasthamer.training.log import RunLog
from fasthamer.training.trainer import Feed

FILE = "skipped.txt"
NAMED = 3  # skipped samples in the message for the user; the file has all
CORRECT = "correct these samples, or remove them"
LOWER = "try a lower TRAIN.LR, TRAIN.CLIP above 0 or TRAIN.PRECISION fp32"
ADVICE = {  # by how the cause begins, in the order in which a step computes them
    "image": CORRECT,
    "label": CORRECT,
    "mesh": CORRECT,
    "teacher": "try TEACHER.PRECISION fp32, or another teacher",
    "student": LOWER,
    "loss": LOWER,
    "gradient": LOWER,
    "fp16": "use TRAIN.PRECISION bf16 or fp32",
}


class Skipped:
    """Writes `skipped.txt`: a line for each unreadable sample and each step that is not finite, none of them twice.

    `in_a_row` is the number of steps skipped since the last one that was taken. `too_many` turns true with TRAIN.SKIPS
    of them; the loop then saves a checkpoint and calls `check`.
    """

    def __init__(
        self, run: Path, feed: Feed, log: RunLog, accelerator: Accelerator, allowed: int, steps: int, in_a_row: int = 0
    ) -> None:
        """
        Args:
            run: the run directory.
            feed: whose samples they are.
            log: gets the messages for the user.
            accelerator: the processes; each appends its own lines.
            allowed: TRAIN.SKIPS.
            steps: of the run; a shorter one stops when all of them are skipped, unless fp16 has only overflowed.
            in_a_row: as the resumed checkpoint has it.
        """
        self.file, self.feed, self.log, self.accelerator, self.allowed = run / FILE, feed, log, accelerator, allowed
        self.in_a_row = in_a_row if in_a_row < allowed else 0  # a run that stopped for too many has as many again
        self.known = set(self.file.read_text(encoding="utf-8").splitlines()) if self.file.is_file() else set()
        self.steps, self.overflow = steps, False
        self.last = ""  # why the last step was skipped that was, and what to do

    def __enter__(self) -> Skipped:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.write_samples()

    @property
    def too_many(self) -> bool:
        return self.in_a_row >= (self.allowed if self.overflow else min(self.allowed, self.steps))

    def write_samples(self) -> None:
        """Writes the samples that could not be read since the last time."""
        if new := self._write(list(self.feed.skipped)):
            first = "; ".join(new[:NAMED])
            self.log.message(f"{len(new)} samples or places in the shards could not be read, see {self.file}: {first}")

    def step(self, done: int, skip: Skip | None) -> None:
        """Notes whether optimizer step number `done` was taken. Every process calls it: all skip a step together."""
        self.in_a_row = self.in_a_row + 1 if skip else 0
        if skip is None:
            return
        self.overflow = skip.overflow
        rank = list(ADVICE).index(skip.cause.split()[0]) if skip.cause else len(ADVICE)
        own = [(rank, self._described(skip))]
        first, line = min(gather_object(own) if self.accelerator.num_processes > 1 else own)
        if not skip.overflow and rank == first:  # in other processes it is a consequence
            self._write([f"step {done} skipped: {own[0][1]}"])
        if not skip.overflow and not self.last:
            self.log.message(f"step {done} skipped: {line}; more will be in {self.file}")
        self.last = f"{line}; {list(ADVICE.values())[first]}"

    def check(self, done: int) -> None:
        """
        Raises:
            FloatingPointError: too many steps in a row were skipped; the message is the diagnosis.
        """
        if self.too_many:
            raise FloatingPointError(
                f"{self.in_a_row} steps in a row were skipped (TRAIN.SKIPS), the last of them: {self.last}. All are in "
                f"{self.file}; checkpoint step_{done} holds the last good state"
            )

    def _described(self, skip: Skip) -> str:
        if skip.overflow:
            return f"{skip.cause} is not finite although its scale was lowered each time"
        line = f"{skip.cause} is not finite"
        if skip.at:
            line += " in " + ", ".join(self.feed.describe(number) for number in skip.at)
        if skip.terms:
            line += f"; so are the loss terms {', '.join(skip.terms)}"
        return line + (f"; samples of the step: {', '.join(map(str, skip.samples))}" if skip.samples else "")

    def _write(self, lines: list[str]) -> list[str]:
        """Appends the lines that the file does not have, and returns them."""
        new = [line for line in lines if line not in self.known]
        self.known.update(new)
        if new:
            with self.file.open("a", encoding="utf-8") as file:
                file.write("".join(f"{line}\n" for line in new))
        return new
