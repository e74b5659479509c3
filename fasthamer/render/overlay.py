"""Visualisation: meshes and skeletons over images, views from the side and from above, and labelled grids of images.

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
from fasthamer.render.mesh import MESH_COLOURS, Colour, draw_mesh

FINGER_COLOURS: tuple[Colour, ...] = ((255, 140, 60), (250, 205, 50), (90, 200, 90), (70, 150, 250), (200, 100, 230))
WRIST_COLOUR: Colour = (235, 235, 235)
PAPER: Colour = (250, 250, 248)
INK: Colour = (45, 48, 56)

_SUBPIXEL_BITS = 4


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
    colour: Colour | NDArray = MESH_COLOURS["prediction"],
    tilt: float = 0.0,
) -> NDArray[np.uint8]:
    """Draws the mesh, rotated about the vertical axis, on a plain background.

    Args:
        vertices: (V, 3) metres, any origin.
        faces: (F, 3), counter-clockwise from outside.
        degrees: rotation; 90 shows the mesh from the image's right.
        size: pixels of the view's sides.
        extent: metres across the image; use the same value for meshes to be compared.
        colour: of the mesh, or (V, 3) 0..255 of each vertex.
        tilt: degrees of a second rotation, about the horizontal axis; 90 shows the mesh from above.
    """
    background = np.full((size, size, 3), PAPER, np.uint8)
    points = np.asarray(vertices, np.float64)
    cos, sin = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))
    turned = _rotated(points, points.mean(0), degrees) @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]).T
    placed = turned + np.array([0, 0, CROP_FOCAL * extent])
    focal = CROP_FOCAL * size
    return draw_mesh(background, placed, faces, focal, (size / 2, size / 2), colour, opacity=1.0)


def views_beside(
    image: NDArray[np.uint8], meshes: Sequence[tuple[ArrayLike, NDArray]], colour: Colour = MESH_COLOURS["prediction"]
) -> NDArray[np.uint8]:
    """The image, and on its right a column for each mesh: from the side (the image's right) and below that from above.

    Args:
        image: (H, W, 3) RGB.
        meshes: vertices (V, 3) metres in the image's axes, any origin, and faces (F, 3), of each hand.

    Returns:
        (H, W + about H / 2 for each mesh, 3) uint8.
    """
    cell = max(1, image.shape[0] // 2)
    parts = [image]
    for vertices, faces in meshes:
        points = np.asarray(vertices, np.float64)
        extent = 2.2 * float(np.linalg.norm(points - points.mean(0), axis=1).max())
        side = turned_view(vertices, faces, 90.0, cell, extent, colour)
        top = turned_view(vertices, faces, 0.0, cell, extent, colour, tilt=90.0)
        column = np.full((image.shape[0], cell, 3), PAPER, np.uint8)
        column[: 2 * cell] = np.concatenate([side, top])[: image.shape[0]]
        parts.append(column)
    return np.concatenate(parts, axis=1)


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
