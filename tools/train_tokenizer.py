"""Train TokenHand's first stage: a codebook of hand parts and a decoder from its tokens to a mesh.

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
from typing import Any

from fasthamer.tools import cli
from fasthamer.training.run_dir import config_of

DEFAULT = "tokenizer/default"


def main(argv: list[str] | None = None) -> int:
    """0 done or terminated, 1 failed or interrupted, 2 the user's mistake."""
    parser = _parser()
    arguments, overrides = cli.parse(parser, argv)
    run = arguments.out

    from fasthamer.distill.tokenizer import FILE, prepare_tokenizer, train_tokenizer

    try:
        cfg = config_of(run, arguments.config, overrides, arguments.resume, DEFAULT)
        prepared = prepare_tokenizer(cfg, run, arguments.resume)
    except (*cli.MISTAKES, ImportError) as error:
        parser.error(cli.one_line(error))
    return cli.carry_out("train_tokenizer", prepared, train_tokenizer, lambda scores: _result(run / FILE, scores))


def _result(path: Path, scores: dict[str, Any]) -> str:
    return (
        f"{path}: PA-MPVPE {scores['pa_mpvpe_mm']:.2f} mm, MPVPE {scores['mpvpe_mm']:.2f} mm on "
        f"{scores['n']} held-out hands; {scores['codes_used_share']:.0%} of the codes in use"
    )


def _parser() -> argparse.ArgumentParser:
    parser = cli.command("train_tokenizer", __doc__)
    cli.add_flags(parser, "--poses", "--data", "--data-root", "--mano", "--frame", "--steps")
    parser.add_argument("--config", help=f"a recipe: a YAML file, or the name of a shipped one ({DEFAULT})")
    parser.add_argument("--out", type=Path, default=Path("runs/tokenizer"), help="the run directory (%(default)s)")
    parser.add_argument("--resume", action="store_true", help="continue the run, if it has begun")
    return parser


if __name__ == "__main__":
    sys.exit(main())
