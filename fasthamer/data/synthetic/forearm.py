"""What continues a hand mesh at its open wrist: a forearm, and perhaps a sleeve, a watch or a bracelet."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LENGTH = 0.5  # metres, with the upper arm: reaches out of any crop
ELBOW = 0.25  # metres from the wrist


class Tube(NamedTuple):
    """Rings of vertices along a bent axis; `faces` index the rings from 0, ring by ring."""

    vertices: NDArray[np.float32]  # (R * N, 3)
    faces: NDArray[np.int64]  # (F, 3) seen from outside
    surface: NDArray[np.float32]  # (R * N, 2) metres around and along, for textures


def boundary_loop(faces: NDArray) -> NDArray[np.int64]:
    """Vertices of a mesh's one open boundary, in the order of its faces' edges.

    Raises:
        ValueError: the mesh is closed.
    """
    edges = {(int(face[i]), int(face[(i + 1) % 3])) for face in faces for i in range(3)}
    following = {a: b for a, b in edges if (b, a) not in edges}
    if not following:
        raise ValueError("the mesh is closed: there is no wrist to continue")
    loop = [min(following)]
    while following[loop[-1]] != loop[0]:
        loop.append(following[loop[-1]])
    return np.array(loop)


class ForearmAxis:
    """The way of an arm: straight out of the wrist, bent within a few centimetres into its direction, then the elbow.

    Args:
        loop: (N, 3) the wrist's boundary.
        outward: (3,) unit, from the knuckles to the wrist.
        direction: (3,) unit, where the forearm goes.
        upper: (3,) unit, where the upper arm goes.
    """

    def __init__(self, loop: NDArray, outward: NDArray, direction: NDArray, upper: NDArray) -> None:
        self.centre = loop.mean(0)
        self.outward, self.direction, self.upper = outward, direction, upper
        offset = loop - self.centre
        self.offset = offset - np.outer(offset @ outward, outward)  # across the axis
        self.lead = offset @ outward  # the boundary need not be flat
        side = np.linalg.svd(self.offset, full_matrices=False)[2][0]
        self.side, self.up = side, np.cross(outward, side)

    def rings(self, distances: NDArray, girth: NDArray) -> NDArray[np.float32]:
        """(R, N, 3) rings at metres along the axis, `girth` (R,) times as thick as the wrist."""
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
    """A tube around the axis; `capped` closes its end near the hand down to the wrist, as a cuff."""
    rings = axis.rings(distances, girth)
    if capped:
        rings = np.concatenate([axis.rings(distances[:1], np.array([0.9])), rings])
        distances = np.concatenate([distances[:1], distances])
    n = rings.shape[1]
    around = np.linspace(0, 0.18, n, endpoint=False)
    surface = np.stack(np.broadcast_arrays(around[None, :], distances[:, None]), axis=-1).reshape(-1, 2)
    return Tube(rings.reshape(-1, 3), tube_faces(len(rings), n), surface.astype(np.float32))


def tube_faces(n_rings: int, n: int) -> NDArray[np.int64]:
    """Faces between rings whose vertices follow the boundary's order."""
    ring, k = np.meshgrid(np.arange(n_rings - 1), np.arange(n), indexing="ij")
    a, b = ring * n + k, ring * n + (k + 1) % n
    return np.concatenate([np.stack([b, a, a + n], -1).reshape(-1, 3), np.stack([b, a + n, b + n], -1).reshape(-1, 3)])


def muscle(distances: NDArray, growth: float) -> NDArray:
    """How a bare forearm thickens from the wrist on."""
    return 1 + growth * np.clip(distances / ELBOW, 0, 1) ** 1.2


def _step(x: NDArray, low: float, high: float) -> NDArray:
    """A smooth step from 0 to 1, as a column."""
    t = np.clip((x - low) / (high - low), 0, 1)[:, None]
    return t * t * (3 - 2 * t)
