"""The cells of a study: which are done, and what trains and scores one.

RUNS/STUDY/CELL/       the run directory of a cell, as of any training
RUNS/STUDY/CELL.json   its record, written last
RUNS/STUDY/scores of TEACHER.json
OUT/STUDY.json         all records; what is in it is done, wherever it ran

Several commands may run cells of one study side by side: each adds its records to those of the others.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from fasthamer.benchmark.timing import machine
from fasthamer.config import load_config, replaced
from fasthamer.cores import usable_cores
from fasthamer.device import pick_device
from fasthamer.distill.objective import MODES
from fasthamer.distill.parallel_runs import Job, JobResult, run_jobs
from fasthamer.distill.preparation import prepare
from fasthamer.distill.run import execute, fill_cache
from fasthamer.distill.study.begun import changed
from fasthamer.distill.study.costs import TeacherClock, images_per_second
from fasthamer.distill.study.faults import with_fault
from fasthamer.distill.study.grid import FAULT, Cell, Study
from fasthamer.distill.study.scores import Scores, score_cell, score_teacher, teacher_of
from fasthamer.files.atomic import write_json
from fasthamer.training.interrupt import InterruptHandler
from fasthamer.training.log import duration
from fasthamer.training.provenance import revision

Record = dict[str, Any]
TEACHER = "scores of "  # and its name: beginning of the names of jobs and files


def results_file(study: Study, out: Path) -> Path:
    """Where a study's records are."""
    return out / f"{study.name}.json"


def read_records(study: Study, out: Path) -> dict[str, Record]:
    """The records by cell; none if the study has not begun.

    Raises:
        ValueError: a cell was run with other settings than the study's file now has, or the file is damaged.
    """
    file = results_file(study, out)
    if not file.is_file():
        return {}
    try:
        records: dict[str, Record] = _results(file)["cells"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} holds no results of a study ({error}): remove it, or choose another --out") from None
    for cell in study.cells():
        before = records.get(cell.name, {}).get("settings", cell.settings)
        if before != cell.settings:
            keys = sorted(key for key in before.keys() | cell.settings if before.get(key) != cell.settings.get(key))
            raise ValueError(
                f"{file} has {cell.name} with {keys[0]} {before.get(keys[0])}, now it is {cell.settings.get(keys[0])}: "
                "the cells would not compare; choose another --out and --runs, or another name for the study"
            )
    return records


def read_teachers(study: Study, out: Path) -> dict[str, dict[str, Scores]]:
    """The scores of the teachers on each evaluation set, by `teacher_of`; none if the study has not begun."""
    file = results_file(study, out)
    return _results(file).get("teachers", {}) if file.is_file() else {}


def _results(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


def _recorded(cell: Cell, folder: Path) -> Record:
    """The record of a cell with these settings in `folder`; empty if there is none."""
    file = folder / f"{cell.name}.json"
    found = _results(file) if file.is_file() else {}
    return found if found.get("settings") == cell.settings else {}


def _gather(study: Study, folder: Path, out: Path) -> dict[str, Record]:
    """The records in OUT/STUDY.json and, written into it, those of `folder` that it lacks: another command's."""
    records, file = read_records(study, out), results_file(study, out)
    for cell in study.cells():
        if cell.name not in records and (own := _recorded(cell, folder)):
            records[cell.name] = own
    teachers = read_teachers(study, out)
    teachers |= {found.stem.removeprefix(TEACHER): _results(found) for found in sorted(folder.glob(f"{TEACHER}*.json"))}
    cells = {cell.name: records[cell.name] for cell in study.cells() if cell.name in records}
    if cells:
        write_json(file, {"study": study.name, "recipe": study.recipe, "teachers": teachers, "cells": cells})
    return cells


def run_study(
    study: Study,
    cells: list[Cell],
    runs: Path,
    out: Path,
    jobs: int,
    interrupt: InterruptHandler,
    say: Callable[[str], None],
) -> Iterator[JobResult]:
    """Trains and scores what has no record yet, and goes on where a training was interrupted.

    Args:
        study: from `read_study`.
        cells: of the study, those to run.
        runs: gets the run directories.
        out: gets the records.
        jobs: trainings at a time.
        interrupt: already listening; what runs is stopped after a checkpoint.
        say: one line of progress.

    Yields:
        Each cell that has ended, well or not; its record is written by then.
    """
    folder = runs / study.name
    records = _gather(study, folder, out)
    missing = sorted((cell for cell in cells if cell.name not in records), key=lambda cell: cell.seed)
    queue = [Job(cell.name, _run_cell, (study, cell, folder)) for cell in missing]  # first a seed of every setting
    took: list[float] = []
    for result in _ended(study, queue, folder, jobs, interrupt, say):
        name, ahead = result.job.name, ""
        if not result.trouble:
            _gather(study, folder, out)
            took.append(result.seconds)
            left = len(queue) - len(took)
            ahead = f"; {left} left, about {duration(left * statistics.mean(took) / jobs)}" if left else ""
        say(f"{name}: {result.trouble or f'done in {duration(result.seconds)}'}{ahead}")
        yield result


def _ended(
    study: Study, queue: list[Job], folder: Path, jobs: int, interrupt: InterruptHandler, say: Callable[[str], None]
) -> Iterator[JobResult]:
    """The cells as they end, seed by seed: each seed has images and caches of its own, made before its cells."""
    for seed in study.seeds:
        own = [job for job in queue if job.arguments[1].seed == seed]
        for filling in _fillings(study, own, folder):
            for result in run_jobs([filling], 1, folder / "logs", interrupt):
                say(f"{filling.name}: {result.trouble or f'done in {duration(result.seconds)}'}")
        yield from run_jobs(own, jobs, folder / "logs", interrupt)


def _fillings(study: Study, queue: list[Job], folder: Path) -> list[Job]:
    """What cells share is made before them: images, teachers' answers and scores, frozen backbones' maps."""
    needed: dict[tuple[str, str], list[Cell]] = {}
    for cell in (job.arguments[1] for job in queue if not (folder / job.name).is_dir()):
        cfg = study.config(cell)
        if cfg.STUDENT.CACHE or (cfg.TEACHER.CACHE and cfg.KD.MODE != "none"):
            needed.setdefault(_caches(cfg), []).append(cell)
    fullest = [_stores_most(study, caches, cells) for caches, cells in needed.items()]
    fillings = [
        Job(f"caches of {cell.name}", _fill, (study, cell, folder))
        for cell in fullest
        if not (folder / cell.name).is_dir()  # it has begun, so they are made
    ]
    taught = [job for job in queue if study.config(job.arguments[1]).KD.MODE != "none"]
    teachers = {teacher_of(study, job.arguments[1]): job for job in taught}
    return fillings + [
        Job(f"{TEACHER}{name}", _score_teacher, job.arguments)
        for name, job in teachers.items()
        if not (folder / f"{TEACHER}{name}.json").is_file()
    ]


def _caches(cfg: CfgNode) -> tuple[str, str]:
    return cfg.TEACHER.CACHE, cfg.STUDENT.CACHE


def _stores_most(study: Study, caches: tuple[str, str], needed: list[Cell]) -> Cell:
    """The cell that stores most in these caches.

    Where one that is needed has a teacher, all of the study are looked at: the next command may run the others, which
    an existing cache without the teacher's maps would stop.
    """

    def stored(cell: Cell) -> int:
        return MODES.index(study.config(cell).KD.MODE)  # the later, the more is stored

    fullest = max(needed, key=stored)
    if stored(fullest):
        fullest = max((cell for cell in study.cells() if _caches(study.config(cell)) == caches), key=stored)
    return fullest


def _score_teacher(study: Study, cell: Cell, folder: Path) -> None:
    """In a process of its own."""
    scores = score_teacher(study, cell, folder / "teachers")
    write_json(folder / f"{TEACHER}{teacher_of(study, cell)}.json", scores)


def _fill(study: Study, cell: Cell, folder: Path) -> None:
    """In a process of its own, with a loader process for each core."""
    cfg = replaced(study.config(cell), {"DATA.WORKERS": usable_cores()})
    fill_cache(prepare(cfg, folder / cell.name), print)


def _run_cell(study: Study, cell: Cell, folder: Path) -> None:
    """Trains and scores one cell, in a process of its own, and writes its record."""
    if _recorded(cell, folder):
        return  # another command was faster
    run = folder / cell.name
    _refuse_mixture(study, cell, run)
    costs: Record = {}
    if not (run / "eval" / "scores.json").is_file():
        prepared = prepare(study.config(cell), run, resume=(run / "config.yaml").is_file())
        clock = TeacherClock(prepared)
        execute(with_fault(prepared, cell.settings.get(FAULT, "")))
        costs["teacher_share"] = clock.share(prepared.cfg.TRAIN.BATCH / images_per_second(run))
    record = _record(study, cell, run, score_cell(study, cell, run)) | costs
    write_json(folder / f"{cell.name}.json", record)


def _refuse_mixture(study: Study, cell: Cell, run: Path) -> None:
    """Raises ValueError if the cell began with other settings: going on would record a mixture of both."""
    if not (run / "config.yaml").is_file():
        return
    for key, (before, now) in changed(load_config(run / "config.yaml"), study.config(cell)).items():
        raise ValueError(f"{run} was started with {key} {before}, now it is {now}: remove it, or choose another --runs")


def _record(study: Study, cell: Cell, run: Path, scores: dict[str, Scores]) -> Record:
    cfg = study.config(cell)
    return {
        "levels": cell.levels,
        "seed": cell.seed,
        "settings": cell.settings,
        "command": study.command(cell),
        "crops": cfg.TRAIN.STEPS * cfg.TRAIN.BATCH * cfg.TRAIN.ACCUMULATE,
        "images_per_second": images_per_second(run),
        "scores": scores,
        "revision": revision(),
        "machine": machine(pick_device(cfg.DEVICE)),
    }
