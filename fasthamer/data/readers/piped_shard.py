"""Tar shards that a command writes to its standard output, as webdataset's `pipe:` URLs: object storage, ssh, ...

The user names the command as DATA.ROOT, on the command line or in a recipe. No data file can name one.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
import time
from typing import BinaryIO

PIPE = "pipe:"
TRIALS = 3  # a network may fail for a moment
PAUSE = 1.0  # seconds before the second trial; twice that before the third


class PipedShard:
    """A shard behind a command; `open` and `str` as of a path.

    Args:
        command: a program and its arguments, quoted as for a shell, which however is not started.

    Raises:
        ValueError: nothing to run, or an unclosed quote.
    """

    def __init__(self, command: str) -> None:
        try:
            self.arguments = shlex.split(command)
        except ValueError as error:
            raise ValueError(f"{PIPE}{command}: {error}") from None
        if not self.arguments:
            raise ValueError(f"{PIPE} needs a command that writes a shard, such as {PIPE}cat 000000.tar")
        self.command = command.strip()

    def __str__(self) -> str:
        return f"{PIPE}{self.command}"

    def open(self, mode: str = "rb") -> BinaryIO:
        """The shard in a temporary file without a name, read only when all of it has arrived.

        Raises:
            OSError: no such program, or it fails every time.
        """
        for trial in range(TRIALS):
            time.sleep(PAUSE * trial)
            file = tempfile.TemporaryFile()  # noqa: SIM115  # the caller closes it
            code, message = self._run_into(file)
            if code == 0:
                file.seek(0)
                return file  # type: ignore[return-value]
            file.close()
        raise OSError(f"{shlex.join(self.arguments)} ended with {code}: {message}")

    def _run_into(self, file: BinaryIO) -> tuple[int, str]:
        """Runs the command; returns its exit status and the last line of its errors.

        Its output goes through a pipe: if this process is killed, the next write ends the command. It could not be
        ended otherwise, since it ignores the signals that a loader process ignores.
        """
        pipe, none = subprocess.PIPE, subprocess.DEVNULL
        with tempfile.TemporaryFile() as errors:
            with subprocess.Popen(self.arguments, stdin=none, stdout=pipe, stderr=errors) as running:
                assert running.stdout is not None
                try:
                    shutil.copyfileobj(running.stdout, file)
                except BaseException:  # Ctrl-C, a full disk
                    running.kill()
                    raise
            errors.seek(0)
            lines = errors.read().decode("utf-8", "replace").strip().splitlines()
        return running.returncode, lines[-1] if lines else "no message"


def piped_shards(root: str) -> list[PipedShard]:
    """The shards that `pipe:command` stands for: braces such as `{000000..000099}` give one for each number.

    Raises:
        ValueError: not a command.
    """
    from braceexpand import braceexpand  # comes with webdataset

    try:
        commands = list(braceexpand(root.removeprefix(PIPE)))
    except ValueError as error:
        raise ValueError(f"{root}: {error}") from None
    return [PipedShard(command) for command in commands]
