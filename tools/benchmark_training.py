"""Time a step of distillation against the naive loop, interleaved, and measure its peak memory.

    python tools/benchmark_training.py
    python tools/benchmark_training.py --student resnet50 --depth 32 --out bench TRAIN.BATCH 16

The naive loop is the reference's: fp32, and in hybrid mode two passes of the teacher. The teacher has HaMeR's shape and
random weights; on a CPU it has 8 of the 32 blocks unless --depth is given, which the output states.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from fasthamer.benchmark.timing import machine
from fasthamer.config import load_config
from fasthamer.device import pick_device
from fasthamer.distill.training_speed import LOOPS, MEANING, WHOLE_DEPTH, Row, measure, peak_mb, table
from fasthamer.files.atomic import check_writable, write_json
from fasthamer.registry import unknown
from fasthamer.tools import cli

STAND_IN_DEPTH = 8  # blocks, on a CPU


def main(argv: list[str] | None = None) -> int:
    """0 done, 1 failed, 2 the user's mistake."""
    parser = _parser()
    arguments, overrides = cli.parse(parser, argv)
    modes, loops = arguments.modes.split(","), arguments.loops.split(",")
    try:
        cfg = load_config(None, overrides)
        device = pick_device(cfg.DEVICE)
        for loop in loops:
            if loop not in LOOPS:
                raise KeyError(unknown("loop", loop, LOOPS))
        depth = arguments.depth or (WHOLE_DEPTH if device.type == "cuda" else STAND_IN_DEPTH)
        if arguments.peak_of:
            print(peak_mb(cfg, modes[0], loops[0], depth, arguments.peak_of))
            return 0
        if arguments.out:
            check_writable(arguments.out)
        rows: list[Row] = []
        with tempfile.TemporaryDirectory() as caches:
            for mode in modes:
                measured = measure(cfg, mode, loops, depth, Path(caches), arguments.repeats, arguments.seconds)
                for row in measured:
                    peak = 0.0 if arguments.no_memory else _peak(row, depth, caches, overrides)
                    rows.append(row._replace(peak_mb=peak))
                    print(table(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
        whole = "all" if depth == WHOLE_DEPTH else "stand-in:"
        about = {
            **machine(device),
            "student": f"{cfg.STUDENT.NAME}, decoder {cfg.STUDENT.DECODER} {cfg.STUDENT.DECODER_SIZE}",
            "teacher": f"HaMeR's shape, random weights, {whole} {depth} of {WHOLE_DEPTH} blocks",
            "batch": cfg.TRAIN.BATCH,
        }
        print("\n".join(f"{key}: {value}" for key, value in about.items()))
        print(f"\n{MEANING}\n\n{table(rows)}")
        if arguments.out:
            write_json(arguments.out / "training.json", {"about": about, "rows": [row._asdict() for row in rows]})
    except cli.MISTAKES as error:
        parser.error(cli.one_line(error))
    except OSError as error:  # no permission, a full disk
        return cli.failed("benchmark_training", error)
    return 0


def _peak(row: Row, depth: int, caches: str, overrides: list[str]) -> float:
    """1e6 bytes, measured in a separate process."""
    command = [sys.executable, "-m", "fasthamer.tools.benchmark_training", "--peak-of", caches, "--modes", row.mode]
    command += ["--loops", row.loop, "--depth", str(depth), *overrides]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def _parser() -> argparse.ArgumentParser:
    parser = cli.command("benchmark_training", __doc__)
    cli.add_flags(parser, "--student")
    parser.add_argument("--modes", default="hybrid,output,feature", help="values of KD.MODE (%(default)s)")
    parser.add_argument(
        "--loops", default="naive,once,once_bf16,cached", help=f"of {', '.join(LOOPS)}; ratios are to the first"
    )
    parser.add_argument("--depth", type=int, default=0, help="blocks of the teacher (32 on cuda, else 8)")
    parser.add_argument("--repeats", type=int, default=20, help="rounds (%(default)s)")
    parser.add_argument("--seconds", type=float, default=300.0, help="for each mode, at least 3 rounds (%(default)s)")
    parser.add_argument("--no-memory", action="store_true", help="leave out the processes that measure peak memory")
    parser.add_argument("--out", type=Path, help="folder for training.json")
    parser.add_argument("--peak-of", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
