"""Shading of synthetic images in cases worked out by hand."""

from __future__ import annotations

import numpy as np

from fasthamer.data.synthetic.forearm import ForearmAxis, boundary_loop, tube
from fasthamer.data.synthetic.shading import (
    SKIN_WRAP,
    Light,
    ambient_occlusion,
    decode,
    diffuse,
    encode,
    highlight,
    shadow,
)
from fasthamer.data.synthetic.skin import TONES, skin_colour
from fasthamer.render.raster import vertex_normals

FROM_ABOVE = Light(np.array([0, -1, 0], np.float32), np.array([1, 1, 0.5], np.float32))  # y points down


def box(low, high):
    """A box: eight corners, twelve faces that face outwards."""
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], np.float32)
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = np.array([half for a, b, c, d in quads for half in ((a, b, c), (a, c, d))])
    return np.asarray(low, np.float32) + corners * np.subtract(high, low).astype(np.float32), faces


def test_diffuse_light_follows_the_cosine_and_wraps_around_skin():
    normals = np.array([[0, -1, 0], [0, -0.5, -np.sqrt(0.75)], [1, 0, 0], [0, 1, 0]], np.float32)
    lit = diffuse(normals, FROM_ABOVE, 1.0, np.zeros(3, np.float32))
    np.testing.assert_allclose(lit, [[1, 1, 0.5], [0.5, 0.5, 0.25], [0, 0, 0], [0, 0, 0]], atol=1e-6)
    skin = diffuse(normals, FROM_ABOVE, 1.0, SKIN_WRAP)
    assert skin[2, 0] > skin[2, 1] > 0  # red light wraps around furthest
    assert (skin[3] == 0).all()


def test_a_highlight_is_brightest_halfway_between_light_and_camera():
    to_camera = np.array([[0, 0, -1]] * 3, np.float32)
    normals = np.array([[0, -np.sqrt(0.5), -np.sqrt(0.5)], [0, 0, -1], [0, 1, 0]], np.float32)
    values = highlight(normals, to_camera, FROM_ABOVE, 10.0)
    np.testing.assert_allclose(values[0], 1, atol=1e-5)
    np.testing.assert_allclose(values[1], 0.5**5, rtol=1e-4)  # cos 45 degrees to the tenth
    assert values[2] == 0


def test_a_box_casts_its_shadow_away_from_the_light():
    vertices, faces = box((-0.02, -0.02, 0.48), (0.02, 0.02, 0.52))
    below, beside, above = [0, 0.1, 0.5], [0.1, 0.1, 0.5], [0, -0.021, 0.5]
    floor, floor_faces = box((-0.2, 0.1, 0.3), (0.2, 0.11, 0.7))
    points = np.array([below, beside, above], np.float32)
    seen = shadow(np.concatenate([vertices, floor]), np.concatenate([faces, floor_faces + 8]), points, FROM_ABOVE)
    np.testing.assert_array_equal(seen, [0, 1, 1])


def test_a_lit_slope_does_not_shadow_itself():
    vertices, faces = box((-0.1, 0, -0.1), (0.1, 0.02, 0.1))
    tilt = np.radians(80)
    turn = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]], np.float32)
    grid = np.stack(np.meshgrid(np.linspace(-0.09, 0.09, 15), [0.0], np.linspace(-0.09, 0.09, 15)), -1).reshape(-1, 3)
    assert (shadow(vertices @ turn.T, faces, (grid @ turn.T).astype(np.float32), FROM_ABOVE) == 1).all()


def test_ambient_light_is_weaker_in_a_pit_than_on_a_plane():
    depth = np.full((64, 64), 0.5, np.float32)
    depth[24:40, 24:40] += 0.02
    depth[:, 60:] = np.inf
    covered = np.isfinite(depth).astype(np.float32)
    open_sky = ambient_occlusion(depth, covered, sigma=8)
    assert open_sky[32, 32] < 0.7
    assert open_sky[8, 8] > 0.99
    assert open_sky[8, 58] > 0.99  # the edge of the image's surface is not a pit


def test_encoding_inverts_decoding_below_the_shoulder():
    srgb = np.arange(10, 200, dtype=np.float32)
    np.testing.assert_allclose(encode(decode(srgb)), srgb, atol=1.5)
    np.testing.assert_array_equal(encode(np.array([0.0, 50.0])), [0, 255])


def test_skin_colours_are_human_at_every_tone():
    rng = np.random.default_rng(0)
    colours = np.array([skin_colour(rng, tone) for tone in np.linspace(0, 1, 50)])
    assert (colours[:, 0] > colours[:, 1]).all() and (colours[:, 1] > colours[:, 2]).all()
    assert colours[0].mean() > 180 and colours[-1].mean() < 80
    assert np.abs(skin_colour(rng, 0.0) / TONES[0] - 1).max() < 0.25


def test_a_tube_continues_a_boundary_outwards():
    angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    ring = 0.03 * np.stack([np.cos(angle), np.sin(angle), np.zeros(16)], 1)
    apex = np.array([[0, 0, -0.1]])  # a cone, open at z = 0: the tube continues along +z
    vertices = np.concatenate([ring, apex])
    faces = np.stack([np.roll(np.arange(16), -1), np.arange(16), np.full(16, 16)], 1)
    outward = vertex_normals(vertices.astype(np.float32), faces)[:16]
    assert ((outward[:, :2] * ring[:, :2]).sum(1) > 0).all()

    loop = boundary_loop(faces)
    along = np.array([0.0, 0.0, 1.0])
    arm = tube(ForearmAxis(vertices[loop], along, along, along), np.array([0.0, 0.05, 0.1]), np.ones(3))
    np.testing.assert_allclose(arm.vertices[:16], vertices[loop], atol=1e-6)
    np.testing.assert_allclose(arm.vertices[32:, 2], 0.1, atol=1e-3)
    normals = vertex_normals(arm.vertices, arm.faces)
    assert ((normals[:, :2] * arm.vertices[:, :2]).sum(1) > 0.02).all()
