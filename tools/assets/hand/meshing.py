"""From the implicit surface to exactly 778 vertices, 1538 faces and 16 boundary edges.

Marching cubes gives a dense mesh, cut open behind the wrist. Seeds spread on it by Lloyd's iteration under a density
(finer at fingertips and joints); the dual of their geodesic Voronoi cells is the coarse mesh. A disk of V vertices with
b on its boundary has 2V - 2 - b triangles, so fixing 778 cells, 16 of them on the boundary, fixes everything.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components, dijkstra

from fasthamer.tools.assets.hand import surface
from fasthamer.tools.assets.hand.skeleton import FINGERS, WRIST_X, Skeleton

N_VERTICES, N_BOUNDARY = 778, 16
CUT = 9.0  # mm behind the wrist joint


def dense(parts: surface.Parts, step: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
    """Fine triangle mesh (mm), open where the forearm would go on.

    Raises:
        ImportError: scikit-image is not installed.
    """
    try:
        from skimage.measure import marching_cubes
    except ImportError:
        raise ImportError("the hand's mesh needs scikit-image: pip install scikit-image") from None

    low, high = np.array([-112.0, -50.0, -68.0]), np.array([WRIST_X + CUT + 3 * step, 30.0, 105.0])
    axes = [np.arange(a, b, step) for a, b in zip(low, high, strict=True)]
    shape = tuple(len(axis) for axis in axes)
    field = np.empty(shape, np.float32)
    for i, x in enumerate(axes[0]):
        grid = np.stack(np.meshgrid([x], axes[1], axes[2], indexing="ij"), -1).reshape(-1, 3)
        field[i] = surface.distance(grid, parts).reshape(shape[1:])
    vertices, faces, _, _ = marching_cubes(field, 0.0, spacing=(step,) * 3)
    vertices = vertices.astype(np.float64) + low
    vertices, faces = _cut(vertices, faces.astype(np.int64), WRIST_X + CUT)
    return _outward(*_largest(vertices, faces))


def density(points: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Wanted edge length (N,), relative: small at fingertips and finger joints, large on palm and back."""
    length = np.full(len(points), 11.0)
    for number, finger in enumerate(FINGERS):
        first = 1 + 3 * number
        fine = {"thumb": 1.1}.get(finger, 0.86 if finger == "pinky" else 1.0)
        for bone in range(first, first + 3):
            away = _segment_distance(points, skeleton.joints[bone], skeleton.ends[bone])
            wide = 22.0 if (finger == "thumb" and bone == first) else 13.0
            size = 9.0 if (finger == "thumb" and bone == first) else 6.6
            length = np.minimum(length, fine * size + np.maximum(away - wide, 0) * 0.35)
            if bone > first:
                away = np.linalg.norm(points - skeleton.joints[bone], axis=1)
                length = np.minimum(length, fine * 5.2 + np.maximum(away - 10.0, 0) * 0.3)
        away = np.linalg.norm(points - skeleton.tips[number], axis=1)
        length = np.minimum(length, fine * 3.7 + np.maximum(away - 7.0, 0) * 0.22)
    return length


def coarse(vertices: np.ndarray, faces: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Dense mesh to (778, 3) vertices and (1538, 3) faces by geodesic Voronoi cells of wanted size `size` (N,).

    A cell that is not a disk spoils the dual: then the next seed of the random start is tried.
    """
    for seed in range(30):
        points, triangles = _cells_dual(vertices, faces, size, seed)
        if is_disk(triangles):
            return points, triangles
    raise AssertionError("no start gave a disk: change the density")


def is_disk(faces: np.ndarray) -> bool:
    """Whether the faces are a manifold disk of MANO's size: 778 vertices, 1538 faces, one loop of 16 edges."""
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    if len(faces) != 2 * N_VERTICES - 2 - N_BOUNDARY or len(np.unique(directed, axis=0)) != len(directed):
        return False
    edges = _edges(faces)
    return len(np.unique(faces)) == N_VERTICES and N_VERTICES - len(edges) + len(faces) == 1


def _cells_dual(
    vertices: np.ndarray, faces: np.ndarray, size: np.ndarray, seed: int, rounds: int = 50
) -> tuple[np.ndarray, np.ndarray]:
    graph = _metric_graph(vertices, faces, size)
    loop = boundary_loop(faces)
    mass = _vertex_area(vertices, faces) / size**2
    loop_label = _split_loop(vertices, loop)
    rng = np.random.default_rng(seed)
    inner = np.setdiff1d(np.arange(len(vertices)), loop)
    seeds = rng.choice(inner, N_VERTICES - N_BOUNDARY, replace=False, p=mass[inner] / mass[inner].sum())
    for _ in range(rounds):
        label = _cells(graph, loop, loop_label, seeds)
        weight = mass / size**1.0
        total = np.bincount(label, weight, N_VERTICES)
        centre = (
            np.stack([np.bincount(label, weight * vertices[:, a], N_VERTICES) for a in range(3)], 1) / total[:, None]
        )
        away = np.linalg.norm(vertices - centre[label], axis=1)
        away[loop] = np.inf
        order = np.lexsort((away, label))
        first = np.searchsorted(label[order], np.arange(N_VERTICES))
        seeds = order[first][N_BOUNDARY:]
    label = _cells(graph, loop, loop_label, seeds)
    corner = label[faces]
    kept = (corner[:, 0] != corner[:, 1]) & (corner[:, 1] != corner[:, 2]) & (corner[:, 2] != corner[:, 0])
    middle = np.array([loop[loop_label == k][np.count_nonzero(loop_label == k) // 2] for k in range(N_BOUNDARY)])
    return vertices[np.concatenate([middle, seeds])], _without_pockets(corner[kept])


def boundary_loop(faces: np.ndarray) -> np.ndarray:
    """Vertices of the single boundary, in order."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    present = {(int(a), int(b)) for a, b in edges}
    follow = {a: b for a, b in present if (b, a) not in present}
    start = min(follow)
    loop = [start]
    while follow[loop[-1]] != start:
        loop.append(follow[loop[-1]])
    if len(loop) != len(follow):
        raise AssertionError("the cut mesh has more than one boundary")
    return np.array(loop)


def relax(
    vertices: np.ndarray, faces: np.ndarray, parts: surface.Parts, size: np.ndarray | None = None, rounds: int = 12
) -> tuple[np.ndarray, np.ndarray]:
    """Tangential smoothing on the implicit surface with edge flips towards even valence; the boundary stays planar."""
    loop = boundary_loop(faces)
    for turn in range(rounds):
        faces = flip_edges(vertices, faces)
        pairs = _edges(faces)
        both = np.concatenate([pairs, pairs[:, ::-1]])
        count = np.bincount(both[:, 0], minlength=len(vertices))
        mean = np.stack([np.bincount(both[:, 0], vertices[both[:, 1], a], len(vertices)) for a in range(3)], 1)
        move = mean / count[:, None] - vertices
        normal = surface.gradient(vertices, parts)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        move -= (move * normal).sum(1, keepdims=True) * normal
        move[loop] = 0
        vertices = vertices + (0.25 if turn < rounds - 1 else 0.0) * move
        inner = np.setdiff1d(np.arange(len(vertices)), loop)
        vertices[inner] = surface.project(vertices[inner], parts, rounds=2)
    return vertices, faces


def flip_edges(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Delaunay-like flips: an edge turns where its opposite angles sum to over pi and the surface is nearly flat."""
    faces = faces.copy()
    for _ in range(6):
        owner: dict[tuple[int, int], int] = {}
        for f, (a, b, c) in enumerate(faces.tolist()):
            owner[a, b] = owner[b, c] = owner[c, a] = f
        touched: set[int] = set()
        flipped = 0
        for (a, b), f in list(owner.items()):
            if a > b or (b, a) not in owner:
                continue
            g = owner[b, a]
            if f in touched or g in touched:
                continue
            c = next(v for v in faces[f].tolist() if v not in (a, b))
            d = next(v for v in faces[g].tolist() if v not in (a, b))
            if (c, d) in owner or (d, c) in owner or not _should_flip(vertices, a, b, c, d):
                continue
            faces[f], faces[g] = (a, d, c), (d, b, c)
            touched |= {f, g}
            flipped += 1
        if not flipped:
            break
    return faces


def _should_flip(v: np.ndarray, a: int, b: int, c: int, d: int) -> bool:
    def angle(p, q, r):
        x, y = v[q] - v[p], v[r] - v[p]
        return np.arccos(np.clip(x @ y / np.sqrt((x @ x) * (y @ y)), -1, 1))

    def normal(p, q, r):
        n = np.cross(v[q] - v[p], v[r] - v[p])
        return n / max(np.linalg.norm(n), 1e-12)

    if angle(c, a, b) + angle(d, a, b) <= np.pi + 0.05:
        return False
    old = normal(a, b, c) @ normal(b, a, d)
    new = normal(a, d, c) @ normal(d, b, c)
    return new > min(old, 0.9) - 0.1 and new > 0.2


def _cut(vertices: np.ndarray, faces: np.ndarray, x: float) -> tuple[np.ndarray, np.ndarray]:
    """Drop what lies beyond the plane; move the crossing vertices onto it."""
    inside = vertices[:, 0] <= x
    kept = inside[faces].any(1)
    faces = faces[kept]
    vertices = vertices.copy()
    vertices[:, 0] = np.minimum(vertices[:, 0], x)
    return vertices, faces


def _largest(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pairs = _edges(faces)
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(vertices),) * 2)
    _, part = connected_components(graph, directed=False)
    best = np.bincount(part[faces[:, 0]]).argmax()
    faces = faces[part[faces[:, 0]] == best]
    used, faces = np.unique(faces, return_inverse=True)
    return vertices[used], faces.reshape(-1, 3)


def _outward(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b, c = (vertices[faces[:, k]] - vertices.mean(0) for k in range(3))
    if np.einsum("ij,ij->i", a, np.cross(b, c)).sum() < 0:
        faces = faces[:, ::-1].copy()
    return vertices, faces


def _cells(graph, loop: np.ndarray, loop_label: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    sources = np.concatenate([loop, seeds])
    names = np.full(graph.shape[0], -1)
    names[loop] = loop_label
    names[seeds] = N_BOUNDARY + np.arange(len(seeds))
    _, _, source = dijkstra(graph, directed=False, indices=sources, min_only=True, return_predecessors=True)
    return names[source]


def _metric_graph(vertices: np.ndarray, faces: np.ndarray, size: np.ndarray):
    pairs = _edges(faces)
    ones = np.ones(len(pairs))
    n = len(vertices)
    near = coo_matrix((ones, (pairs[:, 0], pairs[:, 1])), shape=(n, n)).tocsr()
    near = near + near.T
    second = (near @ near + near).tocoo()
    keep = second.row < second.col
    row, col = second.row[keep], second.col[keep]
    length = np.linalg.norm(vertices[row] - vertices[col], axis=1) / (0.5 * (size[row] + size[col]))
    return coo_matrix((length, (row, col)), shape=(n, n)).tocsr()


def _without_pockets(faces: np.ndarray) -> np.ndarray:
    """Drop pairs of faces on the same three vertices: three cells that met twice around a stray fourth."""
    _, group, count = np.unique(np.sort(faces, 1), axis=0, return_inverse=True, return_counts=True)
    return faces[count[group.reshape(-1)] == 1]


def _split_loop(vertices: np.ndarray, loop: np.ndarray) -> np.ndarray:
    ring = vertices[loop]
    length = np.linalg.norm(np.roll(ring, -1, 0) - ring, axis=1)
    travelled = np.concatenate([[0], np.cumsum(length)[:-1]]) / length.sum()
    return np.minimum((travelled * N_BOUNDARY).astype(int), N_BOUNDARY - 1)


def _edges(faces: np.ndarray) -> np.ndarray:
    every = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    return np.unique(np.sort(every, 1), axis=0)


def _vertex_area(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    area = 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1) / 3
    return np.sum([np.bincount(faces[:, k], area, len(vertices)) for k in range(3)], axis=0)


def _segment_distance(points: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    axis = b - a
    along = np.clip((points - a) @ axis / (axis @ axis), 0, 1)
    return np.linalg.norm(points - a - along[:, None] * axis, axis=1)
