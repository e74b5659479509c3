"""Score a hand model on a dataset, or an existing pred.json against the official ground truth.

    python tools/eval.py --model runs/mine --data freihand --data-root FreiHAND_pub_v2
    python tools/eval.py --model embedded --data synthetic DATA.SYNTHETIC_EVAL_SIZE 128
    python tools/eval.py --pred pred.json --gt FreiHAND_pub_v2_eval --out runs/official

A model is embedded, hamer, wilor, a student's file or a run directory. Writes scores.json, the official submission
(pred.json of FreiHAND and HO-3D, results.txt of DexYCB; keypoints.json for HInt) and pictures/cases.png with the worst
and the typical cases. Trailing KEY VALUE pairs change the configuration.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

from fasthamer.config import load_config
from fasthamer.tools import cli


def main(argv: list[str] | None = None) -> int:
    """0 done, 1 failed, 2 the user's mistake."""
    parser = _parser()
    arguments, overrides = cli.parse(parser, argv)
    if bool(arguments.model) == bool(arguments.pred) or bool(arguments.pred) != bool(arguments.gt):
        parser.error("give --model, or --pred with --gt")

    from fasthamer.distill.scoring import prepare, score_model, table
    from fasthamer.distill.submission import score_file
    from fasthamer.files.atomic import write_json

    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *place, **more: print(f"eval: warning: {message}", file=sys.stderr)
        try:
            cfg = load_config(None, overrides)
            out = arguments.out or _default_out(arguments.model or arguments.pred, cfg)
            if arguments.pred:
                scores = score_file(arguments.pred, arguments.gt, cfg, arguments.protocol, arguments.joints)
                write_json(out / "scores.json", scores)
            else:
                rules = arguments.protocol, arguments.joints
                evaluation = prepare(cfg, arguments.model, arguments.mano, *rules, arguments.hard_tokens)
        except cli.MISTAKES as error:
            parser.error(cli.one_line(error))
        try:
            scores = scores if arguments.pred else score_model(evaluation, out)
        except (ValueError, OSError) as error:  # a damaged image, a model that predicts NaN, a full disk
            return cli.failed("eval", error)
    print(table(scores))
    print(f"written to {out}")
    return 0


def _default_out(source: str | Path, cfg) -> Path:
    from fasthamer.data.build import dataset_name

    source = Path(source)
    name = f"{dataset_name(cfg)}-{cfg.DATA.EVAL_SPLIT}"
    return source / "eval" / name if source.is_dir() else Path("runs") / "eval" / source.stem / name


def _parser() -> argparse.ArgumentParser:
    parser = cli.command("eval", __doc__)
    parser.add_argument("--model", help="embedded, hamer, wilor, a student's file or run, Fast-HaMeR's .ckpt")
    parser.add_argument("--mano", help="the MANO file the student was trained with, if one was")
    cli.add_flags(parser, "--data", "--data-root", "--split", "--device", "--teacher-ckpt")
    parser.add_argument("--protocol", default="auto", help="auto, freihand, dexycb, ho3d or hint")
    parser.add_argument("--joints", default="auto", help="what the labels mean by a joint: auto, hamer, freihand, ...")
    parser.add_argument(
        "--hard-tokens", action="store_true", help="of a token student, the likeliest codes instead of their mixture"
    )
    parser.add_argument("--pred", type=Path, help="score this pred.json, results.txt or keypoints.json, not a model")
    parser.add_argument(
        "--gt", type=Path, help="for --pred: folder with SPLIT_xyz.json, DexYCB's root, or HaMeR's HInt .npz"
    )
    parser.add_argument("--out", type=Path, help="folder for the results (RUN/eval/... or runs/eval/...)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
