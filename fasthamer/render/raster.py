"""A NumPy rasteriser for triangle meshes: visible face, barycentric coordinates and depth of each pixel.

Pixel (x, y) is sampled at the point (x, y), as in OpenCV: pixel centres have integer coordinates.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

NEAR = 0.01  # metres; nearer parts are not rendered
EDGE = 1e-4  # pixels; a pixel this close to a shared edge is inside both faces, which prevents gaps


class FragmentMap(NamedTuple):
    """The visible surface at each pixel."""

    face: NDArray[np.int32]  # (H, W) index of the face, -1 for no face
    barycentric: NDArray[np.float32]  # (H, W, 3) perspective-correct weights of the face's corners; 0 without face
    depth: NDArray[np.float32]  # (H, W) z of the surface in the vertices' unit; inf without face


def rasterize(
    vertices_cam: ArrayLike,
    faces: ArrayLike,
    focal: tuple[float, float],
    centre: tuple[float, float],
    width: int,
    height: int,
    near: float = NEAR,
    cull_back: bool = False,
) -> FragmentMap:
    """Rasterises a mesh with a z-buffer and perspective-correct interpolation.

    Every pixel's ray is intersected with the triangles' planes in homogeneous coordinates (Olano and Greer 1997), so
    triangles that extend behind the camera need no clipping: their part beyond `near` is drawn.

    Args:
        vertices_cam: (V, 3) in the camera's frame: x right, y down, z forward.
        faces: (F, 3) vertex indices, counter-clockwise seen from outside (used only by `cull_back`).
        focal: (fx, fy) pixels.
        centre: (cx, cy) principal point, pixels.
        near: smallest depth that is rendered, in the vertices' unit.
        cull_back: skip faces seen from inside; halves the time for closed meshes.

    Raises:
        ValueError: arrays of the wrong shape or type, or an image without pixels.
    """
    vertices = np.asarray(vertices_cam, np.float32)
    faces = np.asarray(faces)
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise ValueError(f"vertices_cam has shape {vertices.shape}, expected (V, 3)")
    if faces.ndim != 2 or faces.shape[1] != 3 or not np.issubdtype(faces.dtype, np.integer):
        raise ValueError(f"faces has shape {faces.shape} and type {faces.dtype}, expected (F, 3) integers")
    if width < 1 or height < 1:
        raise ValueError(f"cannot draw into {width} x {height} pixels")

    # Homogeneous pixel coordinates (x z, y z, z); float64, because small faces are differences of large products.
    intrinsics = np.array([[focal[0], 0, centre[0]], [0, focal[1], centre[1]], [0, 0, 1]])
    image_points = intrinsics @ vertices.T.astype(np.float64)  # (3, V)
    kept, rows = _edge_functions(image_points, faces, near, cull_back)
    boxes = _boxes(image_points[:, faces[kept].T], near, width, height)
    spans = _spans(rows, boxes, width)
    line = np.repeat(np.arange(len(spans.face)), spans.length)
    step = _count_within(spans.length)
    inverse_depth = spans.slope.sum(0)[line] * step.astype(np.float32)
    inverse_depth += spans.start.sum(0)[line]
    seen = np.flatnonzero((inverse_depth > 0) & (inverse_depth <= 1.0 / near))
    if len(seen) < len(line):
        line, step, inverse_depth = line[seen], step[seen], inverse_depth[seen]
    pixel = spans.pixel[line] + step
    winner = _nearest(pixel, inverse_depth, width * height)
    line, step, pixel, inverse_depth = line[winner], step[winner], pixel[winner], inverse_depth[winner]

    face = np.full(width * height, -1, np.int32)
    barycentric = np.zeros((width * height, 3), np.float32)
    depth = np.full(width * height, np.inf, np.float32)
    face[pixel] = kept[spans.face[line]]
    depth[pixel] = 1.0 / inverse_depth
    for corner in range(3):
        weight = spans.slope[corner][line] * step.astype(np.float32)
        weight += spans.start[corner][line]
        barycentric[pixel, corner] = np.clip(weight / inverse_depth, 0, 1)
    return FragmentMap(face.reshape(height, width), barycentric.reshape(height, width, 3), depth.reshape(height, width))


def interpolate(fragments: FragmentMap, faces: NDArray, attributes: NDArray) -> NDArray[np.float32]:
    """Vertex attributes (V, C) at every covered pixel, in row-major order: (N, C) for N = (face >= 0).sum()."""
    face = fragments.face.ravel()
    covered = np.flatnonzero(face >= 0)
    face = face[covered]
    weights = np.take(fragments.barycentric.reshape(-1, 3), covered, axis=0)
    values = np.zeros((len(covered), attributes.shape[1]), np.float32)
    for corner in range(3):
        values += np.take(attributes, faces[:, corner][face], axis=0) * weights[:, corner, None]
    return values


def vertex_normals(vertices: NDArray, faces: NDArray) -> NDArray[np.float32]:
    """Outward unit normals (V, 3), faces weighted by area; zero for a vertex without a face."""
    a, b, c = (vertices.T[:, faces[:, corner]] for corner in range(3))
    face_normals = _cross(b - a, c - a)  # (3, F)
    normals = np.empty((3, len(vertices)), np.float32)
    for axis in range(3):
        normals[axis] = np.bincount(faces.ravel(), np.repeat(face_normals[axis], 3), len(vertices))
    return (normals / np.maximum(np.sqrt((normals**2).sum(0)), 1e-12)).T


def _edge_functions(points: NDArray, faces: NDArray, near: float, cull_back: bool) -> tuple[NDArray, NDArray]:
    """Indices of possibly visible faces (K,), and per corner the map from (x, y, 1) to weight / depth: (3, 3, K)."""
    a, b, c = (points[:, faces[:, corner]] for corner in range(3))  # (3, F)
    normal_a, normal_b, normal_c = _cross(b, c), _cross(c, a), _cross(a, b)
    determinant = (a * normal_a).sum(0)  # negative: seen from outside
    kept = (determinant < 0) if cull_back else (determinant != 0)
    kept &= np.maximum(np.maximum(a[2], b[2]), c[2]) >= near
    index = np.flatnonzero(kept)
    rows = np.stack([normal_a[:, index], normal_b[:, index], normal_c[:, index]])
    return index, rows / determinant[index]


def _boxes(corners: NDArray, near: float, width: int, height: int) -> NDArray[np.int64]:
    """Bounding boxes (4, K) of corners (3 coordinates, 3 corners, K): first column, first row, columns, rows.

    The box of a face that crosses the near plane is the whole image.
    """
    z = corners[2]
    crosses = z.min(0) < near
    flat = corners[:2] / np.where(crosses, 1.0, z)  # (2, 3, K)
    limit = np.array([[width], [height]])
    first = np.ceil(np.clip(flat.min(1), 0, limit)).astype(np.int64)
    last = np.floor(np.clip(flat.max(1), -1, limit - 1)).astype(np.int64)
    first[:, crosses] = 0
    last[:, crosses] = limit - 1
    return np.concatenate([first, np.maximum(last - first + 1, 0)])


class _Spans(NamedTuple):
    """Runs of pixels inside a face, one per row of each face. L = runs."""

    face: NDArray[np.int64]  # (L,)
    pixel: NDArray[np.int64]  # (L,) the run's first pixel
    length: NDArray[np.int64]  # (L,) pixels
    start: NDArray[np.float32]  # (3, L) corner weights / depth at the first pixel
    slope: NDArray[np.float32]  # (3, L) their change from one pixel to the next


def _spans(rows: NDArray, boxes: NDArray, width: int) -> _Spans:
    """The pixels of each image row inside each face: weights are linear in x, so both ends are roots."""
    lines = np.where(boxes[2] > 0, boxes[3], 0)
    face = np.repeat(np.arange(len(lines)), lines)
    row = _count_within(lines)  # within the face's box
    # float64 up to the box's corner; relative to it the numbers are small and float32 suffices.
    corner = (rows[:, 0] * boxes[0] + rows[:, 1] * boxes[1] + rows[:, 2]).astype(np.float32)
    across, down = rows[:, 0].astype(np.float32), rows[:, 1].astype(np.float32)
    slope = np.take(across, face, axis=1)
    start = np.take(down, face, axis=1)
    start *= row.astype(np.float32)
    start += np.take(corner, face, axis=1)
    length = boxes[2].astype(np.float32)[face]
    with np.errstate(divide="ignore", invalid="ignore"):
        root = -start / slope
    low = np.where(slope > 0, root, np.float32(-np.inf)).max(0)
    high = np.where(slope < 0, root, np.float32(np.inf)).min(0)
    misses = ((slope == 0) & (start < 0)).any(0)
    first = np.ceil(np.minimum(np.maximum(low - EDGE, 0), length))
    last = np.floor(np.minimum(np.maximum(high + EDGE, -1), length - 1))
    count = np.where(misses, 0, np.maximum(last - first + 1, 0)).astype(np.int64)
    start += slope * first
    pixel = (boxes[1] * width + boxes[0])[face] + row * width + first.astype(np.int64)
    return _Spans(face, pixel, count, start, slope)


def _nearest(pixel: NDArray, inverse_depth: NDArray, n_pixels: int) -> NDArray:
    """Indices of the nearest candidate of each pixel; the last one of equals."""
    best = np.zeros(n_pixels, np.float32)
    np.maximum.at(best, pixel, inverse_depth)
    candidates = np.flatnonzero(inverse_depth == best[pixel])
    chosen = np.full(n_pixels, -1, np.int64)
    chosen[pixel[candidates]] = candidates
    return chosen[chosen >= 0]


def _count_within(lengths: NDArray) -> NDArray[np.int64]:
    """Position within each run: [2, 3] -> [0, 1, 0, 1, 2]."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)


def _cross(a: NDArray, b: NDArray) -> NDArray:
    """Cross products of (3, N) columns; np.cross takes several times as long."""
    return np.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])
