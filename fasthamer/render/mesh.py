"""Meshes over images: shaded, or as a wireframe. NumPy and OpenCV; one CPU core draws more than 100 hands a second.

Images are (H, W, 3) uint8 RGB. Pixel coordinates are OpenCV's: the centre of the first pixel is (0, 0).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from fasthamer.render.raster import NEAR, vertex_normals

Colour = tuple[int, int, int]

MESH_COLOURS: dict[str, Colour] = {
    "truth": (214, 214, 208),
    "teacher": (122, 167, 224),
    "student": (240, 163, 108),
    "prediction": (122, 167, 224),
}

_KEY_LIGHT = np.array([-0.45, -0.75, -0.65]) / np.linalg.norm([-0.45, -0.75, -0.65])  # towards the light: upper left
_INSIDE = 0.45  # brightness of faces seen from inside: the open wrist
_THIN = 1.0  # pixels; a face seen more edge-on than this has one colour, since its gradient is steep
_SAMPLES = ((1, 1), (0, 0), (0, 2), (2, 0), (2, 2))  # of the 3 x 3 of a pixel: smooth edges
_SUBPIXEL_BITS = 4
_FAR = 2.0**20  # pixels; beyond it OpenCV's fixed-point coordinates overflow


def draw_mesh(
    image: NDArray[np.uint8],
    vertices: ArrayLike,
    faces: NDArray,
    focal: float | tuple[float, float],
    centre: tuple[float, float],
    colour: Colour | NDArray = MESH_COLOURS["prediction"],
    opacity: float = 0.95,
) -> NDArray[np.uint8]:
    """Draws a shaded mesh over an image: faces from far to near (painter's algorithm), so each hides those behind.

    Args:
        image: (H, W, 3) RGB; not changed.
        vertices: (V, 3) metres in the camera's frame: x right, y down, z forward.
        faces: (F, 3), counter-clockwise from outside; those that reach the camera are left out.
        focal: pixels, one for both axes or (fx, fy).
        centre: principal point, pixels.
        colour: RGB of the mesh, or (V, 3) 0..255 of each vertex.
        opacity: 0 to 1; 1 hides the image behind the mesh.

    Returns:
        (H, W, 3) uint8.
    """
    result = np.ascontiguousarray(image).copy()
    vertices = np.asarray(vertices, np.float32)
    pixels = _projected(vertices, focal, centre)
    faces, inside = _in_front(pixels, vertices[:, 2], faces, image.shape)
    if not len(faces):
        return result
    depth = vertices[:, 2][faces]
    order = np.argsort(-np.where(inside, depth.max(1), depth.mean(1)), kind="stable")
    faces, inside = faces[order], inside[order]
    corners = pixels[faces]  # (T, 3, 2)
    low = np.clip(np.floor(corners.min((0, 1))) - 1, 0, None).astype(int)
    high = np.clip(np.ceil(corners.max((0, 1))) + 2, 0, image.shape[1::-1]).astype(int)
    normals = vertex_normals(vertices, faces)
    colours = _shade(normals, vertices, colour)[faces]  # (T, 3, 3)
    colours[inside] = _INSIDE * _shade(-normals, vertices, colour)[faces[inside]]
    part = result[low[1] : high[1], low[0] : high[0]].copy()
    _paint(part, corners - low, colours, opacity)
    result[low[1] : high[1], low[0] : high[0]] = part
    return result


def draw_wireframe(
    image: NDArray[np.uint8],
    vertices: ArrayLike,
    faces: NDArray,
    focal: float | tuple[float, float],
    centre: tuple[float, float],
    colour: Colour = MESH_COLOURS["prediction"],
) -> NDArray[np.uint8]:
    """Draws the edges of those faces that are seen from outside; arguments as `draw_mesh`."""
    result = np.ascontiguousarray(image).copy()
    vertices = np.asarray(vertices, np.float32)
    pixels = _projected(vertices, focal, centre)
    faces, inside = _in_front(pixels, vertices[:, 2], faces, image.shape)
    edges = np.sort(faces[~inside][:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    lines = _fixed(pixels[np.unique(edges, axis=0)])
    cv2.polylines(result, list(lines), False, colour, 1, cv2.LINE_AA, _SUBPIXEL_BITS)
    return result


def _projected(vertices: NDArray, focal: float | tuple[float, float], centre: tuple[float, float]) -> NDArray:
    """(V, 2) pixels; of no meaning for vertices nearer than NEAR."""
    return vertices[:, :2] / np.maximum(vertices[:, 2:], NEAR) * np.asarray(focal) + centre


def _in_front(pixels: NDArray, depth: NDArray, faces: NDArray, shape: tuple[int, ...]) -> tuple[NDArray, NDArray]:
    """The faces (T, 3) that lie before the camera and reach into the image, and whether each is seen from inside."""
    a, b, c = (pixels[faces[:, corner]] for corner in range(3))
    (ux, uy), (vx, vy) = (b - a).T, (c - a).T
    low, high = np.minimum(np.minimum(a, b), c), np.maximum(np.maximum(a, b), c)
    kept = (depth[faces] >= NEAR).all(1) & (high > -1).all(1) & (low < [shape[1], shape[0]]).all(1)
    return faces[kept], (ux * vy - uy * vx)[kept] > 0


def _paint(part: NDArray[np.uint8], corners: NDArray, colours: NDArray, opacity: float) -> None:
    """Draws triangles into an image, each over those before it; a pixel is the mean of five samples.

    Args:
        part: (H, W, 3), contiguous; changed.
        corners: (T, 3, 2) pixels.
        colours: (T, 3, 3) 0..255, of the corners.
    """
    height, width = part.shape[:2]
    # 1 + the uppermost triangle at each of 3 x 3 samples of a pixel, 0 for none.
    top = np.zeros((3 * height, 3 * width), np.uint16 if len(corners) < 2**16 else np.int32)
    fill = cv2.fillConvexPoly  # OpenCV has no call for many triangles
    whole = np.rint(np.clip(3 * corners + 1, -_FAR, _FAR)).astype(np.int32)  # fixed-point ones take twice as long
    for number, triangle in enumerate(whole, 1):
        fill(top, triangle, number)
    samples = np.stack([top[y::3, x::3] for y, x in _SAMPLES]).reshape(len(_SAMPLES), -1)
    same = np.equal(samples[1:], samples[0]).all(0)  # most pixels: one sample is enough
    inside, edge = np.flatnonzero(same & (samples[0] > 0)), np.flatnonzero(~same)
    gradients = np.concatenate([np.zeros((9, 1), np.float32), _gradients(corners, colours)], axis=1)
    flat = part.reshape(-1, 3)
    for pixel, numbers in ((inside, samples[:1, inside]), (edge, samples[:, edge])):
        y = pixel // width
        across, down, rest = sum(np.take(gradients, each, axis=1) for each in numbers).reshape(3, 3, -1)
        mesh = across * (pixel - y * width).astype(np.float32) + down * y.astype(np.float32) + rest  # (3, N)
        share = np.float32(opacity / len(numbers))
        shown = 1 - share * (numbers > 0).sum(0, dtype=np.float32)
        flat[pixel] = np.clip(share * mesh + shown * flat[pixel].T + 0.5, 0, 255).T  # rounds


def _gradients(corners: NDArray, colours: NDArray) -> NDArray[np.float32]:
    """(9, T): each triangle's colour is the sum of 3 values times x, 3 times y, and 3."""
    first, u, v = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    longest = np.sqrt(np.maximum(np.maximum(u**2, v**2), (u - v) ** 2).sum(1))
    thin = np.abs(area) <= _THIN * longest  # one of no area at all, too
    scale = np.where(thin, 0, 1 / np.where(thin, 1, area))[:, None]
    by_u, by_v = colours[:, 1] - colours[:, 0], colours[:, 2] - colours[:, 0]
    along_x = (by_u * v[:, 1:] - by_v * u[:, 1:]) * scale
    along_y = (by_v * u[:, :1] - by_u * v[:, :1]) * scale
    start = np.where(thin[:, None], colours.mean(1), colours[:, 0])
    rest = start - along_x * first[:, :1] - along_y * first[:, 1:]
    return np.concatenate([along_x, along_y, rest], axis=1).T.astype(np.float32)


def _fixed(points: NDArray) -> NDArray[np.int32]:
    """Pixel coordinates as OpenCV's fixed-point numbers."""
    return np.rint(np.clip(points, -_FAR, _FAR) * 2**_SUBPIXEL_BITS).astype(np.int32)


def _shade(normals: NDArray, points: NDArray, colour: Colour | NDArray) -> NDArray[np.float32]:
    """Colours 0..255 (V, 3) of surface points: a light from the upper left, ambient light, a soft highlight."""
    view = -points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-9)
    facing = np.clip((normals * view).sum(1, keepdims=True), 0, 1)
    key = np.clip(normals @ _KEY_LIGHT, 0, 1)[:, None]
    sky = 0.5 - 0.5 * normals[:, 1:2]
    halfway = view + _KEY_LIGHT
    halfway /= np.linalg.norm(halfway, axis=1, keepdims=True)
    gloss = np.clip((normals * halfway).sum(1), 0, 1)[:, None] ** 28
    light = (0.46 + 0.16 * sky + 0.58 * key) * (1 - 0.28 * (1 - facing) ** 2)
    return np.clip(np.asarray(colour, np.float32) * light + 38 * gloss, 0, 255).astype(np.float32)
