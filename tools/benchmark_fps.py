"""Time hand models against each other: every backend and precision, with costs and what bounds each.

    python tools/benchmark_fps.py --models hamer,convnext_l,mobilenetv3_l --backends torch,onnxruntime --batch 1,8
    python tools/benchmark_fps.py --models hamer,all-students --backends all --precision fp32,int8 --stages
    python tools/benchmark_fps.py --models hamer,runs/mine --scores hamer=runs/eval/hamer runs/mine=runs/mine/eval
    python tools/benchmark_fps.py --head --batch 1,8

A model is hamer, embedded, a student's file, a run directory, or a student's name. A name alone has random weights,
which does not change its speed; the table marks it. Ratios are to the first teacher named, else to the first model.
--scores adds a chart of accuracy against speed. Writes benchmark.json, .csv and .md.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from fasthamer.tools import cli

if TYPE_CHECKING:
    from fasthamer.benchmark.group import Setting


def main(argv: list[str] | None = None) -> int:
    """0 done, 1 failed, 2 the user's mistake."""
    parser = _parser()
    arguments = parser.parse_args(argv)

    import torch

    from fasthamer.benchmark.heads import benchmark_heads
    from fasthamer.benchmark.plot import points, read_scores
    from fasthamer.benchmark.report import write
    from fasthamer.benchmark.run import Report, benchmark
    from fasthamer.benchmark.timing import machine
    from fasthamer.distill.benchmark_models import BenchmarkRequest, benchmark_models
    from fasthamer.files.atomic import check_writable

    command = shlex.join(["python", "tools/benchmark_fps.py", *(sys.argv[1:] if argv is None else argv)])
    try:
        setting = _setting(arguments)
        torch.set_num_threads(setting.threads)
        about = machine(setting.device)
        if arguments.head:
            check_writable(arguments.out)
            report = Report(benchmark_heads(setting), [], [])
            print(write(arguments.out, report, about, command))
            return 0
        decoders = _listed(arguments.decoder), _listed(arguments.decoder_size)
        request = BenchmarkRequest(_listed(arguments.models), *decoders, arguments.mano, arguments.teacher_ckpt)
        models, teacher = benchmark_models(request, setting.device)
        scores = read_scores(arguments.scores, [(model.name, model.decoder) for model in models])
        single = 1 in setting.batches and "model" in setting.stages and set(setting.precisions) != {"int8"}
        if scores and not single:
            raise ValueError(
                "--scores draws speeds of single images, none in int8, whose predictions were not scored: time the "
                "stage model with --batch 1 and --precision fp32"
            )

        def keep(report: Report) -> None:  # after each model and batch, so that a stopped run leaves results
            write(arguments.out, report, about, command)

        check_writable(arguments.out)
        report = benchmark(models, setting, teacher, lambda line: print(line, file=sys.stderr), keep)
        print(write(arguments.out, report, about, command, points(report.rows, scores)))
    except cli.MISTAKES as error:
        parser.error(cli.one_line(error))
    except OSError as error:  # no permission, a full disk
        return cli.failed("benchmark_fps", error)
    print(f"written to {arguments.out}")
    return 0


def _setting(arguments: argparse.Namespace) -> Setting:
    """
    Raises:
        ValueError, KeyError: an invalid value; the message has what is expected.
    """
    import torch

    from fasthamer.benchmark.group import Setting
    from fasthamer.benchmark.peaks import BYTES
    from fasthamer.benchmark.run import STAGES
    from fasthamer.device import pick_device
    from fasthamer.runtime.sessions import BACKENDS

    asked = {*_listed(arguments.backends), *_listed(arguments.precision)} - {"all"}
    return Setting(
        device=pick_device(arguments.device),
        threads=_number(arguments.threads or str(torch.get_num_threads())),
        backends=_chosen("backend", arguments.backends, BACKENDS),
        precisions=_chosen("precision", arguments.precision, BYTES),
        batches=tuple(_number(text) for text in _listed(arguments.batch)),
        stages=_chosen("stage", arguments.stages, STAGES),
        rounds=_number(arguments.rounds),
        seconds=_seconds(arguments.seconds),
        must=tuple(sorted(asked)),
        peak_sides=tuple(_number(text) for text in _listed(arguments.peak_sides)),
        peak_mb=tuple(_number(text) for text in _listed(arguments.peak_mb)),
    )


def _parser() -> argparse.ArgumentParser:
    parser = cli.command("benchmark_fps", __doc__)
    add = parser.add_argument
    add("--models", default="", help="comma-separated; all-students is every student's name")
    add("--decoder", default="mano", help="of students given by name: mano, flat, token, comma-separated")
    add(
        "--decoder-size",
        default="full",
        help="of these students: full, medium, small, tiny, comma-separated; token has one size",
    )
    add("--backends", default="torch", help="comma-separated; all = those that work here")
    add("--precision", default="fp32", help="fp32, bf16, fp16, int8, comma-separated; all = those that work here")
    add("--device", default="auto", help="auto = cuda, then mps, then cpu")
    add("--batch", default="1", help="comma-separated batch sizes; in the stage frame, hands in one image")
    add(
        "--stages",
        nargs="?",
        const="all",
        default="model",
        help="comma-separated: decode, crop, backbone, head, mesh, model (crop to mesh), whole, frame; no value: all",
    )
    add("--head", action="store_true", help="only HaMeR's decoder, folded against unfolded")
    add("--scores", nargs="+", default=[], metavar="NAME=PATH", help="scores.json of models, for the chart (not int8)")
    add("--rounds", default="15", help="blocks of calls of each row")
    add("--seconds", default="5", help="for each row; stops earlier than --rounds, but not before 3")
    add("--threads", help="on the CPU, of every backend and of the peaks; by default torch's choice")
    add("--peak-sides", default="", help="comma-separated sides of the matrix products that measure the machine's peak")
    add(
        "--peak-mb",
        default="",
        help="comma-separated sizes of the matrices that measure its memory bandwidth, 1e6 bytes",
    )
    add("--mano", help="MANO_RIGHT.pkl or the like, if a student was trained with it")
    add(
        "--teacher-ckpt",
        default="",
        help="hamer.ckpt or wilor_final.ckpt; without it these teachers are timed with random weights",
    )
    add("--out", type=Path, default=Path("runs/benchmark"), help="folder for the results")
    return parser


def _listed(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _chosen(kind: str, text: str, known: Iterable[str]) -> tuple[str, ...]:
    """Names out of a comma-separated list, in the order of `known`; all of them for `all`."""
    from fasthamer.registry import unknown

    names = list(known) if text == "all" else _listed(text)
    for name in names:
        if name not in known:
            raise KeyError(unknown(kind, name, [*known, "all"]))
    return tuple(name for name in known if name in names)


def _number(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"{text!r} is not a whole number above 0")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ValueError(f"--seconds {text}: expected a number above 0")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
