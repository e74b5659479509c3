"""The trained students in the package, by name: `HandMesh("mobilenetv3_l")`. Their cards: docs/models.md."""

from __future__ import annotations

from pathlib import Path

import fasthamer

FOLDER = Path(fasthamer.__file__).parent / "assets" / "students"


def shipped_students(folder: Path = FOLDER) -> dict[str, Path]:
    """The file of each, by name; the name is the file's."""
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def student_file(source: str | Path) -> Path:
    """The file of a shipped student, by its name; any other source is a path already."""
    return shipped_students().get(str(source), Path(source))
