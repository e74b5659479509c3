"""Errors on a mesh: a colour for each vertex, and the legend that gives them in millimetres."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from fasthamer.render.overlay import INK, PAPER, turned_view

SCALE = np.array([(255, 247, 200), (254, 217, 118), (253, 141, 60), (227, 26, 28), (128, 0, 38)], np.float32)  # RGB
LEGEND = 64  # pixels wide


def error_colours(errors: ArrayLike, limit: float) -> NDArray[np.float32]:
    """(V, 3) RGB 0..255: pale yellow for 0, dark red from `limit` on.

    Args:
        errors: (V,) of each vertex, in the unit of `limit`.
        limit: what the darkest colour stands for, above 0.

    Raises:
        ValueError: errors that are not finite, or another limit.
    """
    errors = np.asarray(errors, np.float32)
    if not np.isfinite(errors).all() or not 0 < limit < np.inf:
        raise ValueError(f"cannot colour errors with the limit {limit}: expected finite errors and a limit above 0")
    place = np.clip(errors / limit, 0, 1) * (len(SCALE) - 1)
    return np.stack([np.interp(place, np.arange(len(SCALE)), each) for each in SCALE.T], axis=-1).astype(np.float32)


def error_view(
    vertices: ArrayLike,
    faces: NDArray,
    errors_mm: ArrayLike,
    limit_mm: float = 20.0,
    degrees: float = 0.0,
    size: int = 256,
    extent: float = 0.22,
    tilt: float = 0.0,
) -> NDArray[np.uint8]:
    """A mesh in the colours of its errors, and their legend on its right.

    Args:
        vertices: (V, 3) metres.
        faces: (F, 3), counter-clockwise from outside.
        errors_mm: (V,) millimetres.
        limit_mm: the error of the darkest colour; use the same one for meshes to be compared.
        degrees, size, extent, tilt: as in `turned_view`.

    Returns:
        (size, size + 64, 3) uint8.
    """
    mesh = turned_view(vertices, faces, degrees, size, extent, error_colours(errors_mm, limit_mm), tilt)
    return np.concatenate([mesh, legend(size, limit_mm)], axis=1)


def legend(height: int, limit_mm: float) -> NDArray[np.uint8]:
    """(height, 64, 3) uint8: the colours from 0 (below) to the limit (above), with their millimetres."""
    page = np.full((height, LEGEND, 3), PAPER, np.uint8)
    text = 12
    low, high = height - text, text  # rows of 0 and of the limit
    rows = np.arange(high, low)
    page[high:low, 6:18] = error_colours((low - 1 - rows) * (limit_mm / max(low - 1 - high, 1)), limit_mm)[:, None]
    image = Image.fromarray(page)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(text)
    for share in (0.0, 0.5, 1.0):
        value = f"{limit_mm * share:.3g}" + (" mm" if share == 1 else "")
        pen.text((22, low - share * (low - high)), value, INK, font, anchor="lm")
    return np.asarray(image).copy()
