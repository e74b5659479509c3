"""The vocabulary every part of fasthamer speaks: model outputs and training batches, with shapes, units and frames.

Frames. Cameras look along +z; x points right, y down. A model sees a square crop of a *right* hand (left hands are
mirrored when cropped, mirrored back at the output). Joints are in OpenPose order. Lengths are metres.
Crop units: the crop spans [-0.5, 0.5] in x and y, (0, 0) is its centre.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:  # exported models run without torch
    from torch import Tensor

N_VERTICES = 778
N_FACES = 1538
N_JOINTS = 21  # OpenPose order: wrist, then thumb, index, middle, ring, pinky, each from base to tip
N_BETAS = 10
N_HAND_JOINTS = 15  # articulated joints of MANO beside the wrist


class ManoParams(NamedTuple):
    """Absolute rotations (the mean pose is already in them), as `smplx.MANOLayer` takes them."""

    global_orient: Tensor  # (B, 1, 3, 3)
    hand_pose: Tensor  # (B, 15, 3, 3), MANO joint order
    betas: Tensor  # (B, 10)


class HandOutput(NamedTuple):
    """What every hand model returns. B = batch.

    `vertices` and `joints` are oriented like the crop's camera and centred on the hand (zero MANO translation), so
    they compare after subtracting a root; `camera` places them: see `fasthamer.camera`.
    """

    vertices: Tensor  # (B, 778, 3) metres
    joints: Tensor  # (B, 21, 3) metres, same frame as the vertices
    keypoints_2d: Tensor  # (B, 21, 2) crop units
    camera: Tensor  # (B, 3) weak perspective (s, tx, ty), as HaMeR
    features: Tensor  # (B, C, h, w) the backbone's map; its cells tile the model's `view`
    mano: ManoParams | None = None
    logits: Tensor | None = None  # (B, M, K) token decoders only


class View(NamedTuple):
    """The part of the crop that a backbone sees, in crop units."""

    left: float = -0.5
    top: float = -0.5
    right: float = 0.5
    bottom: float = 0.5


class HandModel(Protocol):
    """Teacher or student: `model(image) -> HandOutput`.

    `image` is (B, 3, S, S), RGB, values 0..255 of any dtype: normalising and resizing to `image_size` is the model's.
    """

    image_size: int  # pixels; the side of the square crop it works on
    view: View  # what `HandOutput.features` covers
    feature_channels: int  # C of `HandOutput.features`

    def __call__(self, image: Tensor) -> HandOutput: ...


class Batch(NamedTuple):
    """Training and evaluation samples, collated; a dataset's item is a `Batch` without its first axis.

    A label that is not there has confidence or flag 0 and zeros in its place: every loss term masks itself.
    """

    image: Tensor  # (B, 3, S, S) uint8, RGB, right hands
    keypoints_2d: Tensor  # (B, 21, 3) x, y in crop units, confidence
    joints: Tensor  # (B, 21, 4) x, y, z in metres, confidence; any origin: compare after subtracting joint 0
    vertices: Tensor  # (B, 778, 3) metres, same origin as the joints
    has_vertices: Tensor  # (B,) 1.0 or 0.0
    global_orient: Tensor  # (B, 1, 3, 3)
    hand_pose: Tensor  # (B, 15, 3, 3)
    betas: Tensor  # (B, 10)
    has_pose: Tensor  # (B,) 1.0 or 0.0: global_orient and hand_pose are labels
    has_betas: Tensor  # (B,) 1.0 or 0.0
    mirrored: Tensor  # (B,) 1.0 where the crop is a mirrored left hand
    crop: Tensor  # (B, 2, 3) affine map from source pixels (x, y, 1) to crop pixels, mirroring included
    index: Tensor  # type: ignore[assignment]  # (B,) int64, the sample's number in its dataset
