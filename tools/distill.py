"""Distil a hand-mesh teacher into a light student.

    python tools/distill.py --student mobilenetv3_l --kd hybrid --steps 1000
    python tools/distill.py --student resnet50 --kd output --teacher hamer --teacher-ckpt hamer.ckpt \
        --data freihand --data-root FreiHAND_pub_v2 --mano MANO_RIGHT.pkl TRAIN.BATCH 32
    python tools/distill.py --out runs/mine --resume
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from fasthamer.config import load_config
from fasthamer.tools import cli
from fasthamer.training.run_dir import config_of

FLAGS = (
    *("--student", "--decoder", "--tokenizer", "--decoder-size", "--kd", "--teacher", "--teacher-ckpt"),
    *("--teacher-cache", "--data", "--data-root", "--mano", "--init", "--steps"),
)


def main(argv: list[str] | None = None) -> int:
    """0 done or terminated, 1 failed or interrupted, 2 the user's mistake."""
    parser = _parser()
    arguments, overrides = cli.parse(parser, argv)
    if arguments.list:
        from fasthamer.students.zoo import list_students, student_table

        try:
            print(student_table(list_students(decoder_size=getattr(arguments, "STUDENT.DECODER_SIZE") or "full")))
        except KeyError as error:
            parser.error(cli.one_line(error))
        return 0

    from fasthamer.distill.preparation import prepare
    from fasthamer.distill.run import execute

    try:
        cfg, run = _settings(arguments, overrides)
        prepared = prepare(cfg, run, arguments.resume)
    except cli.MISTAKES as error:
        parser.error(cli.one_line(error))
    return cli.carry_out("distill", prepared, execute, lambda scores: _result(run, scores))


def _result(run: Path, scores: dict[str, Any]) -> str:
    millimetres = ", ".join(f"{name} {value:.2f}" for name, value in scores.items() if name.endswith("_mm"))
    crops = f"on {scores['n']} crops of {scores['image_size']} pixels"
    return f"{run / 'student.safetensors'}: {millimetres} {crops}"


def _settings(arguments: argparse.Namespace, overrides: list[str]) -> tuple[CfgNode, Path]:
    """The resolved config and the run directory."""
    run = arguments.out
    if run is None:
        student = load_config(arguments.config, overrides)
        run = Path("runs") / f"{student.STUDENT.NAME}_{student.STUDENT.DECODER}_{student.KD.MODE}".replace(":", "_")
    return config_of(run, arguments.config, overrides, arguments.resume), run


def _parser() -> argparse.ArgumentParser:
    parser = cli.command("distill", __doc__)
    cli.add_flags(parser, *FLAGS)
    parser.add_argument("--config", help="a recipe: a YAML file, or the name of a shipped one")
    parser.add_argument("--out", type=Path, help="the run directory (runs/<student>_<decoder>_<kd>)")
    parser.add_argument("--resume", action="store_true", help="continue the run, if it has begun")
    parser.add_argument("--list", action="store_true", help="print the students and what they cost")
    return parser


if __name__ == "__main__":
    sys.exit(main())
