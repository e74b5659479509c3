"""Train TokenHand's first stage: a codebook of hand parts and a decoder from its words to a mesh.

    python tools/train_tokenizer.py
    python tools/train_tokenizer.py --mano MANO_RIGHT.pkl --out runs/tokenizer_mano
    python tools/train_tokenizer.py --poses data --data freihand --data-root FreiHAND_pub_v2 --mano MANO_RIGHT.pkl
    python tools/train_tokenizer.py --out runs/tokenizer --resume

Then: python tools/distill.py --decoder token STUDENT.TOKENIZER runs/tokenizer/tokenizer.safetensors
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fasthamer.config import load_config
from fasthamer.training.run_dir import resumed_config

FLAGS = {  # flag: (config key, help)
    "--poses": ("TOKENIZER.POSES", "sampled, data (the labels of --data), or an .npz of hand_pose and betas"),
    "--data": ("DATA.NAME", "with --poses data: freihand, dexycb, ho3d, ..., or a mix.yaml"),
    "--data-root": ("DATA.ROOT", "the dataset's folder"),
    "--mano": ("HAND.MODEL", "MANO_RIGHT.pkl, a converted .npz or hamer.ckpt; else the embedded hand"),
    "--frame": ("TOKENIZER.FRAME", "palm or camera"),
    "--steps": ("TRAIN.STEPS", "optimizer steps"),
}
DEFAULT = "tokenizer/default"


def main(argv: list[str] | None = None) -> int:
    """0 done, 1 failed or interrupted, 2 the user's mistake."""
    parser = _parser()
    arguments, overrides = parser.parse_known_args(argv)
    for flag, (key, _) in FLAGS.items():
        value = getattr(arguments, flag[2:].replace("-", "_"))
        overrides += [] if value is None else [key, value]
    run = arguments.out

    from fasthamer.distill.tokenizer import FILE, prepare_tokenizer, train_tokenizer
    from fasthamer.training.interrupt import Interrupted

    try:
        if arguments.resume and arguments.config:
            raise ValueError("--resume goes on with the run's own config.yaml: leave --config out")
        recipe = arguments.config or DEFAULT
        cfg = resumed_config(run, overrides) if arguments.resume else load_config(recipe, overrides)
        prepared = prepare_tokenizer(cfg, run, arguments.resume)
    except (ValueError, KeyError, FileNotFoundError, ImportError) as error:
        parser.error(str(error.args[0] if isinstance(error, KeyError) else error))
    speaks = prepared.trainer.accelerator.is_main_process
    if speaks:
        print(prepared.announcement, flush=True)
        if prepared.resume_from:
            print(f"resumed from {prepared.resume_from}", flush=True)
    try:
        scores = train_tokenizer(prepared)
    except Interrupted as stopped:
        if speaks:
            print(f"{stopped}; go on with: python tools/train_tokenizer.py --out {run} --resume", file=sys.stderr)
        return 1
    except (FloatingPointError, OSError) as error:
        print(f"train_tokenizer: {error}", file=sys.stderr)
        return 1
    if speaks:
        print(
            f"{run / FILE}: PA-MPVPE {scores['pa_mpvpe_mm']:.2f} mm, MPVPE {scores['mpvpe_mm']:.2f} mm on "
            f"{scores['n']} held-out hands; {scores['codes_used_share']:.0%} of the codes in use"
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="train_tokenizer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for flag, (key, text) in FLAGS.items():
        parser.add_argument(flag, help=f"{text} ({key})")
    parser.add_argument("--config", help=f"a recipe: a YAML file, or the name of a shipped one ({DEFAULT})")
    parser.add_argument("--out", type=Path, default=Path("runs/tokenizer"), help="the run directory (%(default)s)")
    parser.add_argument("--resume", action="store_true", help="continue the run from its last complete checkpoint")
    return parser


if __name__ == "__main__":
    sys.exit(main())
