"""How readers refuse files."""

from __future__ import annotations

import pytest


def refused(reader, path, match=None, *arguments):
    """The message: one line that names the file."""
    with pytest.raises(ValueError, match=match) as caught:
        reader(path, *arguments)
    text = str(caught.value)
    assert path.name in text and "\n" not in text and len(text) < 1000
    return text
