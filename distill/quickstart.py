"""The quickstart's parts: one student taught, and all of them compared with their teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import torch
from torch import nn
from torch.utils.data import default_collate

from fasthamer.config import load_config
from fasthamer.data import build_dataset
from fasthamer.distill.evaluate import evaluate, predict, rules_for
from fasthamer.distill.pictures import comparison
from fasthamer.distill.rundir import resumed_config, write_json
from fasthamer.distill.session import execute, prepare
from fasthamer.predict import open_model
from fasthamer.runtime.device import pick_device
from fasthamer.runtime.timing import ms_per_image
from fasthamer.students import build_student
from fasthamer.students.zoo import parameter_count
from fasthamer.types import Batch

SHOWN = 6  # evaluation hands in the picture


def teach(run: Path, overrides: list[str]) -> None:
    """Trains one student by the recipe `quickstart`; goes on where an earlier call stopped, returns if it had finished.

    Raises:
        ValueError, KeyError, FileNotFoundError: see `prepare` and `resumed_config`.
        Interrupted: on Ctrl-C.
    """
    begun = (run / "config.yaml").is_file()
    cfg = resumed_config(run, overrides) if begun else load_config("quickstart", overrides)
    if (run / "student.safetensors").is_file():
        print(f"{run} is finished; remove it to train it again\n")
        return
    session = prepare(cfg, run, resume=begun)
    print(session.announcement, flush=True)
    execute(session)


def compare(out: Path, runs: tuple[str, ...]) -> tuple[dict[str, dict[str, float]], Path]:
    """Scores teacher, untrained student and the students of `runs` on the held-out hands; draws them.

    Args:
        out: holds a finished run directory of each name; gets `summary.json` and `comparison.png`.
        runs: the last one's student is drawn beside the teacher.

    Returns:
        What `summary.json` holds, and the picture's path.
    """
    cfg = load_config(out / runs[-1] / "config.yaml")
    device = pick_device(cfg.DEVICE)
    teacher = open_model(cfg.TEACHER.NAME, checkpoint=cfg.TEACHER.CHECKPOINT)
    students = {name: open_model(out / name) for name in runs}
    spec = students[runs[-1]].spec
    torch.manual_seed(cfg.SEED)
    untrained = build_student(**spec, hand=teacher.hand).eval()  # type: ignore[arg-type]
    models = {"teacher": teacher, "untrained": untrained, **students}
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
    shown = {"teacher": models["teacher"], "student": models[runs[-1]]}
    picture = comparison(Batch(*(each.to(device) for each in batch)), shown, teacher.hand.faces)  # type: ignore[arg-type, union-attr]
    path = out / "comparison.png"
    cv2.imwrite(str(path), picture[:, :, ::-1])
    return summary, path


def _row(scores: dict[str, Any], model: nn.Module, milliseconds: float) -> dict[str, float]:
    errors = {key: scores[key] for key in ("pa_mpjpe_mm", "pa_mpvpe_mm")}
    return {**errors, "params_m": parameter_count(model) / 1e6, "ms_per_image": milliseconds}
