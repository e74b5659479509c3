"""The detector's files in the package."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "assets" / "mediapipe"
KINDS = ("lite", "full")  # lite also as .onnx, which runs without torch


def check_kind(kind: str) -> str:
    """The kind itself.

    Raises:
        ValueError: there is no such kind.
    """
    if kind not in KINDS:
        raise ValueError(f"no detector of kind {kind!r}: choose {' or '.join(KINDS)}")
    return kind
