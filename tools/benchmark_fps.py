"""Time hand models against each other: per stage, with parameters, arithmetic and memory.

    python tools/benchmark_fps.py --models embedded,mobilenetv3_l,resnet50 --batch 1,8 --stages
    python tools/benchmark_fps.py --models hamer,runs/mine --device cuda --precision fp16 --out runs/speed

A model is hamer, embedded, a student's file, a run directory, or a student's name: then its weights are random, which
changes nothing about its speed, and the table says so. The first teacher named (else the first model) is what the
ratios compare with.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """0 done, 1 failed, 2 the user's mistake."""
    parser = _parser()
    arguments = parser.parse_args(argv)

    import torch

    from fasthamer.distill.contestants import contestants
    from fasthamer.runtime.benchmark import Setting, benchmark, markdown, write
    from fasthamer.runtime.device import pick_device
    from fasthamer.runtime.timing import machine

    try:
        device = pick_device(arguments.device)
        batches = [_positive(text) for text in arguments.batch.split(",")]
        if arguments.threads:
            torch.set_num_threads(_positive(arguments.threads))
        if arguments.backends != "torch":
            raise ValueError(f"--backends {arguments.backends}: only torch is there so far")
        if arguments.precision == "fp16" and device.type == "cpu":
            raise ValueError("--precision fp16 needs a GPU; on a CPU choose fp32 or bf16")
        names = [name for name in arguments.models.split(",") if name]
        models, teacher = contestants(names, arguments.mano, arguments.teacher_ckpt, arguments.decoder_size, device)
        setting = Setting(
            device, arguments.precision, _positive(arguments.repeats), arguments.seconds, arguments.stages
        )
    except (ValueError, KeyError, FileNotFoundError) as error:
        parser.error(str(error.args[0] if error.args else error))
    rows = benchmark(models, batches, setting, teacher, lambda line: print(line, file=sys.stderr))
    write(arguments.out, rows, machine(device))
    print(markdown(rows, machine(device)))
    print(f"written to {arguments.out}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmark_fps", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--models", required=True, help="comma-separated")
    add("--backends", default="torch", help="torch")
    add("--device", default="auto", help="auto = cuda, then mps, then cpu")
    add("--batch", default="1", help="comma-separated batch sizes")
    add("--stages", action="store_true", help="time crop, backbone, head and mesh too")
    add("--precision", default="fp32", choices=("fp32", "bf16", "fp16"), help="by autocast")
    add("--repeats", default="30", help="timed calls of each")
    add("--seconds", type=float, default=60.0, help="stop a batch size after this long, however few repeats")
    add("--threads", help="of torch on the CPU")
    add("--decoder-size", default="full", help="of students given by name: full, medium, small or tiny")
    add("--mano", help="MANO_RIGHT.pkl or the like, if a student was trained with it")
    add("--teacher-ckpt", default="", help="hamer.ckpt; without it HaMeR is timed with random weights")
    add("--out", type=Path, default=Path("runs/benchmark"), help="folder for benchmark.json, .csv and .md")
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"{text!r} is not a whole number above 0")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
