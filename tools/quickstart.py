"""Watch a teacher being distilled into a student: no arguments, no data, no network, minutes on a laptop's CPU.

    python tools/quickstart.py
    python tools/quickstart.py --images MY_IMAGES --out runs/longer TRAIN.STEPS 2000

Trains the recipe `quickstart` twice, without and with the teacher, and compares both with the teacher on hands none of
them has seen, and on the hands of your own images. Stopped halfway, the same command goes on; finished, it only scores.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fasthamer.tools import cli

STUDENTS = {"no_kd": "none", "kd": "output"}  # name in the table: KD.MODE
COLUMNS = {"pa_mpjpe_mm": 1, "pa_mpvpe_mm": 1, "params_m": 2, "ms_per_image": 1}  # digits after the point


def main(argv: list[str] | None = None) -> int:
    """0 done or terminated, 1 interrupted, 2 the user's mistake."""
    parser = cli.command("quickstart", __doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"))
    parser.add_argument("--images", type=Path, help="a folder of images of hands, to see the students on")
    arguments, overrides = cli.parse(parser, argv)

    from fasthamer.distill.quickstart import compare, train_students
    from fasthamer.training.interrupt import Interrupted

    try:
        train_students(arguments.out, STUDENTS, overrides)
        summary, images = compare(arguments.out, tuple(STUDENTS), arguments.images)
    except cli.MISTAKES as error:
        parser.error(cli.one_line(error))
    except Interrupted as stopped:
        print(f"{stopped}; the same command goes on from there", file=sys.stderr)
        return stopped.exit_code
    except RuntimeError as failure:
        return cli.failed("quickstart", failure)
    print(table(summary))
    print(f"teacher and students side by side: {' and '.join(str(path) for path in images)}")
    return 0


def table(summary: dict[str, dict[str, float]]) -> str:
    """The models, a line each."""
    lines = ["".join([f"{'':10s}", *(f"{column:>14s}" for column in COLUMNS)])]
    for name, row in summary.items():
        lines.append("".join([f"{name:10s}", *(f"{row[column]:14.{digits}f}" for column, digits in COLUMNS.items())]))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
