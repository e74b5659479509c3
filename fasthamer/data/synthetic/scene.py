"""The objects of a synthetic image as one mesh: hand, forearm, sleeve, watch or bracelet, held object."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthamer.data.synthetic.forearm import LENGTH, ForearmAxis, forearm_girth, tube
from fasthamer.render.raster import vertex_normals

HAND, ARM, SLEEVE, WEAR, OBJECT = range(5)  # materials; WEAR: watch or bracelet
ARM_STEPS = np.array([0.0, 0.008, 0.02, 0.035, 0.05, 0.08, 0.13, 0.19, 0.22, 0.25, 0.28, 0.32, LENGTH])


class Scene(NamedTuple):
    """One mesh of several materials, in the camera's frame."""

    vertices: NDArray[np.float32]  # (V, 3) metres
    faces: NDArray[np.int64]  # (F, 3)
    material: NDArray[np.uint8]  # (F,)
    normals: NDArray[np.float32]  # (V, 3)
    surface: NDArray[np.float32]  # (V, 2) metres around and along; texture coordinates of everything except the hand


def build_scene(rng: np.random.Generator, vertices: NDArray, joints: NDArray, faces: NDArray, loop: NDArray) -> Scene:
    """Adds an arm, and at random a sleeve, a watch or bracelet, and a held object.

    Args:
        vertices: (V, 3) hand in the camera's frame, metres.
        joints: (21, 3) in OpenPose order.
        loop: vertex indices of the wrist's boundary, see `fasthamer.data.synthetic.forearm.boundary_loop`.
    """
    palm_centre = joints[[5, 9, 13, 17]].mean(0)
    outward = _unit(joints[0] - palm_centre)
    direction = _forearm_direction(rng, outward, joints, flexion=26, deviation=12)
    upper = _unit(direction + rng.normal(0, 0.5, 3))
    axis = ForearmAxis(vertices[loop], outward, direction, upper)

    parts = _MeshParts(vertices, faces)
    growth = rng.uniform(0.15, 0.55)
    arm = tube(axis, ARM_STEPS, forearm_girth(ARM_STEPS, growth))
    parts.add_arm(arm.vertices, arm.faces, arm.surface, loop)
    if rng.random() < 0.5:
        start = rng.uniform(0.0, 0.18)
        steps = start + np.linspace(0, LENGTH - start, 9)
        girth = forearm_girth(steps, growth) * rng.uniform(1.08, 1.4) * rng.uniform(0.97, 1.06, 9)
        parts.add(*tube(axis, steps, girth, capped=True), SLEEVE)
    elif rng.random() < 0.25:
        start, breadth = rng.uniform(0.012, 0.04), rng.choice((0.004, 0.02))
        steps = start + np.array([0, 0.3, 0.7, 1.0]) * breadth
        parts.add(*tube(axis, steps, np.array([1.0, 1.09, 1.09, 1.0]) * forearm_girth(steps, growth)), WEAR)
    if rng.random() < 0.14:
        parts.add(*_held_object(rng, joints), OBJECT)
    return parts.scene()


class _MeshParts:
    """Collects meshes and joins them."""

    def __init__(self, vertices: NDArray, faces: NDArray) -> None:
        self.vertices = [vertices.astype(np.float32)]
        self.faces, self.material = [faces], [np.full(len(faces), HAND, np.uint8)]
        self.surface = [np.zeros((len(vertices), 2), np.float32)]
        self.count = len(vertices)

    def add(self, vertices: NDArray, faces: NDArray, surface: NDArray, material: int) -> None:
        """Adds a mesh: vertices (V, 3), faces (F, 3), texture coordinates (V, 2)."""
        self.vertices.append(vertices.astype(np.float32))
        self.faces.append(faces + self.count)
        self.material.append(np.full(len(faces), material, np.uint8))
        self.surface.append(surface)
        self.count += len(vertices)

    def add_arm(self, vertices: NDArray, faces: NDArray, surface: NDArray, loop: NDArray) -> None:
        """As `add`, but the first ring is the hand's boundary, so that hand and arm share vertices."""
        n = len(loop)
        index = np.concatenate([loop, np.arange(len(vertices) - n) + self.count])
        self.add(vertices[n:], np.zeros((0, 3), np.int64), surface[n:], ARM)
        self.surface[0][loop] = surface[:n]
        self.faces.append(index[faces])
        self.material.append(np.full(len(faces), ARM, np.uint8))

    def scene(self) -> Scene:
        """All meshes as one."""
        vertices, faces = np.concatenate(self.vertices), np.concatenate(self.faces)
        normals = vertex_normals(vertices, faces)
        return Scene(vertices, faces, np.concatenate(self.material), normals, np.concatenate(self.surface))


def _forearm_direction(
    rng: np.random.Generator, outward: NDArray, joints: NDArray, flexion: float, deviation: float
) -> NDArray[np.float64]:
    """(3,) the hand's axis rotated at the wrist; `flexion` and `deviation` are standard deviations in degrees."""
    across = _unit(joints[5] - joints[17])
    palm = _unit(np.cross(outward, across))  # outward points away from the fingers
    angles = np.clip(rng.normal(0, 1, 2), -2, 2) * np.radians([flexion, deviation])
    turned = outward * np.cos(angles[0]) + palm * np.sin(angles[0])
    return _unit(turned + across * np.tan(angles[1]))


def _held_object(rng: np.random.Generator, joints: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """A ball, can, stick or box in front of the palm, across the fingers: vertices, faces, texture coordinates."""
    knuckles = joints[[5, 9, 13, 17]].mean(0)
    fingers, across = _unit(knuckles - joints[0]), _unit(joints[5] - joints[17])
    palm = _unit(np.cross(across, fingers))
    kind = rng.integers(4)
    radius = (rng.uniform(0.015, 0.035), rng.uniform(0.01, 0.032), rng.uniform(0.003, 0.009), 0.02)[kind]
    half = (radius, rng.uniform(0.04, 0.1), rng.uniform(0.06, 0.13), rng.uniform(0.02, 0.08))[kind]
    middle = knuckles + palm * (radius + 0.012) + fingers * rng.normal(0.01, 0.015) + across * rng.normal(0, 0.015)
    axis = _unit(across + rng.normal(0, 0.25, 3))
    n_rings, n = (9, 16) if kind == 0 else (6, 4 if kind == 3 else 14)
    t = np.linspace(-1, 1, n_rings)
    if kind == 0:
        along, girth = np.sin(t * np.pi / 2), np.cos(t * np.pi / 2)
    else:
        along = np.array([-1, -1, -0.999, 0.999, 1, 1.0])
        girth = np.array([0, 0.96, 1, 1, 0.96, 0]) * (1.3 if kind == 3 else 1)
    side = _unit(np.cross(axis, palm))
    up = np.cross(axis, side)
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False) + rng.uniform(0, 1)
    ring = np.outer(np.cos(angle), side) + np.outer(np.sin(angle), up) * (rng.uniform(0.4, 1) if kind == 3 else 1)
    vertices = middle + axis * half * along[:, None, None] + ring * radius * girth[:, None, None]
    index = np.arange(n_rings * n).reshape(n_rings, n)
    a, b = index[:-1], np.roll(index, -1, 1)[:-1]
    c, d = index[1:], np.roll(index, -1, 1)[1:]
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([b, d, c], -1).reshape(-1, 3)])
    around = np.broadcast_to(angle * max(radius, 0.01), (n_rings, n))
    surface = np.stack([around, np.broadcast_to((along * half)[:, None], (n_rings, n))], -1)
    return vertices.reshape(-1, 3), faces, surface.reshape(-1, 2).astype(np.float32)


def _unit(v: NDArray) -> NDArray:
    return v / max(float(np.linalg.norm(v)), 1e-9)
