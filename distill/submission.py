"""The file that each official server or script takes, and the scores of such a file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from yacs.config import CfgNode

from fasthamer.data.build import evaluation_spec
from fasthamer.data.dataset import HandDataset
from fasthamer.data.readers.base import ImageDataset
from fasthamer.data.zoo import DATASETS
from fasthamer.distill.evaluate import Predicted
from fasthamer.hand.conventions import MIDDLE_KNUCKLE, TIPS, WRIST
from fasthamer.hand.mano import load_hand
from fasthamer.metrics.pck import score_pck
from fasthamer.metrics.protocols import protocol, with_tips
from fasthamer.metrics.scores import Hands, score
from fasthamer.metrics.submissions import (
    read_annotated,
    read_keypoints,
    read_predictions,
    read_result_lines,
    read_truth,
    write_keypoints,
    write_predictions,
    write_result_lines,
)
from fasthamer.registry import unknown


def write_submission(folder: Path, dataset: HandDataset, name: str, predicted: Predicted, hands: Hands) -> Path:
    """The prediction in the form of the dataset's own protocol.

    Args:
        folder: where to; the file's name is the protocol's.
        dataset: what was predicted; its `sample_name` numbers DexYCB's frames.
        name: of the dataset's protocol.
        predicted: from `fasthamer.distill.evaluate.predict`.
        hands: the same as photographed, from `fasthamer.distill.evaluate.hands`.

    Raises:
        ValueError: samples are left out, as they cannot be read.
    """
    if predicted.unreadable:
        raise ValueError(
            f"no {protocol(name).submission}: it needs every sample, and {len(predicted.unreadable)} cannot be read: "
            f"{predicted.unreadable[0]}"
        )
    path = folder / protocol(name).submission
    if name == "hint":
        write_keypoints(path, predicted.keypoints)
    elif name == "dexycb":
        write_result_lines(path, image_ids(dataset), hands.joints)
    else:
        write_predictions(path, hands, name)
    return path


def score_file(prediction: Path, truth: Path, cfg: CfgNode, name: str, joints: str) -> dict[str, Any]:
    """Scores of a finished submission in the camera's frame, as the official script takes it.

    Args:
        prediction: pred.json, results.txt or keypoints.json.
        truth: the folder with the split's xyz and verts JSON files (FreiHAND, HO-3D); the root of the set (DexYCB); or
            HaMeR's TEST_<set>_img_all.npz (HInt).
        cfg: DATA.EVAL_SPLIT is used.
        name: of the protocol; auto goes by the files' endings, and takes a pred.json for FreiHAND's.
        joints: auto scores joints as they are in the file; a convention of TIPS takes fingertips from its meshes.

    Raises:
        FileNotFoundError, ValueError, KeyError: a file is missing, malformed, of another length, or not finite.
    """
    if name == "auto":
        name = "dexycb" if prediction.suffix == ".txt" else "hint" if truth.suffix == ".npz" else "freihand"
    protocol(name)
    if joints not in ("auto", *TIPS):
        raise KeyError(unknown("joint convention", joints, ("auto", *TIPS)))
    about = {"prediction": str(prediction), "truth": str(truth), "split": cfg.DATA.EVAL_SPLIT}
    if name == "hint":
        target = read_annotated(truth)
        return {**about, **score_pck(read_keypoints(prediction, len(target.points)), target), "joints": "as predicted"}
    found, known = _read(prediction, truth, cfg, name)
    if joints != "auto":
        if found.vertices is None:
            raise ValueError(f"{prediction} holds no meshes to take the fingertips of --joints {joints} from")
        found = found._replace(joints=with_tips(found.joints, found.vertices, joints))
    _compare_sizes(prediction, found, truth, known)
    scores = score(found, known, name, frame="camera")
    return {**about, **scores, "joints": "as predicted" if joints == "auto" else f"as predicted, tips of {joints}"}


def _compare_sizes(path: Path, found: Hands, truth: Path, known: Hands) -> None:
    """Warns of another unit of length, which aligned scores forgive.

    Raises:
        ValueError: most of the true hands have no size.
    """
    palm, true_palm = (
        np.median(np.linalg.norm(hands.joints[:, MIDDLE_KNUCKLE] - hands.joints[:, WRIST], axis=-1))
        for hands in (found, known)
    )
    if true_palm == 0:
        raise ValueError(
            f"{truth}: wrist and middle knuckle of the true hands are one point: these are placeholders (zeros) for "
            "labels that are not public, or not filled in"
        )
    if palm > 100 * true_palm or 0 < palm < true_palm / 100:
        warnings.warn(
            f"{path}: hands are {palm / true_palm:.3g} times as large as the true ones: pred.json holds metres, "
            "results.txt millimetres",
            stacklevel=3,
        )


def image_ids(dataset: HandDataset) -> list[int]:
    """DexYCB's numbers of the frames of a dataset."""
    return [int(dataset.sample_name(index)) for index in range(len(dataset))]


def _read(prediction: Path, truth: Path, cfg: CfgNode, name: str) -> tuple[Hands, Hands]:
    """The predicted and the true hands."""
    if name == "dexycb":
        target, ids = _dexycb_truth(truth, cfg)
        return Hands(read_result_lines(prediction, ids)), target
    target = read_truth(truth, cfg.DATA.EVAL_SPLIT, name)
    return read_predictions(prediction, len(target.joints), name), target


def _dexycb_truth(root: Path, cfg: CfgNode) -> tuple[Hands, list[int]]:
    spec = evaluation_spec(cfg)._replace(name="dexycb", root=str(root))
    dataset: ImageDataset = DATASETS.build("dexycb", spec, load_hand("embedded"))
    labels = ((index, dataset.labels(index).joints) for index in range(len(dataset)))
    known = {index: joints[:, :3] for index, joints in labels if joints is not None}  # the others are not scored
    with_hand, joints = list(known), np.stack(list(known.values()))
    right = np.array([not dataset.is_left(index) for index in with_hand])
    ids = image_ids(dataset)
    return Hands(joints, right=right), [ids[index] for index in with_hand]
