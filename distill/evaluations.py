"""Several models on several datasets: a folder of results for each, one CSV, one report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from yacs.config import CfgNode

from fasthamer.data.dataset import fingerprint
from fasthamer.distill.report.entry import affordable_rows, entry_of
from fasthamer.distill.report.page import write_report
from fasthamer.distill.report.training_log import read_training_log
from fasthamer.distill.score_table import csv_text
from fasthamer.distill.scoring import Evaluation, prepare, score_model
from fasthamer.files.atomic import write_text
from fasthamer.hand.mano import Hand
from fasthamer.training.provenance import provenance

Grid = list[list[Evaluation]]  # of each dataset, of each model


def prepare_all(sets: Sequence[CfgNode], models: dict[str, nn.Module], protocol: str, joints: str) -> Grid:
    """Opens every dataset for every model, before the first prediction; arguments and errors as `prepare`.

    Args:
        sets: a config for each dataset.
        models: by name.
    """
    return [[prepare(cfg, model, name, protocol, joints) for name, model in models.items()] for cfg in sets]


def score_all(grid: Grid, out: Path, report: bool = False) -> list[dict[str, Any]]:
    """Scores everything; writes `scores.csv`, the files of `score_model` and, if asked for, `report.html`.

    Args:
        grid: from `prepare_all`.
        out: gets the files; of several datasets or models, each has a folder of its own in it.
        report: whether to write the page.

    Returns:
        The scores of each model on each dataset, models of one dataset together; in the main process only.

    Raises:
        ValueError, OSError: a sample that cannot be read or scored, a full disk.
    """
    rows, entries = [], []
    shown = affordable_rows(sum(map(len, grid)), len(grid))
    data_names = distinct([_data_name(evaluations[0]) for evaluations in grid])
    model_folders = distinct([_folder_name(evaluation) for evaluation in grid[0]])
    for data, evaluations in zip(data_names, grid, strict=True):
        chosen = None
        for model, evaluation in zip(model_folders, evaluations, strict=True):
            folder = out / model if len(evaluations) > 1 else out
            scores, predicted = score_model(evaluation, folder / data if len(grid) > 1 else folder)
            if predicted is None:
                continue
            rows.append(scores)
            if report:
                hand: Hand = evaluation.model.hand  # type: ignore[assignment]
                about = evaluation.about["model"], data, scores
                entry = entry_of(*about, evaluation.dataset, predicted, evaluation.rules, hand, chosen, shown)
                entries.append(entry)
                chosen = entry.chosen
    if not rows:
        return []
    write_text(out / "scores.csv", csv_text(rows))
    if report:
        names = [evaluation.about["model"] for evaluation in grid[0]]
        logs = [read_training_log(Path(name), name) for name in names]
        origin = _origin(grid, data_names)
        config = "\n---\n".join(evaluations[0].cfg.dump() for evaluations in grid)
        title = f"Evaluation of {names[0] if len(names) == 1 else f'{len(names)} models'}"
        write_report(out / "report.html", title, entries, origin, config, [log for log in logs if log])
    return rows


def distinct(names: Sequence[str]) -> list[str]:
    """The names; one that came before gets a number."""
    found: list[str] = []
    for name in names:
        number = 2
        unique = name
        while unique in found:
            unique, number = f"{name}-{number}", number + 1
        found.append(unique)
    return found


def _data_name(evaluation: Evaluation) -> str:
    return f"{evaluation.about['data']}-{Path(evaluation.about['split']).name}"


def _folder_name(evaluation: Evaluation) -> str:
    """Of a model's file or run, or its name; never a path."""
    path = Path(evaluation.about["model"]).resolve()
    return (path.parent.name if path.stem == "student" else path.stem) or "model"


def _origin(grid: Grid, data_names: Sequence[str]) -> dict[str, Any]:
    """Command, code, packages; the fingerprint of each dataset and of the models' hands."""
    hands = {evaluation.model.hand.fingerprint for evaluation in grid[0]}  # type: ignore[union-attr]
    data = {name: fingerprint(each[0].dataset) for name, each in zip(data_names, grid, strict=True)}
    return provenance(grid[0][0].cfg.SEED, ", ".join(sorted(map(str, hands))), data)
