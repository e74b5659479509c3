"""A study: a grid of trainings over settings and seeds, with tables and a plot of what they found.

    python tools/study.py docs/study/features.yaml
    python tools/study.py docs/study/features.yaml --only pkd,seed0 --jobs 1
    python tools/study.py docs/study/features.yaml --list

Each cell is an ordinary training run. Results go beside the study's file: NAME.json, NAME.md and NAME.png; what is in
NAME.json is done and is skipped. Stopped halfway or failed in part, the same command goes on from there. Trailing KEY
VALUE pairs are settings of all cells.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from fasthamer.cores import usable_cores
from fasthamer.tools import cli


def main(argv: list[str] | None = None) -> int:
    """0 done, 1 interrupted or a training failed, 2 the user's mistake."""
    parser = _parser()
    arguments, overrides = cli.parse(parser, argv)

    from fasthamer.distill.study.cells import read_records, read_teachers, run_study
    from fasthamer.distill.study.grid import chosen, read_study
    from fasthamer.distill.study.summary import write_summary
    from fasthamer.files.atomic import check_writable
    from fasthamer.training.interrupt import InterruptHandler

    out = arguments.out or arguments.study.parent
    try:
        if arguments.jobs < 1:
            raise ValueError(f"--jobs is {arguments.jobs}: at least one cell runs at a time")
        study = read_study(arguments.study, overrides)
        cells, records = chosen(study, arguments.only), read_records(study, out)
    except cli.MISTAKES as error:
        parser.error(cli.one_line(error))
    if arguments.list:
        cli.print_lines(
            f"{'done' if cell.name in records else 'to do'}\t{cell.name}\t{study.command(cell)}" for cell in cells
        )
        return 0
    print(f"{sum(cell.name in records for cell in cells)} of {len(cells)} cells done", flush=True)
    failed, runs = [], arguments.runs.resolve()
    try:
        check_writable(out)
        with InterruptHandler() as interrupt:
            for result in run_study(study, cells, runs, out, arguments.jobs, interrupt, partial(print, flush=True)):
                failed += [result.job.name] if result.trouble else []
                write_summary(study, read_records(study, out), read_teachers(study, out), out)
        print(f"\n{write_summary(study, read_records(study, out), read_teachers(study, out), out)}")
    except OSError as error:  # no permission, a full disk
        return cli.failed("study", error)
    if failed or interrupt.requested:
        what = f"not finished: {', '.join(failed)}" if failed else "stopped"
        print(f"study: {what}; the same command goes on from there", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = cli.command("study", __doc__)
    parser.add_argument("study", type=Path, help="the study's YAML file; distill/study/grid.py says what it holds")
    parser.add_argument(
        "--only", action="append", default=[], metavar="CELL", help="a cell's name or its beginning; may be repeated"
    )
    parser.add_argument("--jobs", type=int, default=usable_cores(), help="trainings at a time (%(default)s)")
    parser.add_argument("--runs", type=Path, default=Path("runs/study"), help="run directories (%(default)s)")
    parser.add_argument("--out", type=Path, help="results (the folder of the study's file)")
    parser.add_argument("--list", action="store_true", help="the cells, which of them are done, and their commands")
    return parser


if __name__ == "__main__":
    sys.exit(main())
