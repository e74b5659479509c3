"""Text of files and libraries as part of a message."""

from __future__ import annotations

LONGEST = 400  # characters


def one_line(text: object) -> str:
    """The text without line breaks, cut if it is long: a hostile file chooses what an error quotes."""
    printable = str(text).encode("utf-8", "backslashreplace").decode()
    line = " ".join(part.strip() for part in printable.splitlines())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."
