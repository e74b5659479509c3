"""Visualisation: shaded meshes and skeletons over images, views from the side, and labelled grids of images.

Images are (H, W, 3) uint8 RGB. Pixel coordinates are OpenCV's: the centre of the first pixel is (0, 0).
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from fasthamer.camera import CROP_FOCAL, weak_to_translation
from fasthamer.hand.conventions import OPENPOSE_BONES
from fasthamer.render.raster import interpolate, rasterize, vertex_normals

Colour = tuple[int, int, int]

MESH_COLOURS: dict[str, Colour] = {
    "truth": (214, 214, 208),
    "teacher": (122, 167, 224),
    "student": (240, 163, 108),
    "prediction": (122, 167, 224),
}
FINGER_COLOURS: tuple[Colour, ...] = ((255, 140, 60), (250, 205, 50), (90, 200, 90), (70, 150, 250), (200, 100, 230))
WRIST_COLOUR: Colour = (235, 235, 235)
PAPER: Colour = (250, 250, 248)
INK: Colour = (45, 48, 56)

_KEY_LIGHT = np.array([-0.45, -0.75, -0.65]) / np.linalg.norm([-0.45, -0.75, -0.65])  # towards the light: upper left
_SUPERSAMPLING = 2  # the mesh is rendered this many times larger and averaged, for smooth edges
_SUBPIXEL_BITS = 4


def draw_mesh(
    image: NDArray[np.uint8],
    vertices: ArrayLike,
    faces: NDArray,
    focal: float | tuple[float, float],
    centre: tuple[float, float],
    colour: Colour = MESH_COLOURS["prediction"],
    opacity: float = 0.95,
) -> NDArray[np.uint8]:
    """Draws a shaded mesh over an image.

    Args:
        image: (H, W, 3) RGB; not changed.
        vertices: (V, 3) metres in the camera's frame: x right, y down, z forward.
        faces: (F, 3), counter-clockwise from outside.
        focal: pixels, one for both axes or (fx, fy).
        centre: principal point, pixels.
        opacity: 0 to 1; 1 hides the image behind the mesh.

    Returns:
        (H, W, 3) uint8.
    """
    height, width = image.shape[:2]
    k = _SUPERSAMPLING
    fx, fy = (focal, focal) if isinstance(focal, int | float) else focal
    vertices = np.asarray(vertices, np.float32)
    middle = (centre[0] + 0.5) * k - 0.5, (centre[1] + 0.5) * k - 0.5  # integers are pixel centres, not corners
    fragments = rasterize(vertices, faces, (fx * k, fy * k), middle, width * k, height * k)
    covered = fragments.face >= 0
    layer = np.zeros((height * k, width * k, 4), np.float32)  # RGB times coverage, and coverage
    if covered.any():
        normals = interpolate(fragments, faces, vertex_normals(vertices, faces))
        points = interpolate(fragments, faces, vertices)
        layer[covered, :3] = _shade(normals, points, colour)
        layer[covered, 3] = 1
    layer = cv2.resize(layer, (width, height), interpolation=cv2.INTER_AREA) * opacity
    result = layer[:, :, :3] + image * (1 - layer[:, :, 3:])
    return np.clip(np.rint(result), 0, 255).astype(np.uint8)


def overlay_hand(
    crop: NDArray[np.uint8],
    vertices: ArrayLike,
    camera: ArrayLike,
    faces: NDArray,
    colour: Colour,
    opacity: float = 0.95,
) -> NDArray[np.uint8]:
    """Draws the mesh of one `HandOutput` sample over its crop.

    Args:
        crop: (S, S, 3) RGB, the model's input.
        vertices: (778, 3) metres.
        camera: (3,) weak perspective (s, tx, ty).
    """
    size = crop.shape[0]
    placed = np.asarray(vertices) + crop_translation(camera)
    return draw_mesh(crop, placed, faces, CROP_FOCAL * size, (size / 2, size / 2), colour, opacity)


def crop_translation(camera: ArrayLike) -> NDArray[np.float64]:
    """(3,) metres: translation of the hand for a weak-perspective camera (s, tx, ty)."""
    return weak_to_translation(np.asarray(camera, np.float64)[None])[0]


def crop_pixels(keypoints: ArrayLike, size: int) -> NDArray[np.float64]:
    """Crop units (..., 2) to pixels of a crop of `size` pixels."""
    return (np.asarray(keypoints, np.float64) + 0.5) * size


def draw_keypoints(
    image: NDArray[np.uint8], keypoints: ArrayLike, colour: Colour | None = None, visible: ArrayLike | None = None
) -> NDArray[np.uint8]:
    """Draws a hand's skeleton over an image.

    Args:
        image: (H, W, 3) RGB; not changed.
        keypoints: (21, 2) pixels, OpenPose order.
        colour: of all bones; None: one colour per finger.
        visible: (21,) true for known keypoints; None: all with finite coordinates.
    """
    points = np.asarray(keypoints, np.float64)
    known = np.asarray(np.isfinite(points).all(axis=1))
    if visible is not None:
        known = known & np.asarray(visible, bool)
    canvas = np.ascontiguousarray(image).copy()
    width = max(1, round(min(image.shape[:2]) / 110))
    limit = 8 * max(image.shape[:2])  # far outside, OpenCV's fixed-point coordinates overflow
    fixed = np.rint(np.clip(np.where(known[:, None], points, 0), -limit, limit) * 2**_SUBPIXEL_BITS).astype(int)
    for parent, child in OPENPOSE_BONES:
        if known[parent] and known[child]:
            bone = colour or FINGER_COLOURS[(child - 1) // 4]
            cv2.line(canvas, fixed[parent], fixed[child], bone, width, cv2.LINE_AA, _SUBPIXEL_BITS)
    for joint in np.flatnonzero(known):
        dot = colour or (WRIST_COLOUR if joint == 0 else FINGER_COLOURS[(joint - 1) // 4])
        radius = int(width * 1.4 * 2**_SUBPIXEL_BITS)
        cv2.circle(canvas, fixed[joint], radius, dot, -1, cv2.LINE_AA, _SUBPIXEL_BITS)
    return canvas


def turned_view(
    vertices: ArrayLike,
    faces: NDArray,
    degrees: float = 90.0,
    size: int = 256,
    extent: float = 0.22,
    colour: Colour = MESH_COLOURS["prediction"],
) -> NDArray[np.uint8]:
    """Draws the mesh, rotated about the vertical axis, on a plain background.

    Args:
        vertices: (V, 3) metres, any origin.
        degrees: rotation; 90 shows the mesh from the image's right.
        extent: metres across the image; use the same value for meshes to be compared.
    """
    background = np.full((size, size, 3), PAPER, np.uint8)
    points = np.asarray(vertices, np.float64)
    placed = _rotated(points, points.mean(0), degrees) + np.array([0, 0, CROP_FOCAL * extent])
    focal = CROP_FOCAL * size
    return draw_mesh(background, placed, faces, focal, (size / 2, size / 2), colour, opacity=1.0)


def skeletons_view(
    prediction: ArrayLike, truth: ArrayLike, degrees: float = 0.0, size: int = 256, extent: float = 0.22
) -> NDArray[np.uint8]:
    """Draws two skeletons (21, 3), metres, aligned at the wrist: the true one grey, the predicted one coloured."""
    background = np.full((size, size, 3), PAPER, np.uint8)
    truth = np.asarray(truth, np.float64)
    moved = np.asarray(prediction, np.float64) - np.asarray(prediction)[0] + truth[0]
    both = np.concatenate([truth, moved])
    middle = (both.min(0) + both.max(0)) / 2
    for joints, colour in ((truth, (150, 150, 150)), (moved, None)):
        flat = _rotated(joints, middle, degrees)[:, :2]  # without perspective: both keep their sizes
        background = draw_keypoints(background, crop_pixels(flat / extent, size), colour)
    return background


def sheet(
    rows: Sequence[Sequence[NDArray[np.uint8]]],
    columns: Sequence[str] = (),
    captions: Sequence[Sequence[str]] = (),
    cell: int = 256,
) -> NDArray[np.uint8]:
    """Arranges images in a labelled grid.

    Args:
        rows: images of any size, resized to `cell` x `cell` pixels.
        columns: a heading per column.
        captions: a line of text below each image, possibly empty.
        cell: pixels.

    Raises:
        ValueError: no rows, or rows of different lengths.
    """
    if not rows or len({len(row) for row in rows}) != 1:
        raise ValueError("a sheet needs at least one row, and rows of the same length")
    gap, text = 10, 16
    head, foot = (text + 14 if columns else 0), (text + 8 if captions else 0)
    count = len(rows[0])
    page = Image.new("RGB", (gap + count * (cell + gap), head + gap + len(rows) * (cell + foot + gap)), PAPER)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(text)
    for column, title in enumerate(columns):
        pen.text((gap + column * (cell + gap) + cell / 2, gap + head / 2), title, INK, font, anchor="mm")
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            x, y = gap + column * (cell + gap), head + gap + row * (cell + foot + gap)
            page.paste(Image.fromarray(_resized(image, cell)), (x, y))
            if captions:
                below = (x + cell / 2, y + cell + foot / 2)
                pen.text(below, captions[row][column], INK, ImageFont.load_default(text - 2), anchor="mm")
    return np.asarray(page).copy()


def _resized(image: NDArray[np.uint8], cell: int) -> NDArray[np.uint8]:
    shrinks = image.shape[0] > cell
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (cell, cell), interpolation=interpolation), np.uint8)


def _rotated(points: NDArray, middle: NDArray, degrees: float) -> NDArray:
    """Points (N, 3) rotated about the vertical axis through `middle`, and `middle` moved to the origin."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return (points - middle) @ np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]).T


def _shade(normals: NDArray, points: NDArray, colour: Colour) -> NDArray[np.float32]:
    """Colours 0..255 (N, 3) of surface points: a light from the upper left, ambient light, a soft highlight.

    Faces seen from inside (the open wrist) are lit like their outside and darkened.
    """
    view = -points / np.linalg.norm(points, axis=1, keepdims=True)
    normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    facing = (normals * view).sum(1, keepdims=True)
    normals = np.where(facing < 0, -normals, normals)
    key = np.clip(normals @ _KEY_LIGHT, 0, 1)[:, None]
    sky = 0.5 - 0.5 * normals[:, 1:2]
    edge = 1 - np.abs(facing)
    halfway = view + _KEY_LIGHT
    halfway /= np.linalg.norm(halfway, axis=1, keepdims=True)
    gloss = np.clip((normals * halfway).sum(1), 0, 1)[:, None] ** 28
    light = (0.46 + 0.16 * sky + 0.58 * key) * (1 - 0.28 * edge**2)
    light = np.where(facing < -0.05, 0.45 * light, light)
    return np.clip(np.array(colour, np.float32) * light + 38 * gloss, 0, 255).astype(np.float32)
