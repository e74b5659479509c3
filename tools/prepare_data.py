"""Check a dataset in place, pack it into tar shards for training at scale, or label a folder of images with a teacher.

    python tools/prepare_data.py check --data dexycb --data-root DexYCB
    python tools/prepare_data.py check --data hint --data-root HInt_annotation --split TEST_newdays_img_vis
    python tools/prepare_data.py pack --data freihand --data-root FreiHAND_pub_v2 --mano MANO_RIGHT.pkl --out shards
    python tools/prepare_data.py label my_images --out labels --teacher hamer --teacher-ckpt hamer.ckpt

`check` checks that every image file is complete, decodes evenly spaced hands and checks their labels; it changes
nothing. It prints a line for each problem and writes OUT/DATA-SPLIT.png, a sheet of labelled crops. Exit 0 if there are
no problems, else 1. `pack` continues where it was interrupted; its shards are trained on with --data tars. `label`
finds the hands of all images in a folder and writes the teacher's labels; they are trained on with --data labelled. It
continues where it was interrupted, too. Trailing KEY VALUE pairs change the configuration.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from fasthamer.config import load_config
from fasthamer.registry import unknown
from fasthamer.tools import cli

SHOWN = 20  # images and hands that are named when they could not be labelled


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 no problems, 1 problems or failed, 2 a mistake in the arguments."""
    parser = _parser()
    arguments, overrides = cli.parse(parser, argv)
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *place, **more: print(f"prepare_data: warning: {message}", flush=True)
        try:
            cfg = load_config(None, overrides)
            if arguments.command == "label":
                return _label(cfg, arguments)
            hand = _hand(cfg)
        except cli.MISTAKES as error:
            parser.error(cli.one_line(error))
        return {"check": _check, "pack": _pack}[arguments.command](cfg, hand, arguments)


def _check(cfg: CfgNode, hand: Any, arguments: argparse.Namespace) -> int:
    """Checks the splits, prints the results and writes the contact sheets."""
    from fasthamer.data.check import check, contact_sheet, identity
    from fasthamer.data.zoo import TRAINING_ONLY
    from fasthamer.files.images import write_image

    splits = [arguments.split] if arguments.split else [cfg.DATA.SPLIT, cfg.DATA.EVAL_SPLIT]
    if cfg.DATA.NAME in TRAINING_ONLY:
        splits = splits[:1]
    problems, known = 0, set()
    for split in splits:
        try:
            dataset = _open(cfg, split, hand)
        except (ValueError, KeyError, OSError) as error:
            print(f"problem: {split}: {cli.one_line(error)}", flush=True)
            problems += 1
            continue
        if identity(dataset) in known:  # a set without splits
            continue
        known.add(identity(dataset))
        report = check(dataset, arguments.sample)
        for line in report.facts:
            print(f"{split}: {line}")
        for line in report.problems:
            print(f"problem: {split}: {line}")
        problems += len(report.problems)
        page = contact_sheet(report)
        if page is not None:
            path = arguments.out / f"{cfg.DATA.NAME}-{Path(split).stem}.png"
            try:
                write_image(path, page)
            except OSError as error:
                return cli.failed("prepare_data", error)
            print(f"{split}: image in {path}", flush=True)
    print(f"{problems} problem{'' if problems == 1 else 's'}")
    return 1 if problems else 0


def _pack(cfg: CfgNode, hand: Any, arguments: argparse.Namespace) -> int:
    """Packs one split and prints the hands that could not be read."""
    from fasthamer.data.pack import pack

    split = arguments.split or cfg.DATA.SPLIT
    try:
        dataset = _open(cfg, split, hand)
        packed = pack(dataset, arguments.out, f"{cfg.DATA.NAME} {split}", hand.is_embedded, arguments.shard)
    except (ValueError, KeyError, OSError) as error:
        return cli.failed("prepare_data", error)
    for line in packed.skipped:
        print(f"skipped: {line}", file=sys.stderr)
    print(f"{packed.hands} hands in {packed.shards} shards in {arguments.out}, {len(packed.skipped)} skipped")
    return 0


def _label(cfg: CfgNode, arguments: argparse.Namespace) -> int:
    """Labels a folder and prints what was left out.

    Raises:
        KeyError, ValueError, FileNotFoundError: no such folder, teacher, hand or device.
    """
    from fasthamer.data.readers.labelled_files import ABOUT
    from fasthamer.detect.detector import MediaPipeDetector
    from fasthamer.distill.labelling import label, labeller_of

    if not arguments.folder.is_dir():
        raise FileNotFoundError(f"no folder {arguments.folder}: the images to label are searched in a folder")
    detector = MediaPipeDetector(threads=1, tiles=arguments.tiles)
    labeller, about = labeller_of(cfg)
    if "notice" in about:
        print(f"{about['teacher']}: {about['notice']}", flush=True)
    about["tiles"] = arguments.tiles
    sizes = cfg.EVAL.BATCH, cfg.DATA.WORKERS
    try:
        done = label(arguments.folder, arguments.out, labeller, detector, about, arguments.hold_out, *sizes)
    except (ValueError, OSError, ImportError) as error:
        return cli.failed("prepare_data", error)
    for line in done.left_out[:SHOWN]:
        print(f"left out: {line}", file=sys.stderr)
    if len(done.left_out) > SHOWN:
        print(f"left out: {len(done.left_out) - SHOWN} more, see {arguments.out / ABOUT}", file=sys.stderr)
    print(
        f"{done.hands} hands of {done.images} images labelled in {arguments.out}, {done.held_out} of them for "
        f"evaluation; {len(done.left_out)} images or hands left out"
    )
    return 0


def _open(cfg: CfgNode, split: str, hand: Any) -> Any:
    """A split without augmentation; datasets for training only are opened as training sets."""
    from fasthamer.data.augment import UNCHANGED
    from fasthamer.data.build import evaluation_spec, training_spec
    from fasthamer.data.zoo import DATASETS, TRAINING_ONLY

    if cfg.DATA.NAME in TRAINING_ONLY:
        spec = training_spec(cfg)._replace(split=split, strength=UNCHANGED)
    else:
        spec = evaluation_spec(cfg)._replace(name=cfg.DATA.NAME, root=cfg.DATA.ROOT, split=split)
    return DATASETS.build(spec.name, spec, hand)


def _hand(cfg: CfgNode) -> Any:
    """The hand model of the labels, after a check of the arguments.

    Raises:
        KeyError, ValueError, FileNotFoundError: no such dataset, folder or hand.
    """
    from fasthamer.data.zoo import DATASETS
    from fasthamer.hand.mano import load_hand

    if cfg.DATA.NAME not in DATASETS:
        raise KeyError(unknown("dataset", cfg.DATA.NAME, DATASETS))
    if cfg.DATA.NAME not in ("synthetic", "mix") and not Path(cfg.DATA.ROOT or "?").exists():
        raise FileNotFoundError(f"no folder {cfg.DATA.ROOT or 'given'}: --data-root is the dataset's")
    return load_hand("embedded" if cfg.HAND.MODEL == "auto" else cfg.HAND.MODEL)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than one")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = cli.command("prepare_data", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="verify a dataset in place", allow_abbrev=False)
    pack = commands.add_parser("pack", help="write a dataset as tar shards", allow_abbrev=False)
    label = commands.add_parser("label", help="label a folder of images with a teacher", allow_abbrev=False)
    label.add_argument("folder", type=Path, help="of images; the folders in it are searched too")
    cli.add_flags(label, "--teacher", "--teacher-ckpt", "--mano", "--device", required=("--teacher",))
    label.add_argument("--out", type=Path, required=True, help="folder for the labels")
    label.add_argument(
        "--hold-out", default="0.1", help="share of images to evaluate on, or a file that lists them (0.1)"
    )
    label.add_argument(
        "--tiles", type=_positive, default=1, help="also detect in N x N parts of each image: small hands"
    )
    for command in (check, pack):
        cli.add_flags(command, "--data", "--data-root", "--mano", required=("--data",))
    check.add_argument("--split", help="one split instead of training and evaluation")
    check.add_argument("--sample", type=_positive, default=200, help="hands of each split to decode (200)")
    check.add_argument("--out", type=Path, default=Path("runs/check"), help="folder for the images (runs/check)")
    pack.add_argument("--split", help="default: training")
    pack.add_argument("--out", type=Path, required=True, help="folder for the shards")
    pack.add_argument("--shard", type=_positive, default=1000, help="hands per shard (1000)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
