"""Score a hand model on a dataset, or an existing pred.json against the official ground truth.

    python tools/eval.py --model runs/mine --data freihand --data-root FreiHAND_pub_v2
    python tools/eval.py --model embedded --data synthetic DATA.SYNTHETIC_EVAL_SIZE 128
    python tools/eval.py --model runs/a --model runs/b --data synthetic --data freihand --data-root DIR --report
    python tools/eval.py --pred pred.json --gt FreiHAND_pub_v2_eval --out runs/official

A model is embedded, hamer, wilor, a student's file or a run directory. Writes scores.json, the official submission
(pred.json of FreiHAND and HO-3D, results.txt of DexYCB; keypoints.json for HInt) and pictures/cases.png with the worst
and the typical cases; scores.csv; with --report also report.html. Each --data begins a dataset, to which --data-root
and --split belong; each model and dataset then has a folder of its own. Trailing KEY VALUE pairs change the
configuration of all.
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
    if arguments.pred and (arguments.report or len(arguments.sets) > 1):
        parser.error("--pred is one dataset's, and its images are not read: leave out --report and give --data once")

    from fasthamer.distill.evaluations import prepare_all, score_all
    from fasthamer.distill.score_table import comparison_table, csv_text, table
    from fasthamer.distill.scoring import open_for_scoring
    from fasthamer.distill.submission import score_file
    from fasthamer.files.atomic import write_json, write_text

    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *place, **more: print(f"eval: warning: {message}", file=sys.stderr)
        try:
            cfgs = [load_config(None, [*overrides, *each]) for each in arguments.sets]
            out = arguments.out or _default_out(arguments.model or [arguments.pred], cfgs)
            rules = arguments.protocol, arguments.joints
            if arguments.pred:
                rows = [score_file(arguments.pred, arguments.gt, cfgs[0], *rules)]
                write_json(out / "scores.json", rows[0])
                write_text(out / "scores.csv", csv_text(rows))
            else:
                hard = arguments.hard_tokens
                models = {
                    f"{source} (hard tokens)" if hard else source: open_for_scoring(
                        cfgs[0], source, arguments.mano, hard
                    )
                    for source in arguments.model
                }
                grid = prepare_all(cfgs, models, *rules)
        except cli.MISTAKES as error:
            parser.error(cli.one_line(error))
        try:
            rows = rows if arguments.pred else score_all(grid, out, arguments.report)
        except (ValueError, OSError) as error:  # a damaged image, a model that predicts NaN, a full disk
            return cli.failed("eval", error)
    if not rows:
        return 0  # the main process has them
    print(table(rows[0]) if len(rows) == 1 else comparison_table(rows))
    print(f"written to {out}")
    return 0


class _OfSet(argparse.Action):
    """`--data` begins a dataset; `--data-root` and `--split` belong to the one before them."""

    def __call__(self, parser, namespace, value, option_string=None) -> None:
        key, sets = self.dest, namespace.sets
        if key in sets[-1][::2]:
            if key != "DATA.NAME":
                parser.error(f"{option_string} comes twice for one dataset: give --data before each")
            sets.append([])
        sets[-1] += [key, value]


def _default_out(sources: list[str | Path], cfgs: list) -> Path:
    from fasthamer.data.build import dataset_name

    if len(sources) > 1:
        return Path("runs") / "eval" / "comparison"
    source = Path(sources[0])
    folder = source / "eval" if source.is_dir() else Path("runs") / "eval" / source.stem
    name = f"{dataset_name(cfgs[0], train=False)}-{cfgs[0].DATA.EVAL_SPLIT}"
    return folder if len(cfgs) > 1 else folder / name


def _parser() -> argparse.ArgumentParser:
    parser = cli.command("eval", __doc__)
    parser.set_defaults(sets=[[]])  # `KEY VALUE ...` of each dataset
    parser.add_argument(
        "--model",
        action="append",
        help="embedded, hamer, wilor, a student's file or run, Fast-HaMeR's .ckpt; give it several times to compare",
    )
    parser.add_argument("--mano", help="the MANO file the students were trained with, if one was")
    cli.add_flags(parser, "--data", "--data-root", "--split", action=_OfSet)
    cli.add_flags(parser, "--device", "--teacher-ckpt")
    parser.add_argument("--protocol", default="auto", help="auto, freihand, dexycb, ho3d or hint")
    parser.add_argument("--joints", default="auto", help="what the labels mean by a joint: auto, hamer, freihand, ...")
    parser.add_argument(
        "--hard-tokens", action="store_true", help="of a token student, the likeliest codes instead of their mixture"
    )
    parser.add_argument("--report", action="store_true", help="write report.html: charts, samples and 3D meshes")
    parser.add_argument("--pred", type=Path, help="score this pred.json, results.txt or keypoints.json, not a model")
    parser.add_argument(
        "--gt", type=Path, help="for --pred: folder with SPLIT_xyz.json, DexYCB's root, or HaMeR's HInt .npz"
    )
    parser.add_argument("--out", type=Path, help="folder for the results (RUN/eval/... or runs/eval/...)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
