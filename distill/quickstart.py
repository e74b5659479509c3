"""The quickstart's parts: one student taught, and all of them compared with their teacher."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import nullcontext, redirect_stderr
from io import StringIO
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn

from torch import nn
from torch.utils.data import default_collate

from fasthamer.benchmark.timing import ms_per_image
from fasthamer.config import load_config
from fasthamer.cores import usable_cores
from fasthamer.data.build import build_dataset
from fasthamer.device import pick_device
from fasthamer.distill.comparison import comparison
from fasthamer.distill.evaluate import evaluate, predict, rules_for
from fasthamer.distill.preparation import prepare
from fasthamer.distill.real_images import real_images
from fasthamer.distill.run import execute, fill_cache
from fasthamer.files.atomic import write_json
from fasthamer.files.images import write_image
from fasthamer.predict import open_model
from fasthamer.students.files import STUDENT_FILE
from fasthamer.students.zoo import parameter_count
from fasthamer.training.interrupt import Interrupted, InterruptHandler
from fasthamer.training.run_dir import resumed_config
from fasthamer.types import Batch

SHOWN = 6  # hands in an image
TROUBLE = (ValueError, KeyError, OSError, FloatingPointError, Interrupted)


def train_students(out: Path, modes: dict[str, str], overrides: list[str]) -> None:
    """Trains the recipe `quickstart` once for each mode, side by side, each with its share of the processor.

    The images, the teacher's answers and the frozen backbone's maps, which the trainings share, are made before with
    the whole processor. What an earlier call began goes on, what it finished stays. Only the last training shows its
    progress bar.

    Args:
        out: gets a run directory of each name, and the images that they share.
        modes: name of a run: its KD.MODE.
        overrides: `KEY VALUE` pairs for all of them.

    Raises:
        ValueError, FileNotFoundError: settings of no use.
        Interrupted: on Ctrl-C, after the checkpoints.
        RuntimeError: a training failed; its output says why.
    """
    cores = usable_cores()
    share = max(1, cores // len(modes))
    shared = ["DATA.SYNTHETIC_FOLDER", str(out / "images"), "TEACHER.CACHE", str(out / "teacher")]
    if load_config("quickstart", overrides).STUDENT.FREEZE:
        shared += ["STUDENT.CACHE", str(out / "backbone")]
    settings = [*shared, "TRAIN.THREADS", str(share), "DATA.WORKERS", str(share // 2), *overrides]
    filling = [*shared, "TRAIN.THREADS", "1", "DATA.WORKERS", str(cores), *overrides]
    trainings: dict[str, BaseProcess] = {}
    fillings: dict[str, BaseProcess] = {}
    spawn = get_context("spawn").Process
    for name, mode in modes.items():
        load_config("quickstart", ["KD.MODE", mode, *settings])  # a mistake is reported before anything starts
        if (out / name / STUDENT_FILE).is_file():
            print(f"{out / name} is finished; remove it to train it again", flush=True)
            continue
        bar = name == list(modes)[-1]
        arguments = (out / name, ["KD.MODE", mode, *settings], bar)
        trainings[name] = spawn(target=_train_student, args=arguments, name=name)
        if mode != "none" and not (out / name).is_dir():
            fillings = {name: spawn(target=_fill_cache, args=(out / name, ["KD.MODE", mode, *filling]))}
    _run_together(fillings, "making images, the teacher's answers and the backbone's maps for")
    _run_together(trainings, "training")


def _run_together(processes: Mapping[str, BaseProcess], doing: str) -> None:
    """Starts the processes and waits for all of them."""
    with InterruptHandler() as interrupt:
        for process in processes.values():
            process.start()
        for process in processes.values():
            process.join()
    failed = [name for name, process in processes.items() if process.exitcode]
    if failed and interrupt.requested:
        raise interrupt.error(f"stopped while {doing} {' and '.join(failed)}")
    if failed:
        raise RuntimeError(f"{doing} {' and '.join(failed)} failed, see above")


def _fill_cache(run: Path, overrides: list[str]) -> None:
    """The images and the teacher's answers for a run that has not begun, in a process of its own."""
    try:
        fill_cache(prepare(load_config("quickstart", overrides), run), print)
    except TROUBLE as error:
        _fail(run, error)


def _train_student(run: Path, overrides: list[str], bar: bool) -> None:
    """One student, in a process of its own."""
    begun = (run / "config.yaml").is_file()
    try:
        cfg = resumed_config(run, overrides) if begun else load_config("quickstart", overrides)
        prepared = prepare(cfg, run, resume=begun)
        print(f"{prepared.announcement}\n", flush=True)
        with nullcontext() if bar else redirect_stderr(StringIO()):  # where progress is shown
            execute(prepared)
    except TROUBLE as error:
        _fail(run, error)


def _fail(run: Path, error: BaseException) -> NoReturn:
    print(f"{run}: {error.args[0] if error.args else error}", file=sys.stderr)
    sys.exit(1)


def compare(out: Path, runs: tuple[str, ...], folder: Path | None) -> tuple[dict[str, dict[str, float]], list[Path]]:
    """Scores the teacher and the students of `runs` on the held-out hands; draws them.

    Args:
        out: holds a finished run directory of each name; gets `summary.json` and the images.
        runs: drawn after the teacher.
        folder: of real images, which are drawn too; None: synthetic ones only.

    Returns:
        What `summary.json` holds, and the paths of the images.
    """
    cfg = load_config(out / runs[-1] / "config.yaml")
    device = pick_device(cfg.DEVICE)
    teacher = open_model(cfg.TEACHER.NAME, checkpoint=cfg.TEACHER.CHECKPOINT)
    models = {"teacher": teacher, **{name: open_model(out / name) for name in runs}}
    models = {name: model.to(device) for name, model in models.items()}
    speeds = ms_per_image(models, cfg.IMAGE_SIZE)  # type: ignore[arg-type]
    held_out = build_dataset(cfg, teacher.hand, train=False)  # type: ignore[arg-type]
    summary = {}
    for name, model in models.items():
        predicted = predict(model, held_out, cfg.EVAL.BATCH, cfg.DATA.WORKERS, device)
        rules = rules_for(held_out)
        scores = evaluate(predicted, rules, teacher.hand.J_regressor.cpu().numpy())  # type: ignore[union-attr, operator]
        summary[name] = _row(scores, model, speeds[name])
    write_json(out / "summary.json", summary)

    batch = Batch(*default_collate([held_out[(0, index)] for index in range(min(SHOWN, len(held_out)))]))
    image = comparison(Batch(*(each.to(device) for each in batch)), models, teacher.hand.faces)  # type: ignore[arg-type, union-attr]
    paths = [out / "comparison.png"]
    write_image(paths[0], image)
    if folder is not None and (real := real_images(models, folder, SHOWN)) is not None:
        paths.append(out / "real_images.png")
        write_image(paths[1], real)
    return summary, paths


def _row(scores: dict[str, Any], model: nn.Module, milliseconds: float) -> dict[str, float]:
    errors = {key: scores[key] for key in ("pa_mpjpe_mm", "pa_mpvpe_mm")}
    return {**errors, "params_m": parameter_count(model) / 1e6, "ms_per_image": milliseconds}
