"""List the trained models in the package: what they are, their size and input.

    python tools/zoo.py

`HandMesh(name)`, `predict --model NAME` and `tools/eval.py --model NAME` open them. Their accuracy, training data
and limits are in docs/models.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fasthamer.tools import cli


def main(argv: list[str] | None = None) -> int:
    """0 done, 2 the user's mistake."""
    cli.command("zoo", __doc__).parse_args(argv)

    from fasthamer.students.shipped import shipped_students
    from fasthamer.teachers.embedded import FILE

    print(f"{'name':22s} {'network':22s} {'decoder':12s} {'input':>6s} {'boxes':8s} {'size':>8s}")
    for name, path in {**shipped_students(), "embedded": FILE}.items():
        print(_row(name, path))
    return 0


def _row(name: str, path: Path) -> str:
    from fasthamer.students.files import student_metadata

    spec = student_metadata(path)["student"]
    decoder = f"{spec['decoder']} {spec['decoder_size']}" if spec["decoder"] != "token" else "token"
    size = f"{path.stat().st_size / 1e6:.1f} MB"
    shape = spec.get("box_shape", "hamer")
    return f"{name:22s} {spec['name']:22s} {decoder:12s} {spec['image_size']:4d}px {shape:8s} {size:>8s}"


if __name__ == "__main__":
    sys.exit(main())
