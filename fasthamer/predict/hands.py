"""The result: the hands of one image. docs/outputs.md has every field with its frame, unit and order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

import numpy as np
from numpy.typing import NDArray

from fasthamer.data.crop import mirror_points
from fasthamer.files.image_forms import image_array
from fasthamer.predict.camera import Camera
from fasthamer.predict.mano import ManoArrays
from fasthamer.predict.orders import OrderedJoints, ordered
from fasthamer.predict.saving import save_hands

if TYPE_CHECKING:
    from fasthamer.files.image_forms import ImageLike
    from fasthamer.hand.fit import MeshFit
    from fasthamer.hand.mano import Hand
    from fasthamer.render.mesh import Colour


@dataclass(frozen=True, eq=False, repr=False)
class Hands:
    """The hands of one image, in the order of the boxes. N = len(hands), 0 where none was found.

    `hands[i]` and iteration give one `HandResult` each, `hands[i:j]` gives `Hands`. The image's camera looks along +z
    from the origin, x right, y down. Left hands are mirrored back: their points are those of left hands.
    """

    vertices: NDArray[np.float32]  # (N, 778, 3) metres, hand frame: the camera's axes, centred on the hand
    joints: NDArray[np.float32]  # (N, 21, 3) metres, OpenPose order, hand frame
    keypoints_2d: NDArray[np.float64]  # (N, 21, 2) pixels of the image: `joints_camera` through `camera`
    translation: NDArray[np.float64]  # (N, 3) metres from the hand frame to the camera frame
    right: NDArray[np.bool_]  # (N,)
    boxes: NDArray[np.float64]  # (N, 4) x1, y1, x2, y2 pixels of the image: the given or the detected ones
    score: NDArray[np.float64]  # (N,) the detector's probability of a hand; 1 for given boxes
    camera: Camera
    faces: NDArray[np.int64]  # (1538, 3) of a right hand, counter-clockwise from outside
    landmarks: NDArray[np.float64] | None = None  # (N, 21, 2) pixels, the detector's keypoints; None for given boxes
    mano: ManoArrays | None = None  # None where the model does not give them: see `fit_mano`

    @property
    def focal(self) -> float:
        """Pixels, along x."""
        return self.camera.fx

    @property
    def vertices_camera(self) -> NDArray[np.float64]:
        """(N, 778, 3) metres, camera frame."""
        return self.vertices + self.translation[:, None]

    @property
    def joints_camera(self) -> NDArray[np.float64]:
        """(N, 21, 3) metres, camera frame."""
        return self.joints + self.translation[:, None]

    def __len__(self) -> int:
        return len(self.vertices)

    @overload
    def __getitem__(self, index: int) -> HandResult: ...
    @overload
    def __getitem__(self, index: slice) -> Hands: ...
    def __getitem__(self, index: int | slice) -> HandResult | Hands:
        if isinstance(index, slice):
            return self._part(index)
        place = range(len(self))[index]  # raises IndexError
        return HandResult(self._part(slice(place, place + 1)))

    def __iter__(self) -> Iterator[HandResult]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"Hands({', '.join(map(repr, self))})"

    def _part(self, index: slice) -> Hands:
        parts = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, ManoArrays):
                value = value.take(index)
            elif field.name not in ("camera", "faces") and value is not None:
                value = value[index]
            parts[field.name] = value
        return Hands(**parts)

    def draw(self, image: ImageLike, colour: Colour | None = None, skeleton: bool = False) -> NDArray[np.uint8]:
        """A copy of the image with the meshes (or skeletons) rendered over it, far hands first."""
        from fasthamer.render.mesh import MESH_COLOURS, draw_mesh
        from fasthamer.render.overlay import draw_keypoints

        colour = MESH_COLOURS["prediction"] if colour is None else colour
        rendered = image_array(image).copy()
        fx, fy, cx, cy, _ = self.camera
        for hand in sorted(self, key=lambda each: -each.translation[2]):
            if skeleton:
                rendered = draw_keypoints(rendered, hand.keypoints_2d)
            else:
                rendered = draw_mesh(rendered, hand.vertices_camera, hand.faces, (fx, fy), (cx, cy), colour)
        return rendered

    def save(self, path: str | Path) -> None:
        """Writes all hands to a file, completely or not at all, in the format of its suffix.

        .json and .npz hold every field. .obj, .ply and .glb hold the meshes in the camera frame with a colour for each
        side: OBJ and PLY in the camera's axes (y down), GLB in glTF's (x right, y up, z towards the viewer).

        Raises:
            ValueError: another suffix, or no hands for a mesh file.
            ImportError: trimesh, which writes meshes, is not installed.
            OSError: the file cannot be written.
        """
        save_hands(Path(path), self.arrays())

    def arrays(self) -> dict[str, NDArray]:
        """Every field as an array, N first, except `camera` (fx, fy, cx, cy) and `metric`: the content of .npz."""
        optional = {"landmarks": self.landmarks} if self.landmarks is not None else {}
        if self.mano is not None:
            optional |= {f"mano_{name}": value for name, value in self.mano._asdict().items()}
        return {
            "right": self.right,
            "score": self.score,
            "boxes": self.boxes,
            "vertices": self.vertices,
            "joints": self.joints,
            "vertices_camera": self.vertices_camera,
            "joints_camera": self.joints_camera,
            "keypoints_2d": self.keypoints_2d,
            "translation": self.translation,
            "faces": np.where(self.right[:, None, None], self.faces, self.faces[:, ::-1]),
            **optional,
            "camera": np.array(self.camera[:4]),
            "metric": np.array(self.camera.metric),
        }

    def fit_mano(self, hand: Hand | str | Path) -> MeshFit:
        """The hand's pose and shape for each mesh, and the distance of their mesh from it; needs torch.

        A left hand is fitted as its mirror image and its parameters are mirrored back: they are for MANO_LEFT with the
        sign of its shape directions corrected (`fasthamer.hand.left`), or through `mirror_fit` for `hand`. The fit's
        translation is that of `vertices`: add `self.translation` for the image's frame.

        Args:
            hand: the hand that the model was trained with, or its file; "embedded" for the shipped models. The
                parameters are those of this hand.

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


class HandResult:
    """One hand of `Hands`: its fields without the axis N, and its side."""

    def __init__(self, one: Hands) -> None:
        self._one = one
        self.right = bool(one.right[0])
        self.side: Literal["left", "right"] = "right" if self.right else "left"
        self.score = float(one.score[0])
        self.box = one.boxes[0]  # (4,)
        self.vertices, self.joints = one.vertices[0], one.joints[0]  # (778, 3), (21, 3) metres, hand frame
        self.vertices_camera, self.joints_camera = one.vertices_camera[0], one.joints_camera[0]  # metres, camera frame
        self.keypoints_2d, self.translation = one.keypoints_2d[0], one.translation[0]  # (21, 2) pixels, (3,) metres
        self.camera, self.metric = one.camera, one.camera.metric
        self.faces = one.faces if self.right else one.faces[:, ::-1]  # (1538, 3) counter-clockwise from outside
        self.landmarks = None if one.landmarks is None else one.landmarks[0]  # (21, 2) pixels
        self.mano = None if one.mano is None else one.mano.take(0)

    def __repr__(self) -> str:
        return f"HandResult({self.side}, score {self.score:.2f}, box {np.round(self.box, 1).tolist()})"

    def to(self, order: str) -> OrderedJoints:
        """The joints in the order and with the fingertips of `mediapipe`, `freihand`, `ho3d`, `interhand` or `smplx`.

        Frames and units do not change. Only `freihand` and `ho3d` put fingertips on other vertices of the mesh.

        Raises:
            ValueError: no such order.
        """
        return ordered(order, self.joints, self.vertices, self.translation, self.camera.matrix, self.side)

    def save(self, path: str | Path) -> None:
        """As `Hands.save`, with this hand alone."""
        self._one.save(path)
