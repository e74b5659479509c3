"""Cameras: HaMeR's camera of the crop, the camera of the whole image, and the maps between them.

Crop units: the square crop spans [-0.5, 0.5], its centre is (0, 0). A model's camera is (s, tx, ty): s (1/m) is twice
the crop widths that one metre fills, tx and ty (m) move the hand sideways. All points are in metres, x right, y down,
z forward.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:  # exported models run without torch
    from torch import Tensor

Array = TypeVar("Array", "np.ndarray", "Tensor")

FOCAL = 5000.0  # pixels; HaMeR's focal length, whatever the size of the image or map that is projected to
CROP_PIXELS = 256.0  # side of HaMeR's crop
CROP_FOCAL = FOCAL / CROP_PIXELS  # focal length in crop widths
SKIN = 0.05  # metres; no vertex is nearer to the camera than the nearest joint by more than this


def weak_to_translation(camera: Array, side: float = CROP_PIXELS) -> Array:
    """Where a weak-perspective camera puts the hand in front of the crop's pinhole camera.

    Args:
        camera: (B, 3) s, tx, ty; array or tensor.
        side: pixels of the crop, or cells of the map, that is projected to.

    Returns:
        (B, 3) metres: tx, ty and the depth at which the focal length `FOCAL` / side gives the scale s/2.
    """
    return _behind(camera[..., 1:], 2 * (FOCAL / side) / (camera[..., :1] + 1e-9 / side))


def project(points: Array, translation: Array, side: float = CROP_PIXELS) -> Array:
    """Points of the hand to the crop, with perspective.

    Args:
        points: (B, N, 3) metres; arrays or tensors.
        translation: (B, 3) metres, as `weak_to_translation` gives it for the same `side`.
        side: see `weak_to_translation`.

    Returns:
        (B, N, 2) crop units.
    """
    placed = points + translation[:, None]
    return (FOCAL / side) * placed[..., :2] / placed[..., 2:]


def fit_weak_camera(points: Tensor, keypoints: Tensor, weight: Tensor | None = None) -> Tensor:
    """The camera (s, tx, ty) that puts 3D points onto 2D ones with the least squared error, in closed form.

    Perspective within the hand is neglected: at the crop's long focal length it is below 2 % of the hand's size.

    Args:
        points: (B, N, 3) metres, any origin.
        keypoints: (B, N, 2) crop units.
        weight: (B, N) not negative; 0 drops a point.

    Returns:
        (B, 3); the scale is at least 1e-3.
    """
    import torch

    share: Tensor | float = 1 / points.shape[1]
    if weight is not None:
        share = (weight / weight.sum(1, keepdim=True).clamp(min=1e-9))[..., None]
    source, target = points[..., :2], keypoints
    source_mean, target_mean = (share * source).sum(1), (share * target).sum(1)
    centred = source - source_mean[:, None]
    moment = (share * centred * (target - target_mean[:, None])).sum((1, 2))
    half = (moment / (share * centred.square()).sum((1, 2)).clamp(min=1e-12)).clamp(min=5e-4)[:, None]
    return torch.cat((2 * half, target_mean / half - source_mean), dim=-1)


def turn_to_fit(points: np.ndarray, keypoints: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The turn, about an axis in the image plane, after which a hand looks as in the crop.

    A label's frame is the camera's. Beside the camera's axis a hand is seen along its ray, so the crop shows it turned
    by the ray's angle, which the weak perspective of `fit_weak_camera` cannot express.

    Args:
        points: (N, 3) metres, any origin.
        keypoints: (N, 2) crop units.
        weight: (N,) not negative; 0 drops a point.

    Returns:
        (3, 3) rotation of the points.
    """
    from scipy.optimize import least_squares
    from scipy.spatial.transform import Rotation

    root = np.sqrt(weight)[:, None]
    centre = (root**2 * points).sum(0) / (root**2).sum()

    def apart(axis: np.ndarray) -> np.ndarray:
        turned = Rotation.from_rotvec([*axis, 0.0]).apply(points - centre)
        flat = np.hstack([turned[:, :2].reshape(-1, 1), np.tile(np.eye(2), (len(turned), 1))])
        both = np.repeat(root, 2, axis=0)
        camera = np.linalg.lstsq(both * flat, both[:, 0] * keypoints.ravel(), rcond=None)[0]
        return both[:, 0] * (flat @ camera - keypoints.ravel())

    return Rotation.from_rotvec([*least_squares(apart, np.zeros(2)).x, 0.0]).as_matrix()


def full_image_focal(width: float, height: float) -> float:
    """The focal length in pixels that HaMeR assumes for an image without intrinsics."""
    return CROP_FOCAL * max(width, height)


def full_image_translation(
    camera: Array, box_centre: Array, box_size: Array, image_size: Array, focal: Array | float
) -> Array:
    """Where the hand is in front of the whole image's camera (HaMeR's `cam_crop_to_full`).

    Args:
        camera: (B, 3) s, tx, ty of the crop; arrays or tensors.
        box_centre: (B, 2) pixels, the crop's centre in the image.
        box_size: (B,) pixels, the crop's side.
        image_size: (B, 2) pixels, width and height; the principal point is taken to be the middle.
        focal: pixels, (B,) or one for all; see `full_image_focal`.

    Returns:
        (B, 3) metres.
    """
    scale = box_size * camera[:, 0] + 1e-9  # pixels of the image in two metres
    depth = 2 * focal / scale
    offset = 2 * (box_centre - image_size / 2) / scale[:, None]
    return _behind(camera[:, 1:] + offset, depth[:, None])


def translation_to_fit(points: np.ndarray, pixels: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Where a hand is in front of a known camera: the translation that brings its points onto given pixels.

    The least-squares solution of (X + tx) = u (Z + tz), (Y + ty) = v (Z + tz) over all points, with (u, v) the pixels
    through the inverse intrinsics: exact where points and pixels agree, with the camera's full perspective.

    Args:
        points: (N, J, 3) metres, oriented as the camera, any origin.
        pixels: (N, J, 2) of the image.
        intrinsics: (N, 3, 3).

    Returns:
        (N, 3) metres.
    """
    points = np.asarray(points, np.float64)
    homogeneous = np.concatenate([pixels, np.ones_like(pixels[..., :1])], axis=-1).astype(np.float64)
    rays = np.linalg.solve(intrinsics, homogeneous.swapaxes(-1, -2)).swapaxes(-1, -2)  # (N, J, 3): u, v, 1
    sideways = rays[..., :2]
    gap = sideways * points[..., 2:] - points[..., :2]  # (N, J, 2) what tx - u tz and ty - v tz should be
    normal = np.zeros((len(points), 3, 3))
    normal[:, 0, 0] = normal[:, 1, 1] = points.shape[1]
    normal[:, :2, 2] = normal[:, 2, :2] = -sideways.sum(1)
    normal[:, 2, 2] = (sideways**2).sum((1, 2))
    moment = np.concatenate([gap.sum(1), -(sideways * gap).sum((1, 2))[:, None]], axis=1)
    return (np.linalg.pinv(normal, hermitian=True) @ moment[:, :, None])[:, :, 0]


def perspective_translation(points: np.ndarray, pixels: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Where a hand is in front of a camera, from a network's keypoints; it is always wholly in front of it.

    With (u, v) the pixels through the inverse intrinsics, u (Z + tz) = X + tx is linear in w = 1 / tz and the place
    a = tx / tz: u = w (X - u Z) + a, and so for v. Least squares in this form regresses the pixels on the points, as
    `fit_weak_camera` does, so noise of the keypoints does not draw the hand nearer, as in `translation_to_fit`.

    Args:
        points: (N, J, 3) metres, oriented as the camera, any origin.
        pixels: (N, J, 2) of the image.
        intrinsics: (3, 3), without skew.

    Returns:
        (N, 3) metres; the depth is at most 10 km.
    """
    points = np.asarray(points, np.float64)
    rays = (pixels - intrinsics[:2, 2]) / intrinsics[[0, 1], [0, 1]]  # (N, J, 2)
    seen = points[..., :2] - rays * points[..., 2:]
    centred = seen - seen.mean(1, keepdims=True)
    inverse = (centred * rays).sum((1, 2)) / np.maximum((centred**2).sum((1, 2)), 1e-12)
    nearest = np.maximum(SKIN - points[..., 2].min(1), SKIN)
    depth = 1 / np.clip(inverse, 1e-4, 1 / nearest)
    place = (rays * (1 + points[..., 2:] / depth[:, None, None]) - points[..., :2] / depth[:, None, None]).mean(1)
    return np.column_stack((place * depth[:, None], depth))


def project_pixels(points: Array, intrinsics: Array) -> Array:
    """Points in a camera's frame to pixels.

    Args:
        points: (..., N, 3) metres; arrays or tensors.
        intrinsics: (..., 3, 3) with the focal lengths and principal point in pixels.

    Returns:
        (..., N, 2) of the same kind.
    """
    image = points @ intrinsics.swapaxes(-1, -2)
    return image[..., :2] / image[..., 2:]


def _behind(sideways: Array, depth: Array) -> Array:
    """(..., 2) and (..., 1) to (..., 3)."""
    if isinstance(sideways, np.ndarray):
        return np.concatenate((sideways, depth), axis=-1)
    import torch

    return torch.cat((sideways, depth), dim=-1)
