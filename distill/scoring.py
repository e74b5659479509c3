"""What `tools/eval.py` does: a model on a dataset, or a finished pred.json, to scores, predictions and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from torch import nn
from yacs.config import CfgNode

from fasthamer.data import build_dataset, dataset_name
from fasthamer.data.crop import mirror_points
from fasthamer.data.mixture import HandDataset
from fasthamer.distill.cases import case_sheet
from fasthamer.distill.evaluate import evaluate, predict
from fasthamer.distill.rundir import write_json
from fasthamer.hand.conventions import TIPS
from fasthamer.hand.mano import Hand
from fasthamer.metrics.predictions import read_predictions, read_truth, write_predictions
from fasthamer.metrics.protocols import PROTOCOLS, Hands, convention_of, per_sample, protocol_joints, score
from fasthamer.predict import open_model
from fasthamer.registry import unknown
from fasthamer.runtime.device import pick_device


class Exam(NamedTuple):
    """A model and what it is asked."""

    model: nn.Module  # on its device, in eval mode
    dataset: HandDataset
    cfg: CfgNode
    about: dict[str, str]  # kept in scores.json: model, hand, data, split
    protocol: str
    convention: str  # of the joints; auto is decided by the labels


def prepare(cfg: CfgNode, source: str, hand: str | None, protocol: str, convention: str) -> Exam:
    """Opens the model and the evaluation set of a config.

    Args:
        cfg: DATA, EVAL, DEVICE and TEACHER.CHECKPOINT are used.
        source: see `fasthamer.predict.open_model`.
        hand: a MANO file, if the student was trained with one.
        protocol: auto or one of PROTOCOLS.
        convention: auto or one of TIPS.

    Raises:
        ValueError, KeyError, FileNotFoundError: something the user named cannot be had; one line says what and why.
    """
    protocol = "freihand" if protocol == "auto" else protocol  # synthetic hands are scored by the same rules
    if protocol not in PROTOCOLS:
        raise KeyError(unknown("protocol", protocol, PROTOCOLS))
    if convention not in ("auto", *TIPS):
        raise KeyError(unknown("joint convention", convention, ["auto", *TIPS]))
    device = pick_device(cfg.DEVICE)
    model = open_model(source, hand, cfg.TEACHER.CHECKPOINT).to(device)
    its_hand: Hand = model.hand  # type: ignore[assignment]
    dataset = build_dataset(cfg, its_hand, train=False)
    about = {"model": source, "hand": its_hand.name, "data": dataset_name(cfg), "split": cfg.DATA.EVAL_SPLIT}
    return Exam(model, dataset, cfg, about, protocol, convention)


def examine(exam: Exam, out: Path, rows: int = 4) -> dict[str, Any]:
    """Predicts, scores, and writes `scores.json`, `pred.json` and `pictures/cases.png` into `out`.

    In pred.json the hands are centred on themselves (a wrist-centred model does not know where they are), so of the
    official scores only the aligned ones mean something.

    Raises:
        ValueError: a sample that cannot be read or scored; the message names it.
    """
    hand: Hand = exam.model.hand  # type: ignore[assignment]
    regressor = hand.J_regressor.cpu().numpy()
    device = next(exam.model.parameters()).device
    predicted = predict(exam.model, exam.dataset, exam.cfg.EVAL.BATCH, exam.cfg.DATA.WORKERS, device)
    has_vertices = predicted.true_vertices is not None
    convention = exam.convention
    if convention == "auto":
        convention = convention_of(exam.about["data"], has_vertices)
    scores = exam.about | evaluate(predicted, exam.protocol, convention, regressor)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "scores.json", scores)

    joints = protocol_joints(predicted.joints, predicted.vertices, convention, regressor)
    left = predicted.mirrored > 0
    as_seen = Hands(np.array(joints), np.array(predicted.vertices))
    as_seen.joints[left], as_seen.vertices[left] = (mirror_points(part[left]) for part in as_seen)  # type: ignore[index]
    write_predictions(out / "pred.json", as_seen)
    errors = per_sample(Hands(joints), Hands(predicted.true_joints[..., :3]), exam.protocol)["pa_mpjpe_mm"]
    picture = case_sheet(exam.dataset, predicted, joints, errors, hand.faces, rows)
    (out / "pictures").mkdir(exist_ok=True)
    cv2.imwrite(str(out / "pictures" / "cases.png"), picture[:, :, ::-1])
    return scores


def score_file(prediction: Path, truth_folder: Path, split: str, protocol: str) -> dict[str, Any]:
    """Scores of a pred.json in the camera's frame, as the official script takes it.

    Raises:
        FileNotFoundError, ValueError: a file is missing, malformed, of another length, or not finite.
    """
    protocol = "freihand" if protocol == "auto" else protocol
    if protocol not in PROTOCOLS:
        raise KeyError(unknown("protocol", protocol, PROTOCOLS))
    truth = read_truth(truth_folder, split)
    found = read_predictions(prediction, expected=len(truth.joints))
    about = {"prediction": str(prediction), "truth": str(truth_folder), "split": split}
    return {**about, **score(found, truth, protocol, frame="camera"), "joints": "as predicted"}


def table(scores: dict[str, Any]) -> str:
    """The scores as lines with their confidence intervals."""
    lines = [f"{scores['n']} samples, protocol {scores['protocol']}, joints {scores['joints']}"]
    for key in (key for key in scores if f"{key}_ci95" in scores):
        low, high = scores[f"{key}_ci95"]
        digits = 2 if key.endswith("_mm") else 3
        lines.append(f"  {key:14s} {scores[key]:8.{digits}f}   95 % {low:.{digits}f} to {high:.{digits}f}")
    return "\n".join(lines)
