"""Hands in an image, for users of a trained model.

from fasthamer.predict import HandMesh
hands = HandMesh("mobilenetv3_l")                          # or "embedded", "hamer", "wilor", "runs/mine", x.onnx
found = hands("image.jpg")                                 # or with boxes=[[120, 80, 260, 240]], right=[True]
found.vertices, found.keypoints_2d                         # metres; pixels of the image
image = found.draw("image.jpg")
fitted = found.fit_mano("MANO_RIGHT.pkl")                  # MANO's parameters: see docs/mano_fit.md

An exported .onnx or .xml file needs neither torch nor smplx. This is the one module of the package `fasthamer` itself
that imports students and teachers: it opens them, so it stands above them.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fasthamer.camera import full_image_focal, full_image_translation
from fasthamer.data.crop import (
    BOX_FACTOR,
    Box,
    box_problem,
    box_side,
    crop_affine,
    invert,
    mirror_points,
    shape_for,
    to_image_axes,
    transform,
    warp,
)
from fasthamer.detect.detections import Detections
from fasthamer.detect.detector import MediaPipeDetector
from fasthamer.detect.upright import upright_boxes
from fasthamer.files.image_forms import image_array
from fasthamer.hand.sides import are_right
from fasthamer.runtime.exported_model import ExportedModel, ModelArrays
from fasthamer.runtime.sessions import SUFFIXES, open_session
from fasthamer.types import View

if TYPE_CHECKING:
    from torch import nn

    from fasthamer.detect.detections import HandDetector
    from fasthamer.files.image_forms import ImageLike
    from fasthamer.hand.fit import MeshFit
    from fasthamer.hand.mano import Hand
    from fasthamer.render.overlay import Colour

STUDENT_FILE = "student.safetensors"


class Prediction(NamedTuple):
    """The hands of one image, in the order of the boxes. N = hands, 0 where none was found.

    The image's camera looks along +z from the origin, x right, y down; `vertices + translation[:, None]` are in
    its frame. Left hands are mirrored back: their vertices and joints are those of left hands.
    """

    vertices: NDArray[np.float32]  # (N, 778, 3) metres, centred on the hand
    joints: NDArray[np.float32]  # (N, 21, 3) metres, OpenPose order, same frame
    keypoints_2d: NDArray[np.float64]  # (N, 21, 2) pixels of the image
    translation: NDArray[np.float64]  # (N, 3) metres; metric only if the focal length is the camera's
    right: NDArray[np.bool_]  # (N,)
    focal: float  # pixels; the principal point is the middle of the image
    faces: NDArray[np.int64]  # (1538, 3) of a right hand
    boxes: NDArray[np.float64]  # (N, 4) x1, y1, x2, y2 pixels of the image: the given or the detected ones
    score: NDArray[np.float64]  # (N,) the detector's probability of a hand; 1 for given boxes
    landmarks: NDArray[np.float64] | None = None  # (N, 21, 2) pixels, the detector's keypoints; None for given boxes

    def draw(self, image: ImageLike, colour: Colour | None = None, skeleton: bool = False) -> NDArray[np.uint8]:
        """A copy of the image with the meshes (or skeletons) rendered over it, far hands first."""
        from fasthamer.render.overlay import MESH_COLOURS, draw_keypoints, draw_mesh

        colour = MESH_COLOURS["prediction"] if colour is None else colour
        rendered = image_array(image).copy()
        centre = rendered.shape[1] / 2, rendered.shape[0] / 2
        for hand in np.argsort(-self.translation[:, 2]):
            if skeleton:
                rendered = draw_keypoints(rendered, self.keypoints_2d[hand])
            else:
                faces = self.faces if self.right[hand] else self.faces[:, ::-1]  # mirroring turns them inside out
                moved = self.vertices[hand] + self.translation[hand]
                rendered = draw_mesh(rendered, moved, faces, self.focal, centre, colour)
        return rendered

    def fit_mano(self, hand: Hand | str | Path) -> MeshFit:
        """MANO's parameters for each mesh, and the distance of their mesh from it; needs torch.

        A left hand is fitted as its mirror image and its parameters are mirrored back: they are for MANO_LEFT with the
        sign of its shape directions corrected (`fasthamer.hand.left`), or through `mirror_fit` for `hand`. The fit's
        translation is that of `vertices`: add `self.translation` for the image's frame.

        Args:
            hand: the hand that the model was trained with, or its file, or "embedded".

        Raises:
            FileNotFoundError, ValueError: no usable file, or a hand with another mesh topology.
        """
        import torch

        from fasthamer.hand.fit import fit_mano, mirror_fit
        from fasthamer.hand.mano import load_hand

        hand = load_hand(hand) if isinstance(hand, str | Path) else hand
        if not np.array_equal(hand.faces, self.faces):
            raise ValueError(f"the mesh of {hand.name} is not this one: give the hand that the model was trained with")
        left = torch.from_numpy(~self.right)
        vertices = np.where(self.right[:, None, None], self.vertices, mirror_points(self.vertices))
        return mirror_fit(fit_mano(torch.from_numpy(vertices), hand), left)


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
            self._predict: ExportedModel | _TorchModel = self.model
        else:
            self.model = open_model(model, hand, checkpoint) if isinstance(model, str | Path) else model
            self._predict = _TorchModel(self.model, device, backend, threads)
        self.faces: NDArray[np.int64] = self._predict.faces

    def __call__(
        self,
        image: ImageLike,
        boxes: ArrayLike | None = None,
        right: ArrayLike = True,
        focal: float | None = None,
        factor: float = BOX_FACTOR,
        rotation: ArrayLike | None = None,
    ) -> Prediction:
        """The hands in the boxes, or all that the detector finds.

        Args:
            image: (H, W, 3) uint8 RGB; or a (3, H, W) uint8 tensor; or a file's path or an image of Pillow, turned by
                its EXIF orientation.
            boxes: (N, 4) x1, y1, x2, y2 pixels, tight around each hand; it may reach beyond the image;
                None: the detector finds hands, their boxes and sides.
            right: whether each is a right hand, as booleans, 0 and 1, or left and right; one for all. Only for
                given boxes: the detector finds sides too.
            focal: of the image's camera, pixels; None takes HaMeR's long focal length: depths are then not metric.
            factor: the crop is this much larger than the box, as in training.
            rotation: degrees that each hand is turned clockwise in the image, 0 where the middle knuckle is straight
                above the wrist (`fasthamer.data.crop.upright_rotation`); one for all. Only for models of `upright`
                boxes, which see the hand turned back; their results are those of the image, like any other model's.
                None: for such a model it is found by reading landmarks in the boxes.

        Raises:
            FileNotFoundError, ValueError: an image, boxes, sides or rotations of another form, boxes that do not fit
                the image, or rotations for a model whose boxes do not turn.
            ImportError: onnxruntime, which the detector needs, is missing or too old.
        """
        image = image_array(image)
        height, width = image.shape[:2]
        found = self._hands(image, boxes, right)
        boxes, is_right = found.boxes, found.right
        focal = full_image_focal(width, height) if focal is None else focal
        squares = self._squares(image, found, rotation, factor)
        size = self._predict.crop_size
        affines = [
            crop_affine(centre, side, size, turn if is_a_right else -turn, mirror=not is_a_right)
            for (centre, side, turn), is_a_right in zip(squares, is_right, strict=True)
        ]
        if not affines:
            return _no_hands(focal, self.faces, found)
        crops = np.stack([warp(image, affine, size) for affine in affines])
        vertices, joints, points, camera = self._predict(crops.transpose(0, 3, 1, 2))
        sideways = np.pad(camera[:, None, 1:], ((0, 0), (0, 0), (0, 1)))
        vertices, joints, sideways = (
            to_image_axes(each, np.stack(affines), ~is_right) for each in (vertices, joints, sideways)
        )
        camera = np.column_stack((camera[:, 0], sideways[:, 0, :2]))
        pixels = [
            transform(invert(a), (p + 0.5) * size) for a, p in zip(affines, points.astype(np.float64), strict=True)
        ]
        centres, sides = np.stack([each.centre for each in squares]), np.array([each.side for each in squares])
        translation = full_image_translation(
            camera.astype(np.float64), centres, sides, np.array([[width, height]], np.float64), focal
        )
        return Prediction(
            vertices,
            joints,
            np.stack(pixels),
            translation,
            is_right,
            focal,
            self.faces,
            boxes,
            found.score,
            found.landmarks,
        )

    def _hands(self, image: NDArray[np.uint8], boxes: ArrayLike | None, right: ArrayLike) -> Detections:
        """The given boxes in the form of detections, or the detector's."""
        height, width = image.shape[:2]
        if boxes is not None:
            given, is_right = _checked(boxes, right, width, height)
            return Detections(given, is_right, np.ones(len(given)))
        if right is not True:
            raise ValueError("right is given without boxes: give boxes too, or leave both to the detector")
        found = (self._detector or self._mediapipe)(image)
        checked, is_right = _checked(found.boxes, found.right, width, height)
        return found._replace(boxes=checked, right=is_right)

    def _squares(
        self, image: NDArray[np.uint8], found: Detections, rotation: ArrayLike | None, factor: float
    ) -> list[Box]:
        """What the model sees of each hand."""
        shape = self._predict.box_shape
        if shape == "upright" and rotation is None:
            return upright_boxes(image, found, self._mediapipe.landmarks, factor)
        turns = _checked_rotation(0.0 if rotation is None else rotation, len(found.boxes), shape)
        return [
            Box((box[:2] + box[2:]) / 2, box_side((box[2:] - box[:2]) * factor, shape), turn)
            for box, turn in zip(found.boxes, turns, strict=True)
        ]

    @cached_property
    def _mediapipe(self) -> MediaPipeDetector:
        return MediaPipeDetector(threads=self._threads)


class _TorchModel:
    """A student or teacher, with the interface of `ExportedModel`."""

    def __init__(self, model: nn.Module, device: str, backend: str, threads: int) -> None:
        self.model = model
        self.session = open_session(model, backend, "auto", device, threads=threads)
        self.box_shape = shape_for(model)
        self.faces: NDArray[np.int64] = model.hand.faces  # type: ignore[assignment, union-attr]

    @property
    def crop_size(self) -> int:
        view: View = self.model.view  # type: ignore[assignment]
        image_size: int = self.model.image_size  # type: ignore[assignment]
        return round(image_size / (view.bottom - view.top))  # the part inside the view is then not resized

    def __call__(self, crops: NDArray[np.uint8]) -> ModelArrays:
        found = self.session(crops)
        return found["vertices"], found["joints"], found["keypoints_2d"], found["camera"]


def open_model(source: str | Path, hand: str | Path | None = None, checkpoint: str = "") -> nn.Module:
    """A teacher or a student in eval mode, by name, file or run directory.

    Args:
        source: a shipped student (`fasthamer zoo`), embedded (the teacher that fasthamer ships), hamer, wilor, a
            student's file, a run directory, or a checkpoint of Fast-HaMeR (.ckpt).
        hand: embedded or a MANO file; None is the embedded hand, for checkpoints the one inside.
        checkpoint: hamer.ckpt or wilor_final.ckpt; empty looks at FASTHAMER_HAMER_CKPT or FASTHAMER_WILOR_CKPT.

    Raises:
        FileNotFoundError, ValueError, KeyError: nothing of that name, or not usable; the message names the remedy.
    """
    from fasthamer.hand.mano import load_hand
    from fasthamer.students import load_student
    from fasthamer.students.shipped import shipped_students
    from fasthamer.teachers import TEACHERS, build_teacher

    shipped = shipped_students()
    if str(source) in TEACHERS:
        return build_teacher(str(source), checkpoint, None if hand is None else load_hand(hand), "fp32")
    path = shipped.get(str(source), Path(source))
    path = path / STUDENT_FILE if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(
            f"no model {str(source)!r}: give {', '.join([*shipped, *sorted(TEACHERS)])}, a {STUDENT_FILE}, a run "
            "directory or a checkpoint of Fast-HaMeR (.ckpt)"
        )
    return load_student(path, None if hand is None else load_hand(hand))


def _checked(
    boxes: ArrayLike, right: ArrayLike, width: int, height: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    boxes = np.asarray(boxes, np.float64)
    if boxes.size == 0:
        boxes = boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes have shape {boxes.shape}; expected (N, 4): x1, y1, x2, y2 in pixels")
    good = np.isfinite(boxes).all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)
    if not good.all():
        index = int(np.argmin(good))
        raise ValueError(f"box {index} is {boxes[index].tolist()}; expected x1 < x2 and y1 < y2")
    for index, box in enumerate(boxes):
        if problem := box_problem(box[:2], box[2:], width, height):
            raise ValueError(f"box {index}, {box.tolist()}, {problem}")
    is_right = are_right(right)
    if is_right.ndim > 1:
        raise ValueError(f"right has shape {is_right.shape}; expected (N,), or one for all")
    if is_right.ndim and len(is_right) != len(boxes):
        raise ValueError(f"{len(boxes)} boxes but {len(is_right)} values of right: give one for each, or one for all")
    return boxes, np.broadcast_to(is_right, len(boxes)).copy()


def _checked_rotation(rotation: ArrayLike, count: int, shape: str) -> list[float]:
    """One number for each of `count` boxes, degrees."""
    rotation = np.asarray(rotation, np.float64)
    if rotation.ndim > 1 or (rotation.ndim and len(rotation) != count) or not np.isfinite(rotation).all():
        raise ValueError(f"rotation is {rotation.tolist()} for {count} boxes: give degrees for each, or one for all")
    if shape != "upright" and rotation.any():
        raise ValueError(f"this model's boxes are {shape} and do not turn: rotation is for a model of upright boxes")
    return np.broadcast_to(rotation, count).tolist()


def _no_hands(focal: float, faces: NDArray, found: Detections) -> Prediction:
    shapes = (0, 778, 3), (0, 21, 3), (0, 21, 2), (0, 3), (0, 4)
    vertices, joints, points, translation, boxes = (np.zeros(shape) for shape in shapes)
    right, landmarks = np.zeros(0, bool), found.landmarks
    return Prediction(vertices, joints, points, translation, right, focal, faces, boxes, np.zeros(0), landmarks)  # type: ignore[arg-type]
