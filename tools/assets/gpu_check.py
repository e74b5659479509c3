"""Check and time everything that runs on a GPU, and write the page docs/benchmarks/gpu.md: one command, 6 minutes.

    python tools/assets/gpu_check.py
    python tools/assets/gpu_check.py --device cuda:1 --minutes 10 --parts hamer,training --out runs/gpu.md
    python tools/assets/gpu_check.py --device cpu --tiny --minutes 3 --out runs/gpu.md

Every backend and precision is compared with the CPU. Needs nothing from the network. Each part is a process of its own,
so that one that crashes or hangs costs the others nothing; a part for which no time is left is listed as not measured.
The last command tries the script without a GPU, on small stand-ins for HaMeR and ConvNeXt-L.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fasthamer.device import pick_device
from fasthamer.files.atomic import write_text
from fasthamer.registry import unknown
from fasthamer.tools import cli
from fasthamer.tools.assets.gpu.page import about_machine, page
from fasthamer.tools.assets.gpu.parts import PARTS, Plan
from fasthamer.tools.assets.gpu.record import LeftOut, Record, as_json, from_json

PAGE = Path("docs/benchmarks/gpu.md")
ENDING = 8.0  # seconds kept for the end of a part's process: no row is begun in them
LEAST = 15.0  # seconds; with less a part is not begun

Measure = Callable[[str, float], list[Record]]  # a part's name and its seconds


def main(argv: list[str] | None = None) -> int:
    """0 everything measured fits, 1 something does not, 2 the user's mistake."""
    began = time.monotonic()
    parser = _parser()
    arguments = parser.parse_args(argv)
    names = [name for name in arguments.parts.split(",") if name]
    try:
        device = pick_device(arguments.device)
        for name in names:
            if name not in PARTS:
                raise KeyError(unknown("part", name, PARTS))
        if not arguments.minutes > 0:
            raise ValueError(f"--minutes {arguments.minutes}: expected a number above 0")
    except cli.MISTAKES as error:
        parser.error(cli.one_line(error))
    if arguments.record:
        _record(names[0], Plan(str(device), arguments.tiny), arguments.minutes * 60, arguments.record)
        return 0

    def measure(name: str, seconds: float) -> list[Record]:
        return in_process(name, str(device), arguments.tiny, seconds)

    end = began + arguments.minutes * 60 - ENDING
    records = check(names, measure, arguments.minutes * 60, lambda: end - time.monotonic())
    command = shlex.join(["python", "tools/assets/gpu_check.py", *(sys.argv[1:] if argv is None else argv)])
    write_text(arguments.out, page(records, about_machine(device), command))
    wrong = [record for record in records if not record.fits]
    for record in wrong:
        print(f"wrong: {record}", file=sys.stderr)
    print(f"{arguments.out}: {len(records)} results, {len(wrong)} wrong")
    return 1 if wrong else 0


def check(names: Sequence[str], measure: Measure, seconds: float, left: Callable[[], float]) -> list[Record]:
    """The records of some parts, in their order, within the time that is left.

    Args:
        names: of `PARTS`.
        measure: does one part.
        seconds: for all parts.
        left: seconds of them.
    """
    records: list[Record] = []
    for name in names:
        own = min(PARTS[name].share * seconds, left())
        if own < LEAST:
            records.append(LeftOut(f"part {name}", "no time was left"))
            continue
        print(f"{name}: at most {own:.0f} s", file=sys.stderr, flush=True)
        records += measure(name, own)
    return records


def in_process(name: str, device: str, tiny: bool, seconds: float) -> list[Record]:
    """A part's records, measured in a process of its own, which is ended after some seconds."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "records.jsonl"
        file.touch()
        command = [sys.executable, "-m", "fasthamer.tools.assets.gpu_check", "--parts", name, "--device", device]
        command += ["--minutes", str(seconds / 60), "--record", str(file), *(["--tiny"] if tiny else [])]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        stopped: list[Record] = []
        try:
            done = subprocess.run(
                command,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                timeout=seconds,
            )
            if done.returncode:
                lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
                stopped.append(LeftOut(f"part {name}", lines[-1], is_failure=True))
        except subprocess.TimeoutExpired:
            stopped.append(LeftOut(f"the rest of part {name}", f"it took more than {seconds:.0f} s"))
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        return [from_json(json.loads(line)) for line in lines if line.endswith("\n")] + stopped


def _record(name: str, plan: Plan, seconds: float, file: Path) -> None:
    """Measures a part and appends its records to a file, a line each."""
    end = time.monotonic() + seconds - ENDING
    with file.open("a", encoding="utf-8") as stream:

        def emit(record: Record) -> None:
            print(json.dumps(as_json(record)), file=stream, flush=True)

        PARTS[name].measure(plan._replace(left=lambda: end - time.monotonic()), emit)


def _parser() -> argparse.ArgumentParser:
    parser = cli.command("gpu_check", __doc__)
    add = parser.add_argument
    add("--device", default="cuda", help="a torch device (%(default)s)")
    add("--minutes", type=float, default=6.0, help="for everything (%(default)s)")
    add("--parts", default=",".join(PARTS), help="comma-separated, in this order (%(default)s)")
    add("--tiny", action="store_true", help="stand-ins of the large models, to try the script without a GPU")
    add("--out", type=Path, default=PAGE, help="the page (%(default)s)")
    add("--record", type=Path, help=argparse.SUPPRESS)  # where a part's own process leaves its records
    return parser


if __name__ == "__main__":
    sys.exit(main())
