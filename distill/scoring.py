"""Evaluation of a model: predictions for a dataset, their scores, an image of samples, the official submission."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import nn
from yacs.config import CfgNode

from fasthamer.config import replaced
from fasthamer.data.build import build_dataset, dataset_name
from fasthamer.data.crop import shape_for
from fasthamer.data.dataset import HandDataset
from fasthamer.detect.boxes import mediapipe_boxes
from fasthamer.distill.evaluate import Predicted, Rules, evaluate, hands, predict_together, rules_for
from fasthamer.distill.sample_sheet import sample_sheet
from fasthamer.distill.submission import write_submission
from fasthamer.files.atomic import write_json, write_text
from fasthamer.files.images import write_image
from fasthamer.hand.mano import Hand
from fasthamer.metrics.points import aligned_distances
from fasthamer.metrics.protocols import protocol_joints
from fasthamer.predict import open_model
from fasthamer.students.tokenhand.token_decoder import TokenDecoder
from fasthamer.training.accelerator import accelerator_for
from fasthamer.training.skipped import FILE, NAMED


class Evaluation(NamedTuple):
    """A model, and the dataset and rules to score it with."""

    model: nn.Module  # on its device, in eval mode
    dataset: HandDataset
    cfg: CfgNode
    about: dict[str, Any]  # kept in scores.json: model, hand, data, split, image_size
    rules: Rules


def open_for_scoring(cfg: CfgNode, source: str, hand: str | None, hard_tokens: bool = False) -> nn.Module:
    """Opens a model and puts it on its device.

    Args:
        cfg: DEVICE and TEACHER.CHECKPOINT are used.
        source: see `fasthamer.predict.open_model`.
        hand: a MANO file, if the student was trained with one.
        hard_tokens: take the likeliest code of each token, not the mean of all by their probability.

    Raises:
        ValueError, KeyError, FileNotFoundError: something the user named is missing or unfit; one line says what.
    """
    model = open_model(source, hand, cfg.TEACHER.CHECKPOINT).to(_accelerator(cfg).device)
    if hard_tokens:
        decoder = getattr(model, "decoder", None)
        if not isinstance(decoder, TokenDecoder):
            raise ValueError(f"--hard-tokens is for students with the decoder token, which {source} has not")
        decoder.hard = True
    return model


def prepare(cfg: CfgNode, model: nn.Module, name: str, protocol: str, joints: str) -> Evaluation:
    """Opens the evaluation set of a config for a model.

    Args:
        cfg: DATA and EVAL are used.
        model: from `open_for_scoring`.
        name: the model's in scores.json.
        protocol: auto or one of PROTOCOLS.
        joints: auto or one of TIPS.

    Raises:
        ValueError, KeyError, FileNotFoundError: something the user named is missing or unfit; one line says what.
    """
    hand: Hand = model.hand  # type: ignore[assignment]
    if cfg.DATA.BOX_SHAPE == "auto":
        cfg = replaced(cfg, {"DATA.BOX_SHAPE": shape_for(model)})
    dataset = build_dataset(cfg, hand, train=False, find=mediapipe_boxes())
    about = {
        "model": name,
        "hand": hand.name,
        "data": dataset_name(cfg, train=False),
        "split": cfg.DATA.EVAL_SPLIT,
        "image_size": cfg.IMAGE_SIZE,
    }
    return Evaluation(model, dataset, cfg, about, rules_for(dataset, protocol, joints))


def score_model(evaluation: Evaluation, out: Path, rows: int = 4) -> tuple[dict[str, Any], Predicted | None]:
    """Predicts, scores, and writes `scores.json`, the official submission and `pictures/cases.png` into `out`.

    Several processes (torchrun, accelerate launch) share the predictions; the main one does the rest.

    Hands in the submission stand before the camera where the dataset knows it; else they are centred on themselves,
    and of the official scores only the aligned ones are meaningful.

    Returns:
        The content of `scores.json`, and the predictions; nothing and None in other processes than the main one.

    Raises:
        BadSample, LoaderError: see `predict_together`.
        ValueError: a prediction that cannot be scored, or nothing but a submission and samples that cannot be read.
    """
    hand: Hand = evaluation.model.hand  # type: ignore[assignment]
    regressor = hand.J_regressor.cpu().numpy()
    cfg = evaluation.cfg
    predicted = predict_together(
        evaluation.model, evaluation.dataset, cfg.EVAL.BATCH, cfg.DATA.WORKERS, _accelerator(cfg), cfg.DATA.FAULTS
    )
    if predicted is None:
        return {}, None
    scores = evaluation.about | evaluate(predicted, evaluation.rules, regressor)
    write_json(out / "scores.json", scores)
    list_unreadable(out, predicted)
    if scores["n"] == 0 or not predicted.unreadable:
        seen = hands(predicted, evaluation.rules.joints, regressor)
        write_submission(out, evaluation.dataset, rules_for(evaluation.dataset).protocol, predicted, seen)

    left = predicted.mirrored > 0
    joints = protocol_joints(predicted.joints, predicted.vertices, evaluation.rules.joints, regressor, left)
    errors, unit = _ranking(predicted, joints)
    image = sample_sheet(evaluation.dataset, predicted, joints, errors, unit, hand.faces, rows)
    write_image(out / "pictures" / "cases.png", image)
    return scores, predicted


def list_unreadable(folder: Path, predicted: Predicted) -> None:
    """Writes `skipped.txt`, a line for each sample that an evaluation left out, with a warning; nothing if it did not.

    Args:
        folder: of its `scores.json`.
        predicted: its predictions.
    """
    path, lines = folder / FILE, predicted.unreadable
    path.unlink(missing_ok=True)  # of an earlier evaluation
    if lines:
        write_text(path, "".join(f"{line}\n" for line in lines))
        warnings.warn(
            f"{len(lines)} samples cannot be read and are left out, and no official submission is written, which needs "
            f"them: see {path}: {'; '.join(lines[:NAMED])}",
            stacklevel=2,
        )


def _accelerator(cfg: CfgNode) -> Accelerator:
    return accelerator_for(cfg.DEVICE, "fp32", 1)


def _ranking(predicted: Predicted, joints: NDArray) -> tuple[NDArray[np.float64], str]:
    """The error of each sample (N,), NaN without labels, and its unit: pixels where the labels are 2D."""
    errors = np.full(len(joints), np.nan)
    complete = (predicted.true_joints[..., 3] > 0).all(1)
    if complete.any():
        true = predicted.true_joints[complete, :, :3]
        errors[complete] = 1000 * aligned_distances(joints[complete], true).mean(1)
        return errors, "mm PA-MPJPE"
    off = np.linalg.norm(predicted.keypoints - predicted.true_keypoints[..., :2], axis=-1)
    known = predicted.true_keypoints[..., 2] > 0
    some = known.any(1)
    errors[some] = (off * known).sum(1)[some] / known.sum(1)[some]
    return errors, "pixels"
