"""The rasteriser against ray casting and against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fasthamer.render.raster import interpolate, rasterize, vertex_normals

FOCAL, CENTRE = (40.0, 44.0), (15.3, 12.8)
WIDTH, HEIGHT = 32, 24


def ray_cast(vertices, faces, near=0.01):
    """Every pixel's ray against every triangle (Moeller and Trumbore), in float64: face and depth maps."""
    face = np.full((HEIGHT, WIDTH), -1)
    depth = np.full((HEIGHT, WIDTH), np.inf)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            ray = np.array([(x - CENTRE[0]) / FOCAL[0], (y - CENTRE[1]) / FOCAL[1], 1.0])
            for index, corners in enumerate(vertices[faces].astype(float)):
                matrix = np.stack([ray, corners[0] - corners[1], corners[0] - corners[2]], axis=1)
                if abs(np.linalg.det(matrix)) < 1e-14:
                    continue
                z, u, v = np.linalg.solve(matrix, corners[0])
                if u >= 0 and v >= 0 and u + v <= 1 and near <= z < depth[y, x]:
                    face[y, x], depth[y, x] = index, z
    return face, depth


def soup(seed, low, high):
    rng = np.random.default_rng(seed)
    vertices = rng.uniform(low, high, (36, 3)).astype(np.float32)
    return vertices, rng.permutation(36).reshape(12, 3)


def draw(vertices, faces, **options):
    return rasterize(vertices, faces, FOCAL, CENTRE, WIDTH, HEIGHT, **options)


@pytest.mark.parametrize("seed", range(3))
def test_intersecting_triangles_agree_with_ray_casting(seed):
    vertices, faces = soup(seed, (-0.5, -0.4, 0.4), (0.5, 0.4, 1.2))
    face, depth = ray_cast(vertices, faces)
    drawn = draw(vertices, faces)
    assert (face >= 0).mean() > 0.3
    assert (drawn.face == face).mean() > 0.995  # rays through an edge can hit either face
    same = (drawn.face == face) & (face >= 0)
    np.testing.assert_allclose(drawn.depth[same], depth[same], rtol=1e-4)
    assert np.isinf(drawn.depth[drawn.face < 0]).all()


@pytest.mark.parametrize("seed", range(3))
def test_triangles_that_extend_behind_the_camera_are_cut_at_the_near_plane(seed):
    vertices, faces = soup(seed, (-0.6, -0.5, -0.6), (0.6, 0.5, 1.0))
    face, depth = ray_cast(vertices, faces, near=0.2)
    drawn = draw(vertices, faces, near=0.2)
    assert (drawn.face == face).mean() > 0.99
    same = (drawn.face == face) & (face >= 0)
    assert same.any()
    np.testing.assert_allclose(drawn.depth[same], depth[same], rtol=1e-4)


def test_a_mesh_behind_the_camera_leaves_the_image_empty():
    vertices, faces = soup(0, (-0.5, -0.4, -1.2), (0.5, 0.4, -0.1))
    assert (draw(vertices, faces).face == -1).all()


def test_barycentric_weights_reconstruct_the_point_on_the_surface():
    vertices, faces = soup(1, (-0.5, -0.4, 0.4), (0.5, 0.4, 1.2))
    drawn = draw(vertices, faces)
    points = interpolate(drawn, faces, vertices)
    y, x = np.nonzero(drawn.face >= 0)
    np.testing.assert_allclose(points[:, 2], drawn.depth[y, x], rtol=1e-4)
    np.testing.assert_allclose(points[:, 0] / points[:, 2] * FOCAL[0] + CENTRE[0], x, atol=1e-2)
    np.testing.assert_allclose(points[:, 1] / points[:, 2] * FOCAL[1] + CENTRE[1], y, atol=1e-2)


def test_pixels_are_sampled_at_integers_and_shared_edges_leave_no_gap():
    # The unit square at z = 1 with focal 10 and centre (2, 3) covers x in [2, 12], y in [3, 13]: 11 x 11 samples.
    square = np.array([[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]], np.float32)
    drawn = rasterize(square, np.array([[0, 1, 2], [0, 2, 3]]), (10, 10), (2, 3), 20, 20)
    expected = np.zeros((20, 20), bool)
    expected[3:14, 2:13] = True
    np.testing.assert_array_equal(drawn.face >= 0, expected)
    np.testing.assert_allclose(drawn.depth[expected], 1.0, rtol=1e-6)


def test_back_faces_are_left_out_on_request():
    triangle = np.array([[-1, -1, 2], [1, -1, 2], [0, 1, 2]], np.float32)
    towards, away = np.array([[0, 2, 1]]), np.array([[0, 1, 2]])
    assert vertex_normals(triangle, towards)[0, 2] == -1  # towards the camera
    assert (draw(triangle, towards, cull_back=True).face == 0).any()
    assert (draw(triangle, away, cull_back=True).face == -1).all()
    assert (draw(triangle, away).face == 0).any()


def test_a_small_face_far_from_the_principal_point_has_exact_weights():
    corner = np.array([0.31, 0.22, 0.5])
    triangle = (corner + np.array([[0, 0, 0], [0.004, 0, 0.001], [0, 0.004, 0]])).astype(np.float32)
    drawn = rasterize(triangle, np.array([[0, 1, 2]]), (5000, 5000), (128, 128), 4000, 3000)
    points = interpolate(drawn, np.array([[0, 1, 2]]), triangle)
    y, x = np.nonzero(drawn.face >= 0)
    assert len(x) > 500
    np.testing.assert_allclose(points[:, 0] / points[:, 2] * 5000 + 128, x, atol=5e-3)
    np.testing.assert_allclose(points[:, 1] / points[:, 2] * 5000 + 128, y, atol=5e-3)


@pytest.mark.parametrize(
    ("vertices", "faces", "width", "message"),
    [
        (np.zeros((4, 2)), np.zeros((1, 3), int), 8, "expected \\(V, 3\\)"),
        (np.zeros((4, 3)), np.zeros((1, 4), int), 8, "expected \\(F, 3\\) integers"),
        (np.zeros((4, 3)), np.zeros((1, 3), float), 8, "expected \\(F, 3\\) integers"),
        (np.zeros((4, 3)), np.zeros((1, 3), int), 0, "0 x 8 pixels"),
    ],
)
def test_errors_name_the_wrong_input(vertices, faces, width, message):
    with pytest.raises(ValueError, match=message):
        rasterize(vertices, faces, (1, 1), (0, 0), width, 8)


def test_an_empty_mesh_draws_nothing():
    drawn = draw(np.zeros((3, 3)), np.zeros((0, 3), int))
    assert (drawn.face == -1).all()
