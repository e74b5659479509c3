"""A model's predictions for a whole dataset, and their scores.

The protocol, the fingertip convention and the cameras are the dataset's: `fasthamer.data.dataset.DatasetInfo`.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, default_collate
from tqdm import tqdm

from fasthamer.camera import translation_to_fit
from fasthamer.data.crop import crop_affine, image_box, to_image_axes
from fasthamer.data.dataset import HandDataset
from fasthamer.data.faults import Faults, Read, Tolerant
from fasthamer.data.loader_processes import PATIENCE, loader_errors, quiet_worker, readable
from fasthamer.data.readers.base import ImageDataset
from fasthamer.files.images import read_image_size
from fasthamer.hand.conventions import TIPS
from fasthamer.metrics.pck import Annotated, score_pck
from fasthamer.metrics.protocols import PROTOCOLS, protocol_joints
from fasthamer.metrics.scores import Hands, score
from fasthamer.registry import unknown
from fasthamer.training.accelerator import collected
from fasthamer.types import Batch

KNOWN = 0.5  # the confidence above which a keypoint counts


class Predicted(NamedTuple):
    """A model's predictions for the samples of a dataset, in its order, and the labels. N = samples.

    3D points are those of the crop, where every hand is a right hand; `hands` and `truth` undo its rotation and the
    mirroring of left hands.
    """

    joints: NDArray  # (N, 21, 3) metres, the model's own joints
    vertices: NDArray  # (N, 778, 3) metres
    camera: NDArray  # (N, 3) weak perspective
    keypoints: NDArray  # (N, 21, 2) pixels of the image
    true_joints: NDArray  # (N, 21, 4) with confidence
    true_vertices: NDArray | None  # (N, 778, 3); None unless all samples have them
    true_keypoints: NDArray  # (N, 21, 3) pixels of the image, confidence
    crop: NDArray  # (N, 2, 3) pixels of the image to pixels of the crop
    hand_size: NDArray  # (N,) pixels of the image; PCK is in parts of it, see `_hand_sizes`
    mirrored: NDArray  # (N,) 1 where the crop shows a mirrored left hand
    intrinsics: NDArray | None = None  # (N, 3, 3) of the images; None: the dataset does not know them
    missed: NDArray[np.bool_] | None = None  # (N,) hands that the detector did not find; None: boxes of the labels
    indices: NDArray[np.int64] | None = None  # (N,) of the samples in the dataset; None: all of it
    unreadable: tuple[str, ...] = ()  # descriptions of the samples that are left out

    def number(self, row: int) -> int:
        """The index in the dataset of the sample in a row."""
        return row if self.indices is None else int(self.indices[row])


class Part(NamedTuple):
    """What `_joined` needs of a batch."""

    arrays: list[NDArray]  # empty if no sample could be read
    indices: list[int]  # of its samples
    unreadable: list[str]  # descriptions of those that could not be read


class Rules(NamedTuple):
    """How a prediction is to be scored."""

    protocol: str  # one of PROTOCOLS
    joints: str  # a convention of TIPS


def predict(
    model: nn.Module,
    dataset: HandDataset,
    batch: int = 32,
    workers: int = 0,
    device: str | torch.device = "cpu",
    faults: float = 0.0,
) -> Predicted:
    """Runs the model over a dataset, once and in order; the model must be in eval mode.

    Args:
        model: a hand model.
        dataset: indexed by (epoch, index).
        batch: images at a time.
        workers: loader processes.
        device: where the model is.
        faults: DATA.FAULTS: the largest share of samples that may be unreadable, and are left out.

    Raises:
        BadSample: more samples cannot be read.
        LoaderError: a loader process died, hangs or ran out of memory.
    """
    parts = _predictions(model, dataset, _batches(dataset, batch), workers, device, faults)
    return _joined(dataset, parts, faults)


def predict_together(
    model: nn.Module, dataset: HandDataset, batch: int, workers: int, accelerator: Accelerator, faults: float = 0.0
) -> Predicted | None:
    """As `predict`, with the batches shared by all processes, each of which calls this with the same model.

    The batches are those of one process, and none is computed twice: so are the numbers and their order.

    Returns:
        The predictions, in the main process; None in the others.

    Raises:
        BadSample, LoaderError: as `predict`; in the main process, whichever read it.
    """
    rank, processes, batches = accelerator.process_index, accelerator.num_processes, _batches(dataset, batch)
    own = batches[rank::processes]
    device, muted = accelerator.device, not accelerator.is_main_process
    shares = collected(lambda: _predictions(model, dataset, own, workers, device, faults, muted), accelerator)
    if shares is None:
        return None
    parts = [shares[number % processes][number // processes] for number in range(len(batches))]
    return _joined(dataset, parts, faults)


def rules_for(dataset: HandDataset, protocol: str = "auto", joints: str = "auto") -> Rules:
    """What the user asked for; auto is the dataset's own protocol and convention.

    Raises:
        KeyError: no such protocol or convention.
        ValueError: a convention for a protocol in 2D.
    """
    if protocol not in ("auto", *PROTOCOLS):
        raise KeyError(unknown("protocol", protocol, ("auto", *PROTOCOLS)))
    if joints not in ("auto", *TIPS):
        raise KeyError(unknown("joint convention", joints, ("auto", *TIPS)))
    own = dataset.info
    rules = Rules(own.protocol if protocol == "auto" else protocol, own.tips if joints == "auto" else joints)
    if rules.protocol == "hint" and joints not in ("auto", "hamer"):
        raise ValueError(f"--joints {joints}: this protocol scores the 2D keypoints that the model itself gives")
    return rules


def evaluate(predicted: Predicted, rules: Rules, regressor: NDArray) -> dict:
    """Scores of a prediction; metrics that the labels cannot give are absent.

    Hands of which not every joint is labelled are left out, and counted as `unlabelled`; samples that could not be
    read as `unreadable`.

    Args:
        predicted: from `predict`.
        rules: from `rules_for`.
        regressor: (16, 778) the hand model's joint regressor.

    Raises:
        ValueError: a prediction that is not finite; the message names the sample.
    """
    scores = _scores(predicted, rules, regressor)
    if predicted.unreadable:
        scores["unreadable"] = len(predicted.unreadable)
    return scores if predicted.missed is None else scores | {"detector_misses": int(predicted.missed.sum())}


def _scores(predicted: Predicted, rules: Rules, regressor: NDArray) -> dict:
    if rules.protocol == "hint":
        points, known = predicted.true_keypoints[..., :2], predicted.true_keypoints[..., 2] > KNOWN
        annotated = Annotated(points, known, predicted.hand_size)
        return {**score_pck(predicted.keypoints, annotated), "joints": rules.joints}
    complete = (predicted.true_joints[..., 3] > 0).all(1)
    about = {"joints": rules.joints} | ({} if complete.all() else {"unlabelled": int((~complete).sum())})
    if not complete.any():
        warnings.warn(
            "the labels of this set are not public or not at hand: there is nothing to score, only a prediction to "
            "submit",
            stacklevel=2,
        )
        return {"n": 0, "protocol": rules.protocol, **about}
    right = predicted.mirrored == 0
    prediction, target = (
        Hands(each.joints[complete], None if each.vertices is None else each.vertices[complete], right[complete])
        for each in (hands(predicted, rules.joints, regressor), truth(predicted))
    )
    frame = "wrist" if predicted.intrinsics is None else "camera"
    return {**score(prediction, target, rules.protocol, frame), **about}


def hands(predicted: Predicted, joints: str, regressor: NDArray) -> Hands:
    """The predicted hands in the image's axes, left hands unmirrored; in the camera's frame if that is known."""
    left = predicted.mirrored > 0
    points = protocol_joints(predicted.joints, predicted.vertices, joints, regressor, left)
    seen, vertices = _in_axes(points, predicted), _in_axes(predicted.vertices, predicted)
    if predicted.intrinsics is not None:
        own = _in_axes(predicted.joints, predicted)  # what the keypoints are projections of
        place = translation_to_fit(own, predicted.keypoints, predicted.intrinsics)[:, None]
        seen, vertices = seen + place, vertices + place
    return Hands(seen, vertices, ~left)


def truth(predicted: Predicted) -> Hands:
    """The labels in the image's axes, left hands unmirrored."""
    vertices = predicted.true_vertices
    return Hands(
        _in_axes(predicted.true_joints[..., :3], predicted),
        None if vertices is None else _in_axes(vertices, predicted),
        predicted.mirrored == 0,
    )


def _batches(dataset: HandDataset, size: int) -> list[list[tuple[int, int]]]:
    """The keys of all samples in their order, `size` at a time."""
    keys = [(0, index) for index in range(len(dataset))]
    return [keys[begin : begin + size] for begin in range(0, len(keys), size)]


@loader_errors()
@torch.no_grad()
def _predictions(
    model: nn.Module,
    dataset: HandDataset,
    batches: list[list[tuple[int, int]]],
    workers: int,
    device: str | torch.device,
    faults: float,
    muted: bool = False,
) -> list[Part]:
    """For each batch what `_joined` needs of its samples; `muted` shows no progress."""
    parts, counted = [], Faults(faults)
    loader: DataLoader = DataLoader(
        Tolerant(dataset, None),
        batch_sampler=batches,  # type: ignore[arg-type]
        num_workers=workers,
        worker_init_fn=quiet_worker,
        collate_fn=_collated,  # type: ignore[arg-type]
        timeout=PATIENCE if workers else 0.0,
    )
    bar: dict[str, Any] = {"leave": False, "mininterval": 2, "unit": "batch", "disable": muted}
    for samples, indices, unreadable in tqdm(readable(loader), "evaluating", len(batches), **bar):
        counted.add(unreadable, len(dataset))
        if not indices:
            parts.append(Part([], [], unreadable))
            continue
        samples = Batch(*samples)
        hand = model(samples.image.to(device))
        outputs = hand.joints, hand.vertices, hand.camera, hand.keypoints_2d
        known = samples.joints, samples.vertices, samples.keypoints_2d, samples.has_vertices
        sizes = torch.full((len(samples.image),), samples.image.shape[-1])
        geometry = samples.crop, samples.mirrored, sizes
        arrays = [each.float().cpu().numpy() for each in (*outputs, *known, *geometry)]
        parts.append(Part(arrays, indices, unreadable))
    return parts


def _collated(read: Read) -> tuple[Any, list[int], list[str]]:
    return default_collate(read.items) if read.items else None, read.indices, [line for _, line in read.faults]


def _joined(dataset: HandDataset, parts: list[Part], faults: float) -> Predicted:
    """The whole dataset's predictions from those of its batches."""
    counted = Faults(faults)
    counted.add((line for part in parts for line in part.unreadable), len(dataset))
    indices = [index for part in parts for index in part.indices]
    joints, vertices, camera, points, true_joints, true_vertices, true_points, has_vertices, crop, mirrored, sizes = (
        np.concatenate(each) for each in zip(*(part.arrays for part in parts if part.indices), strict=True)
    )
    size = int(sizes[0])
    keypoints = np.concatenate([_in_image(true_points[..., :2], crop, size), true_points[..., 2:]], axis=-1)
    return Predicted(
        joints,
        vertices,
        camera,
        _in_image(points, crop, size),
        true_joints,
        true_vertices if has_vertices.all() else None,
        keypoints,
        crop,
        _hand_sizes(dataset, indices, keypoints),
        mirrored,
        _cameras(dataset, indices),
        _missed(dataset, indices, crop),
        np.array(indices),
        tuple(counted.lines),
    )


def _cameras(dataset: HandDataset, indices: list[int]) -> NDArray[np.float64] | None:
    """(N, 3, 3), or None where the dataset has none."""
    if not dataset.info.cameras:
        return None
    return np.stack([dataset.camera(index) for index in indices])


def _hand_sizes(dataset: HandDataset, indices: list[int], keypoints: NDArray) -> NDArray[np.float64]:
    """(N,) the longer side of the annotated box, else of that of the known keypoints (N, 21, 3), whatever was cropped.

    A hand without two known keypoints has 1: none of its errors counts.
    """
    if dataset.info.boxes and isinstance(dataset, ImageDataset):
        return np.array([dataset.raw_sample(index).box.side / 2 for index in indices])
    known = keypoints[..., 2:] > KNOWN
    low, high = (np.where(known, keypoints[..., :2], far) for far in (np.inf, -np.inf))
    extent = (high.max(1) - low.min(1)).max(1)
    return np.where(extent > 0, extent, 1.0)


def _missed(dataset: HandDataset, indices: list[int], crop: NDArray) -> NDArray[np.bool_] | None:
    """Whether each crop (N, 2, 3) is the whole image, as for a hand that was not found; None: none were sought."""
    if not isinstance(dataset, ImageDataset) or dataset.cropping.find is None:
        return None
    missed = np.zeros(len(indices), bool)
    for row, index in enumerate(indices):
        hand = dataset.raw_sample(index)
        whole = image_box(*read_image_size(hand.path, hand.upright), dataset.cropping.shape)
        affine = crop_affine(whole.centre, whole.side, dataset.image_size, mirror=hand.left)
        missed[row] = np.allclose(affine, crop[row], rtol=1e-5, atol=1e-5)
    return missed


def _in_axes(points: NDArray, predicted: Predicted) -> NDArray:
    """(N, K, 3) of the crops to the axes of the images."""
    return to_image_axes(points, predicted.crop.astype(np.float64), predicted.mirrored > 0)


def _in_image(points: NDArray, crop: NDArray, size: int) -> NDArray:
    """Crop units (N, J, 2) to pixels of the image."""
    pixels = (points.astype(np.float64) + 0.5) * size
    linear, offset = crop[:, :, :2].astype(np.float64), crop[:, :, 2].astype(np.float64)
    return np.linalg.solve(linear, (pixels - offset[:, None]).swapaxes(1, 2)).swapaxes(1, 2)
