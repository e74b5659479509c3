"""Shading: wrapped diffuse light, highlights, ambient occlusion, shadows, and conversion to and from sRGB."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from fasthamer.render.raster import rasterize

SKIN_WRAP = np.array([0.34, 0.2, 0.14], np.float32)  # how far light wraps around, RGB; red scatters most in skin
SHADOW_SIZE = 80  # pixels; side of the shadow map
BRIGHTEST = 3.0  # linear light; higher values are clipped


class Light(NamedTuple):
    """A directional light."""

    direction: NDArray[np.float32]  # (3,) unit, towards the light, camera frame
    colour: NDArray[np.float32]  # (3,) linear RGB


def diffuse(normals: NDArray, light: Light, visible: NDArray | float, wrap: NDArray) -> NDArray[np.float32]:
    """(N, 3) light reflected by a matt white surface.

    Args:
        normals: (N, 3).
        visible: (N,) or scalar, share of the light that is not in shadow.
        wrap: (N, 3) or (3,) how far light wraps around to the dark side; 0: not at all.
    """
    cosine = (normals @ light.direction)[:, None]
    lit = np.clip((cosine + wrap) / (1 + wrap), 0, None)
    if not np.isscalar(visible):
        visible = np.asarray(visible)[:, None]
    return lit * light.colour * visible


def highlight(normals: NDArray, to_camera: NDArray, light: Light, sharpness: float) -> NDArray:
    """(N,) Blinn-Phong highlight, 0..1."""
    half = to_camera + light.direction
    cosine = dot(normals, half) / np.sqrt(dot(half, half))
    return np.clip(cosine, 0, 1) ** np.float32(sharpness)


def dot(a: NDArray, b: NDArray) -> NDArray[np.float32]:
    """(N,) from (N, C) and (N, C)."""
    return np.einsum("nc,nc->n", a, b)


def ambient_occlusion(depth: NDArray, covered: NDArray, sigma: float, reach: float = 0.012) -> NDArray[np.float32]:
    """(H, W) 0..1: share of ambient light at a pixel, estimated from the depth around it.

    Args:
        depth: (H, W) metres; any value where not covered.
        covered: (H, W) float, 1 where there is a surface.
        sigma: pixels; size of the neighbourhood.
        reach: metres; a pixel this far behind its neighbourhood keeps 1/e of its light.
    """
    height, width = depth.shape
    half = (max(1, width // 2), max(1, height // 2))  # half the resolution suffices, the result is blurred
    near = cv2.resize(np.where(covered > 0, depth, 0).astype(np.float32), half, interpolation=cv2.INTER_AREA)
    kernel = (max(1, int(sigma) | 1),) * 2
    weight = cv2.blur(cv2.blur(cv2.resize(covered, half, interpolation=cv2.INTER_AREA), kernel), kernel)
    mean = cv2.blur(cv2.blur(near, kernel), kernel) / np.maximum(weight, 1e-3)
    behind = depth - cv2.resize(mean, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.exp(np.clip(behind, 0, 1) * np.float32(-1 / reach))


def shadow(
    vertices: NDArray, faces: NDArray, points: NDArray, light: Light, bias: float = 0.001
) -> NDArray[np.float32]:
    """(N,) 0 for points in shadow, 1 for lit points, by a shadow map.

    The map holds the faces that look away from the light, so that lit surfaces do not shadow themselves.

    Args:
        vertices: (V, 3) of the mesh that casts shadows.
        faces: (F, 3), counter-clockwise seen from outside.
        points: (N, 3) on the surfaces.
        bias: metres by which an occluder must be nearer to the light than the point.
    """
    toward = light.direction
    side = np.cross(toward, [0.0, 1.0, 0.0] if abs(toward[1]) < 0.9 else [1.0, 0.0, 0.0])
    side /= np.linalg.norm(side)
    frame = np.stack([side, np.cross(side, toward), -toward]).astype(np.float32)  # z points away from the light
    seen = vertices @ frame.T
    low, high = seen.min(0), seen.max(0)
    scale = float((SHADOW_SIZE - 1) / max((high - low)[:2].max(), 1e-6))
    far = 100.0  # metres; at this distance perspective is practically a parallel projection
    origin = np.array([*((low + high)[:2] / 2), low[2] - far], np.float32)
    middle = (SHADOW_SIZE - 1) / 2
    focal, centre = (scale * far, scale * far), (middle, middle)
    lit = rasterize(seen - origin, faces[:, ::-1], focal, centre, SHADOW_SIZE, SHADOW_SIZE, cull_back=True)
    at = points @ frame.T - origin
    column, row = (np.clip(np.rint(at[:, axis] * scale + middle), 0, SHADOW_SIZE - 1) for axis in (0, 1))
    occluder = lit.depth[row.astype(np.int32), column.astype(np.int32)]
    return (at[:, 2] < occluder + bias).astype(np.float32)


def decode(srgb: NDArray) -> NDArray[np.float32]:
    """sRGB-like values 0..255, truncated to bytes and clipped to 2..250, to linear light 0..1."""
    return np.take(_DECODED, np.clip(srgb, 2, 250).astype(np.uint8))


def encode(linear: NDArray) -> NDArray[np.uint8]:
    """Linear light to sRGB-like bytes, with a soft shoulder above 0.7."""
    level = np.sqrt(np.clip(linear, 0, BRIGHTEST)) * np.float32((len(_ENCODED) - 1) / BRIGHTEST**0.5)
    return np.take(_ENCODED, level.astype(np.int32))


def _encoding_table() -> NDArray[np.uint8]:
    x = np.linspace(0, BRIGHTEST**0.5, 4096) ** 2  # uniform in the square root: finer steps for dark tones
    shoulder = np.where(x < 0.7, x, 0.7 + 0.3 * (1 - np.exp(-(x - 0.7) / 0.3)))
    return np.round(255 * shoulder ** (1 / 2.2)).astype(np.uint8)


_DECODED = ((np.arange(256) / 255) ** 2.2).astype(np.float32)
_ENCODED = _encoding_table()
