"""What the commands share: flags of config keys, each written once, `KEY VALUE` pairs, and one-line errors."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from fasthamer.distill.preparation import DistillRun
    from fasthamer.distill.tokenizer import TokenizerRun

    Prepared = TypeVar("Prepared", DistillRun, TokenizerRun)

FLAGS = {  # flag: (config key, help)
    "--student": ("STUDENT.NAME", "see `tools/distill.py --list`, or timm:<name>"),
    "--decoder": (
        "STUDENT.DECODER",
        "mano (HaMeR's with a position embedding), hamer (without), flat, or token (TokenHand's)",
    ),
    "--tokenizer": ("STUDENT.TOKENIZER", "of the decoder token: a tokenizer.safetensors; else the embedded hand's"),
    "--decoder-size": ("STUDENT.DECODER_SIZE", "full (HaMeR's own), medium, small or tiny"),
    "--kd": ("KD.MODE", "none, output, feature or hybrid"),
    "--teacher": (
        "TEACHER.NAME",
        "auto, hamer, wilor, embedded, or a student's file or run directory; several joined by +; to label images also "
        "mediapipe",
    ),
    "--teacher-ckpt": ("TEACHER.CHECKPOINT", "hamer.ckpt or wilor_final.ckpt, for hamer or wilor"),
    "--teacher-cache": ("TEACHER.CACHE", "folder of the teacher's outputs, filled where it is incomplete"),
    "--data": ("DATA.NAME", "auto, synthetic, freihand, dexycb, ho3d, ...: see docs/datasets.md; or a mix.yaml"),
    "--data-root": ("DATA.ROOT", "the dataset's folder"),
    "--split": ("DATA.EVAL_SPLIT", "evaluation, training, or a name of the dataset's own"),
    "--poses": ("TOKENIZER.POSES", "sampled, data (the labels of --data), or an .npz of hand_pose and betas"),
    "--frame": ("TOKENIZER.FRAME", "palm or camera"),
    "--mano": (
        "HAND.MODEL",
        "MANO_RIGHT.pkl, a converted .npz or a teacher's checkpoint; else the teacher's or embedded hand",
    ),
    "--init": ("STUDENT.INIT", "a student.safetensors, or a shipped student's name, to start from"),
    "--steps": ("TRAIN.STEPS", "optimizer steps; without a recipe as many as fit into about 20 hours"),
    "--device": ("DEVICE", "auto = cuda, then mps, then cpu"),
    "--image-size": ("IMAGE_SIZE", "pixels; the side of the square crops"),
}
EXIT_CODES = (
    "Exit codes: 0 done, or stopped by SIGTERM with all saved; 1 failed, interrupted or incomplete; 2 a mistake in the "
    "arguments."
)
MISTAKES = (ValueError, KeyError, FileNotFoundError)  # what a user can cause: one line and exit code 2


def command(name: str, text: str | None) -> argparse.ArgumentParser:
    """A parser whose help is the docstring of the command's module; option names are never abbreviated."""
    return argparse.ArgumentParser(
        prog=name,
        description=text,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_flags(
    parser: argparse.ArgumentParser,
    *flags: str,
    required: Sequence[str] = (),
    action: str | type[argparse.Action] = "store",
) -> None:
    """Adds flags of `FLAGS`; `parse` turns those that are stored into config settings."""
    for flag in flags:
        key, text = FLAGS[flag]
        name = flag.removeprefix("--").replace("-", "_").upper()
        parser.add_argument(
            flag, dest=key, metavar=name, help=f"{text} ({key})", required=flag in required, action=action
        )


def parse(parser: argparse.ArgumentParser, argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The parsed arguments, and `KEY VALUE ...` settings: those typed as such, then those of the flags, which win."""
    arguments, pairs = parser.parse_known_args(argv)
    given = vars(arguments)
    for key, _ in FLAGS.values():
        if given.get(key) is not None:
            pairs += [key, given[key]]
    return arguments, pairs


def one_line(error: BaseException) -> str:
    """An error's message; `str` would put a KeyError's in quotes."""
    message = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    return message.strip().splitlines()[-1] if message.strip() else type(error).__name__


def print_lines(lines: Iterable[str]) -> None:
    """Prints a long list; a reader that has seen enough, as `| head` has, is no error."""
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:  # the interpreter flushes once more when it exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def carry_out(
    name: str,
    prepared: Prepared,
    execute: Callable[[Prepared], dict[str, Any]],
    result: Callable[[dict[str, Any]], str],
) -> int:
    """Announces a prepared training, runs it and prints its result; in several processes, the main one alone prints.

    Args:
        name: of the command.
        prepared: `DistillRun` or `TokenizerRun`.
        execute: trains, and returns scores.
        result: of scores, in one line.

    Returns:
        The command's exit code.
    """
    from fasthamer.training.interrupt import Interrupted

    prints = prepared.trainer.accelerator.is_main_process
    if prints:
        print(prepared.announcement, flush=True)
        if prepared.resume_from:
            print(f"resumed from {prepared.resume_from}", flush=True)
    try:
        scores = execute(prepared)
    except Interrupted as stopped:
        if prints:
            print(f"{stopped}; go on with: python tools/{name}.py --out {prepared.run} --resume", file=sys.stderr)
        return stopped.exit_code
    except (FloatingPointError, ValueError, OSError) as error:
        return failed(name, error)
    if prints:
        print(result(scores))
    return 0


def failed(name: str, error: BaseException | str) -> int:
    """Prints why a command failed; returns its exit code, 1."""
    print(f"{name}: {error if isinstance(error, str) else one_line(error)}", file=sys.stderr)
    return 1
