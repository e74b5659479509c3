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

from yacs.config import CfgNode

from fasthamer.config import load_config
from fasthamer.training.run_dir import resumed_config

FLAGS = {  # flag: (config key, help)
    "--student": ("STUDENT.NAME", "see --list, or timm:<name>"),
    "--decoder": ("STUDENT.DECODER", "mano (HaMeR's), flat, or token (TokenHand's)"),
    "--tokenizer": ("STUDENT.TOKENIZER", "of the decoder token: a tokenizer.safetensors; else the embedded hand's"),
    "--decoder-size": ("STUDENT.DECODER_SIZE", "full (HaMeR's own), medium, small or tiny"),
    "--kd": ("KD.MODE", "none, output, feature or hybrid"),
    "--teacher": ("TEACHER.NAME", "auto, hamer, wilor, embedded, or a student's file"),
    "--teacher-ckpt": ("TEACHER.CHECKPOINT", "hamer.ckpt or wilor_final.ckpt"),
    "--teacher-cache": ("TEACHER.CACHE", "folder of the teacher's answers, filled where it is incomplete"),
    "--data": ("DATA.NAME", "auto, synthetic, freihand, dexycb, ho3d, ...: see docs/datasets.md; or a mix.yaml"),
    "--data-root": ("DATA.ROOT", "the dataset's folder"),
    "--mano": ("HAND.MODEL", "MANO_RIGHT.pkl, a converted .npz or a teacher's checkpoint; else the teacher's own"),
    "--init": ("STUDENT.INIT", "a student.safetensors to start from"),
    "--steps": ("TRAIN.STEPS", "optimizer steps"),
}


def main(argv: list[str] | None = None) -> int:
    """0 done, 1 failed or interrupted, 2 the user's mistake."""
    parser = _parser()
    arguments, overrides = parser.parse_known_args(argv)
    for flag, (key, _) in FLAGS.items():
        value = getattr(arguments, flag[2:].replace("-", "_"))
        overrides += [] if value is None else [key, value]
    if arguments.list:
        from fasthamer.students.zoo import list_students, student_table

        print(student_table(list_students(decoder_size=arguments.decoder_size or "full")))
        return 0

    from fasthamer.data.loader import BadSample
    from fasthamer.distill.run import execute, prepare
    from fasthamer.training.interrupt import Interrupted

    try:
        cfg, run = _settings(arguments, overrides)
        prepared = prepare(cfg, run, arguments.resume)
    except (ValueError, KeyError, FileNotFoundError) as error:
        parser.error(str(error.args[0] if isinstance(error, KeyError) else error))
    speaks = prepared.trainer.accelerator.is_main_process
    if speaks:
        print(prepared.announcement, flush=True)
        if prepared.resume_from:
            print(f"resumed from {prepared.resume_from}", flush=True)
    try:
        scores = execute(prepared)
    except Interrupted as stopped:
        if speaks:
            print(f"{stopped}; go on with: python tools/distill.py --out {run} --resume", file=sys.stderr)
        return 1
    except (FloatingPointError, BadSample, OSError) as error:
        print(f"distill: {error}", file=sys.stderr)
        return 1
    if speaks:
        millimetres = ", ".join(f"{name} {value:.2f}" for name, value in scores.items() if name.endswith("_mm"))
        print(f"{run / 'student.safetensors'}: {millimetres}")
    return 0


def _settings(arguments: argparse.Namespace, overrides: list[str]) -> tuple[CfgNode, Path]:
    """The resolved config and the run directory."""
    if arguments.resume and arguments.config:
        raise ValueError("--resume goes on with the run's own config.yaml: leave --config out")
    cfg, run = load_config(arguments.config, overrides), arguments.out
    if run is None:
        run = Path("runs") / f"{cfg.STUDENT.NAME}_{cfg.STUDENT.DECODER}_{cfg.KD.MODE}".replace(":", "_")
    if not arguments.resume:
        return cfg, run
    return resumed_config(run, overrides), run


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="distill", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    for flag, (key, text) in FLAGS.items():
        parser.add_argument(flag, help=f"{text} ({key})")
    parser.add_argument("--config", help="a recipe: a YAML file, or the name of a shipped one")
    parser.add_argument("--out", type=Path, help="the run directory (runs/<student>_<decoder>_<kd>)")
    parser.add_argument("--resume", action="store_true", help="continue the run from its last complete checkpoint")
    parser.add_argument("--list", action="store_true", help="print the students and what they cost")
    return parser


if __name__ == "__main__":
    sys.exit(main())
