"""Tubes that continue a hand mesh at its open wrist: forearm, sleeve, watch or bracelet."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LENGTH = 0.5  # metres from wrist to upper arm; reaches beyond every crop
ELBOW = 0.25  # metres from the wrist


class Tube(NamedTuple):
    """Rings of vertices along a bent axis; `faces` index the rings from 0, ring by ring."""

    vertices: NDArray[np.float32]  # (R * N, 3)
    faces: NDArray[np.int64]  # (F, 3) seen from outside
    surface: NDArray[np.float32]  # (R * N, 2) metres around and along the tube: texture coordinates


def boundary_loop(faces: NDArray) -> NDArray[np.int64]:
    """Vertex indices of a mesh's single open boundary, in the order of its faces' edges.

    Raises:
        ValueError: the mesh is closed.
    """
    edges = {(int(face[i]), int(face[(i + 1) % 3])) for face in faces for i in range(3)}
    following = {a: b for a, b in edges if (b, a) not in edges}
    if not following:
        raise ValueError("the mesh is closed, expected an open wrist")
    loop = [min(following)]
    while following[loop[-1]] != loop[0]:
        loop.append(following[loop[-1]])
    return np.array(loop)


class ForearmAxis:
    """The axis of an arm: straight out of the wrist, bent within 4.5 cm into the forearm's direction, then the elbow.

    Args:
        loop: (N, 3) the wrist's boundary.
        outward: (3,) unit, from the knuckles to the wrist.
        direction: (3,) unit, the forearm's direction.
        upper: (3,) unit, the upper arm's direction.
    """

    def __init__(self, loop: NDArray, outward: NDArray, direction: NDArray, upper: NDArray) -> None:
        self.centre = loop.mean(0)
        self.outward, self.direction, self.upper = outward, direction, upper
        offset = loop - self.centre
        self.offset = offset - np.outer(offset @ outward, outward)  # perpendicular to the axis
        self.lead = offset @ outward  # along the axis: the boundary is not flat
        side = np.linalg.svd(self.offset, full_matrices=False)[2][0]
        self.side, self.up = side, np.cross(outward, side)

    def rings(self, distances: NDArray, girth: NDArray) -> NDArray[np.float32]:
        """(R, N, 3) rings at `distances` (R,) metres along the axis, scaled by `girth` (R,) relative to the wrist."""
        steps = np.linspace(0, max(float(distances[-1]), 1e-3), 33)
        path = np.cumsum(self._heading(steps), axis=0) * steps[1]
        path -= path[0]
        position = np.stack([np.interp(distances, steps, path[:, axis]) for axis in range(3)], axis=1)  # (R, 3)
        heading = self._heading(distances)
        side = self.side - heading * (heading @ self.side)[:, None]
        side /= np.linalg.norm(side, axis=1, keepdims=True)
        up = np.cross(heading, side)
        across = (self.offset @ self.side)[:, None] * side[:, None] + (self.offset @ self.up)[:, None] * up[:, None]
        straightened = np.clip(1 - distances / 0.02, 0, None)[:, None, None]
        lead = self.lead[:, None] * heading[:, None] * straightened
        middle = (self.centre + position)[:, None]
        return (middle + across * np.asarray(girth)[:, None, None] + lead).astype(np.float32)

    def _heading(self, distances: NDArray) -> NDArray:
        wrist, elbow = _step(distances, 0.0, 0.045), _step(distances, ELBOW - 0.05, ELBOW + 0.05)
        heading = self.outward * (1 - wrist) + self.direction * wrist
        heading = heading * (1 - elbow) + self.upper * elbow
        return heading / np.linalg.norm(heading, axis=1, keepdims=True)


def tube(axis: ForearmAxis, distances: NDArray, girth: NDArray, capped: bool = False) -> Tube:
    """A tube around the axis; `capped` closes its end near the hand as far as the wrist, as a cuff does."""
    rings = axis.rings(distances, girth)
    if capped:
        rings = np.concatenate([axis.rings(distances[:1], np.array([0.9])), rings])
        distances = np.concatenate([distances[:1], distances])
    n = rings.shape[1]
    around = np.linspace(0, 0.18, n, endpoint=False)
    surface = np.stack(np.broadcast_arrays(around[None, :], distances[:, None]), axis=-1).reshape(-1, 2)
    return Tube(rings.reshape(-1, 3), tube_faces(len(rings), n), surface.astype(np.float32))


def tube_faces(n_rings: int, n: int) -> NDArray[np.int64]:
    """Faces (F, 3) between `n_rings` rings of `n` vertices in the boundary's order."""
    ring, k = np.meshgrid(np.arange(n_rings - 1), np.arange(n), indexing="ij")
    a, b = ring * n + k, ring * n + (k + 1) % n
    return np.concatenate([np.stack([b, a, a + n], -1).reshape(-1, 3), np.stack([b, a + n, b + n], -1).reshape(-1, 3)])


def forearm_girth(distances: NDArray, growth: float) -> NDArray:
    """Thickness of a bare forearm relative to the wrist, at distances (R,) in metres."""
    return 1 + growth * np.clip(distances / ELBOW, 0, 1) ** 1.2


def _step(x: NDArray, low: float, high: float) -> NDArray:
    """Smoothstep from 0 at `low` to 1 at `high`: (N, 1) for x (N,)."""
    t = np.clip((x - low) / (high - low), 0, 1)[:, None]
    return t * t * (3 - 2 * t)
