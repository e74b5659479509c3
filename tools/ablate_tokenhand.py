"""TokenHand's ablations, small: a tokenizer and a student for each point, the paper's figures beside ours.

    python tools/ablate_tokenhand.py
    python tools/ablate_tokenhand.py --steps 2400 --student-steps 2000 --only default,layers_1,layers_2
    python tools/ablate_tokenhand.py --list

Each tokenizer trains on the embedded hand, then a student is trained to predict its tokens from synthetic images; the
token generators are compared with the default tokenizer. Stopped halfway or failed in part, the same command goes on
from there. Trailing KEY VALUE pairs are settings of all of them.
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

    from fasthamer.distill.ablation import Plan, ablate, check, estimate
    from fasthamer.distill.ablation_points import chosen_points, listing
    from fasthamer.distill.ablation_report import write_report
    from fasthamer.training.interrupt import InterruptHandler
    from fasthamer.training.log import duration

    if arguments.list:
        print(listing())
        return 0
    try:
        points = chosen_points(arguments.only.split(",") if arguments.only else [])
        plan = Plan(
            arguments.out.resolve(), points, arguments.steps, arguments.student_steps, arguments.jobs, overrides
        )
        check(plan)
    except cli.MISTAKES as error:
        parser.error(cli.one_line(error))
    students = f" and a student of {plan.student_steps}" if plan.student_steps else ""
    print(f"{len(points)} points: a tokenizer of {plan.steps} steps{students}, {plan.jobs} at a time, in {plan.out}")
    print(f"about {duration(estimate(plan))} on two cores for what is not finished yet", flush=True)
    failed = []
    try:
        with InterruptHandler() as interrupt:
            for result in ablate(plan, interrupt, partial(print, flush=True)):
                write_report(plan)
                failed += [result.job.name] if result.trouble else []
        print(f"\n{write_report(plan)}\nthe same, with curves, in {plan.out / 'ablation.md'}")
    except OSError as error:  # no permission, a full disk
        return cli.failed("ablate_tokenhand", error)
    if failed or interrupt.requested:
        what = f"not finished: {', '.join(failed)}" if failed else "stopped"
        print(f"ablate_tokenhand: {what}; the same command goes on from there", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = cli.command("ablate_tokenhand", __doc__)
    parser.add_argument("--steps", type=int, default=250, help="of a tokenizer's training (%(default)s)")
    parser.add_argument("--student-steps", type=int, default=250, help="of a student's; 0 = none (%(default)s)")
    parser.add_argument("--only", default="", metavar="NAMES", help="points, separated by commas")
    parser.add_argument("--jobs", type=int, default=min(2, usable_cores()), help="at a time (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"), help="(%(default)s)")
    parser.add_argument("--list", action="store_true", help="what there is to compare, with the paper's figures")
    return parser


if __name__ == "__main__":
    sys.exit(main())
