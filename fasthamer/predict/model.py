"""`HandMesh`: a hand model ready to be used on images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fasthamer.camera import perspective_translation, project_pixels
from fasthamer.data.crop import (
    BOX_FACTOR,
    Box,
    box_side,
    crop_affine,
    invert,
    mirror_points,
    to_image_axes,
    transform,
    warp,
)
from fasthamer.detect.detections import Detections
from fasthamer.detect.detector import MediaPipeDetector
from fasthamer.detect.upright import upright_boxes
from fasthamer.files.image_forms import image_array
from fasthamer.predict.camera import Camera, image_camera
from fasthamer.predict.hands import Hands
from fasthamer.predict.inputs import for_each_image, given_boxes, given_rotation, is_batch
from fasthamer.predict.mano import mano_arrays
from fasthamer.predict.opening import TorchModel, open_model
from fasthamer.runtime.exported_model import ExportedModel, ModelArrays
from fasthamer.runtime.sessions import SUFFIXES
from fasthamer.types import N_JOINTS, N_VERTICES

if TYPE_CHECKING:
    from torch import nn

    from fasthamer.detect.detections import HandDetector
    from fasthamer.files.image_forms import ImageLike

CHUNK = 16  # crops that go through the model at once


class HandMesh:
    """A hand model ready to be used on images.

    Args:
        model: what `open_model` takes, a file of tools/export.py, or a student or teacher (a module in eval mode).
        hand: a MANO file, if the student was trained with one (or exported without mesh); None is the model's own.
        checkpoint: hamer.ckpt or wilor_final.ckpt, for `hamer` or `wilor`.
        device: a torch device, or auto = cuda, then mps, then cpu.
        backend: of `fasthamer.runtime.sessions.BACKENDS`, for models that are not exported; predictions differ by
            rounding.
        threads: of the CPU; 0 = the backend's choice.
        detector: finds the hands where no boxes are given; None is `MediaPipeDetector`, opened when it is first needed.

    Raises:
        FileNotFoundError, ValueError, KeyError, ImportError: no such model, or not usable; the message names the
            remedy.
    """

    def __init__(
        self,
        model: str | Path | nn.Module = "embedded",
        hand: str | Path | None = None,
        checkpoint: str = "",
        device: str = "auto",
        backend: str = "torch",
        threads: int = 0,
        detector: HandDetector | None = None,
    ) -> None:
        self._detector, self._threads = detector, threads
        if isinstance(model, str | Path) and Path(model).suffix in SUFFIXES:
            if backend not in ("torch", SUFFIXES[Path(model).suffix]):
                raise ValueError(f"{model} is exported and runs in {SUFFIXES[Path(model).suffix]}, not in {backend}")
            self.model: nn.Module | ExportedModel = ExportedModel(Path(model), hand, device, threads)
            self._predict: ExportedModel | TorchModel = self.model
        else:
            self.model = open_model(model, hand, checkpoint) if isinstance(model, str | Path) else model
            self._predict = TorchModel(self.model, device, backend, threads)
        self.faces: NDArray[np.int64] = self._predict.faces

    @overload
    def __call__(
        self,
        image: ImageLike,
        boxes: ArrayLike | None = None,
        right: ArrayLike = True,
        camera: Camera | ArrayLike | None = None,
        factor: float = BOX_FACTOR,
        rotation: ArrayLike | None = None,
    ) -> Hands: ...
    @overload
    def __call__(
        self,
        image: list[ImageLike] | tuple[ImageLike, ...],
        boxes: Sequence[ArrayLike | None] | None = None,
        right: bool | Sequence[ArrayLike] = True,
        camera: Camera | ArrayLike | None = None,
        factor: float = BOX_FACTOR,
        rotation: Sequence[ArrayLike | None] | None = None,
    ) -> list[Hands]: ...
    def __call__(self, image, boxes=None, right=True, camera=None, factor=BOX_FACTOR, rotation=None):  # type: ignore[no-untyped-def]
        """The hands in the boxes, or all that the detector finds.

        Args:
            image: (H, W, 3) uint8 RGB; or a (3, H, W) uint8 tensor; or a file's path or an image of Pillow, turned by
                its EXIF orientation. A list of them, or an array or tensor of four axes, is a batch: the result is a
                list, and `boxes`, `right` and `rotation`, if given, are lists with one entry for each image.
            boxes: (N, 4) x1, y1, x2, y2 pixels, tight around each hand; it may reach beyond the image;
                None: the detector finds hands, their boxes and sides.
            right: whether each is a right hand, as booleans, 0 and 1, or left and right; one for all. Only for
                given boxes: the detector finds sides too.
            camera: of the image, or of all of a batch: the focal length in pixels; or fx, fy, cx, cy; or the (3, 3)
                intrinsics; or `hands.camera` of another image. None takes the focal length of the file's EXIF data; if
                it has none, HaMeR's long one: depths are then not metric.
            factor: the crop is this much larger than the box, as in training.
            rotation: degrees that each hand is turned clockwise in the image, 0 where the middle knuckle is straight
                above the wrist (`fasthamer.data.crop.upright_rotation`); one for all. Only for models of `upright`
                boxes, which see the hand turned back; their results are those of the image, like any other model's.
                None: for such a model it is found by reading landmarks in the boxes.

        Raises:
            FileNotFoundError, ValueError: an image, boxes, sides, rotations or a camera of another form, boxes that do
                not fit the image, or rotations for a model whose boxes do not turn.
            ImportError: onnxruntime, which the detector needs, is missing or too old.
        """
        if not is_batch(image):
            return self._hands([self._cropped(image, boxes, right, camera, factor, rotation)])[0]
        options = [
            for_each_image(name, values, default, len(image))
            for name, values, default in (("boxes", boxes, None), ("right", right, True), ("rotation", rotation, None))
        ]
        cropped = []
        for number, (each, own_boxes, own_right, own_rotation) in enumerate(zip(image, *options, strict=True)):
            try:
                cropped.append(self._cropped(each, own_boxes, own_right, camera, factor, own_rotation))
            except (ValueError, FileNotFoundError) as error:
                kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
                raise kind(f"image {number} of the batch: {error}") from None
        return self._hands(cropped)

    def _cropped(
        self,
        source: ImageLike,
        boxes: ArrayLike | None,
        right: ArrayLike,
        camera: Camera | ArrayLike | None,
        factor: float,
        rotation: ArrayLike | None,
    ) -> _Cropped:
        """The crops of one image's hands."""
        image = image_array(source)
        seen_by = image_camera(camera, source, image.shape[1], image.shape[0])
        found = self._detected(image, boxes, right)
        size = self._predict.crop_size
        affines = [
            crop_affine(centre, side, size, turn if is_right else -turn, mirror=not is_right)
            for (centre, side, turn), is_right in zip(
                self._squares(image, found, rotation, factor), found.right, strict=True
            )
        ]
        crops = [warp(image, affine, size) for affine in affines]
        return _Cropped(found, seen_by, np.array(affines).reshape(-1, 2, 3), crops)

    def _hands(self, images: list[_Cropped]) -> list[Hands]:
        """The hands of several images, whose crops go through the model together."""
        crops = [crop for each in images for crop in each.crops]
        chunks = [np.stack(crops[first : first + CHUNK]) for first in range(0, len(crops), CHUNK)]
        predicted = _joined([self._predict(chunk.transpose(0, 3, 1, 2)) for chunk in chunks])
        ends = np.cumsum([len(each.crops) for each in images])
        return [
            self._placed(each, predicted.take(slice(end - len(each.crops), end)))
            for each, end in zip(images, ends.tolist(), strict=True)
        ]

    def _placed(self, image: _Cropped, predicted: ModelArrays) -> Hands:
        """One image's hands from the model's outputs for its crops."""
        found, camera, affines, _ = image
        left = ~found.right
        # A turned crop's hand turns back about its wrist, as MANO does: `hand(mano)` then is the mesh.
        wrist = predicted.joints[:, :1]
        shift = np.where(left[:, None, None], mirror_points(wrist), wrist) - to_image_axes(wrist, affines, left)
        vertices, joints = (to_image_axes(each, affines, left) + shift for each in predicted[:2])
        size = self._predict.crop_size
        crop_pixels = (predicted.keypoints_2d.astype(np.float64) + 0.5) * size
        pixels = [transform(invert(affine), points) for affine, points in zip(affines, crop_pixels, strict=True)]
        translation = perspective_translation(joints, np.array(pixels).reshape(-1, N_JOINTS, 2), camera.matrix)
        mano = None
        if predicted.mano is not None:
            assert isinstance(self._predict, TorchModel)
            mano = mano_arrays(predicted.mano, affines, left, self._predict.hands_mean)
        return Hands(
            vertices,
            joints,
            project_pixels(joints + translation[:, None], camera.matrix),
            translation,
            found.right,
            found.boxes,
            found.score,
            camera,
            self.faces,
            found.landmarks,
            mano,
        )

    def _detected(self, image: NDArray[np.uint8], boxes: ArrayLike | None, right: ArrayLike) -> Detections:
        """The given boxes in the form of detections, or the detector's."""
        height, width = image.shape[:2]
        if boxes is not None:
            given, is_right = given_boxes(boxes, right, width, height)
            return Detections(given, is_right, np.ones(len(given)))
        if right is not True:
            raise ValueError("right is given without boxes: give boxes too, or leave both to the detector")
        found = (self._detector or self._mediapipe)(image)
        checked, is_right = given_boxes(found.boxes, found.right, width, height)
        return found._replace(boxes=checked, right=is_right)

    def _squares(
        self, image: NDArray[np.uint8], found: Detections, rotation: ArrayLike | None, factor: float
    ) -> list[Box]:
        """What the model sees of each hand."""
        shape = self._predict.box_shape
        if shape == "upright" and rotation is None:
            return upright_boxes(image, found, self._mediapipe.landmarks, factor)
        turns = given_rotation(0.0 if rotation is None else rotation, len(found.boxes), shape)
        return [
            Box((box[:2] + box[2:]) / 2, box_side((box[2:] - box[:2]) * factor, shape), turn)
            for box, turn in zip(found.boxes, turns, strict=True)
        ]

    @cached_property
    def _mediapipe(self) -> MediaPipeDetector:
        return MediaPipeDetector(threads=self._threads)


class _Cropped(NamedTuple):
    """One image's hands before the model has seen them."""

    found: Detections
    camera: Camera
    affines: NDArray[np.float64]  # (N, 2, 3) from the image to the crops
    crops: list[NDArray[np.uint8]]  # (S, S, 3)


def _joined(parts: list[ModelArrays]) -> ModelArrays:
    if not parts:
        none = np.zeros(0, np.float32)
        vertices, joints, points = (
            none.reshape(0, N_VERTICES, 3),
            none.reshape(0, N_JOINTS, 3),
            none.reshape(0, N_JOINTS, 2),
        )
        return ModelArrays(vertices, joints, points, none.reshape(0, 3))
    mano = [part.mano for part in parts if part.mano is not None]
    vertices, joints, points, camera = map(np.concatenate, zip(*(part[:4] for part in parts), strict=True))
    joined = None
    if mano:
        orient, pose, betas = map(np.concatenate, zip(*mano, strict=True))
        joined = orient, pose, betas
    return ModelArrays(vertices, joints, points, camera, joined)
