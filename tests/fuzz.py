"""Gives every reader of the project hostile files: python tests/fuzz.py --inputs 20000

Each reader gets valid files, made by the project's own writers, with parts changed at random: bytes, numbers, the
structure of JSON, text, zip, tar, PNG, safetensors and pickle. It must read them or raise the documented error, one
line that names the file; write nothing outside, execute nothing, and stay within bounds of memory and time.
It needs Linux. Exit status 1: some reader did something else; `--keep FOLDER` keeps one file for each such fault.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process with threads cannot be forked
from fuzzing.sandbox import Report, attack
from fuzzing.targets import TARGETS


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000, help="of all readers together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=[target.name for target in TARGETS], help="these readers")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="for one file of each fault")
    args = parser.parse_args(argv)
    asked = [target for target in TARGETS if args.only is None or target.name in args.only]
    chosen = [target for target in asked if all(map(importlib.util.find_spec, target.needs))]
    for target in asked:
        if target not in chosen:
            print(f"{target.name:16s} left out: it needs {', '.join(target.needs)}")
    total = sum(target.share for target in chosen)
    reports = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        for target in chosen:
            inputs = -(-args.inputs * target.share // total)
            report = attack(target, inputs, args.seed, folder / target.name, args.keep)
            print(_line(report), flush=True)
            for fault in report.faults:
                print(f"    {fault['times']} x {fault['what']}  {fault['where']}  (input {fault['input']})", flush=True)
            reports.append(report)
    print(_line(_sum(reports)))
    return int(any(report.faults for report in reports))


def _line(report: Report) -> str:
    inputs = report.accepted + report.refused + sum(fault["times"] for fault in report.faults)
    return (
        f"{report.name:16s} {inputs:6d} inputs: {report.refused:6d} refused, {report.accepted:6d} read, "
        f"{len(report.faults)} faults; at most {report.peak / 2**20:5.0f} MB, {report.seconds:6.1f} s"
    )


def _sum(reports: list[Report]) -> Report:
    faults = [fault for report in reports for fault in report.faults]
    return Report(
        "all",
        sum(report.accepted for report in reports),
        sum(report.refused for report in reports),
        faults,
        max(report.peak for report in reports),
        sum(report.seconds for report in reports),
    )


if __name__ == "__main__":
    sys.exit(main())
