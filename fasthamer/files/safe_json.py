"""Reads JSON files; whatever is wrong with one is a single line that names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fasthamer.one_line import one_line


def read_json(path: Path) -> Any:
    """The value in a file, UTF-8 with or without a byte order mark.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON, or nested too deeply.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing") from None
    return parse_json(content, str(path))


def parse_json(content: str | bytes, source: str) -> Any:
    """The value in a text, as `read_json`.

    Args:
        content: the text, or its UTF-8.
        source: its name, for errors.
    """
    try:
        return json.loads(content.decode("utf-8-sig") if isinstance(content, bytes) else content)
    except (ValueError, RecursionError) as error:
        why = one_line(error) if isinstance(error, ValueError) else "nested too deeply"
        raise ValueError(f"{source}: damaged, or no JSON ({why}); copy or download it again") from None
