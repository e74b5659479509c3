"""Wireframe, views from the side and from above, error heat maps."""

import numpy as np
import pytest

from fasthamer.render.heat_map import SCALE, error_colours, error_view, legend
from fasthamer.render.mesh import draw_mesh, draw_wireframe
from fasthamer.render.overlay import turned_view, views_beside

# A box of 4 x 8 x 12 cm (x, y, z), two triangles for each side, counter-clockwise from outside.
CORNERS = np.array([[x, y, z] for x in (-0.02, 0.02) for y in (-0.04, 0.04) for z in (-0.06, 0.06)])
SIDES = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
FACES = np.array([triangle for a, b, c, d in SIDES for triangle in ((a, b, c), (a, c, d))])
GREY = np.full((128, 128, 3), 100, np.uint8)


def extent(image, background):
    rows, columns = np.nonzero((image != background).any(-1))
    return np.ptp(columns) + 1, np.ptp(rows) + 1


def test_the_front_the_side_and_the_top_show_two_of_three_lengths_each():
    paper = np.full((200, 200, 3), (250, 250, 248), np.uint8)
    # 0.2 m are 200 pixels: a length of 4 cm is 40, from a camera that is far away.
    for degrees, tilt, expected in ((0, 0, (40, 80)), (90, 0, (120, 80)), (0, 90, (40, 120))):
        view = turned_view(CORNERS, FACES, degrees, 200, 0.2, tilt=tilt)
        assert extent(view, paper) == pytest.approx(expected, abs=3)


def test_from_above_the_far_side_is_on_top():
    # The hand's far half is dark: from above, away from the camera is up, as on a map.
    colours = np.where(CORNERS[:, 2:] > 0, [[40.0, 40, 40]], [[220.0, 220, 220]])
    view = turned_view(CORNERS, FACES, 0, 200, 0.2, colours, tilt=90).astype(int)
    assert 1.5 * view[60, 100, 0] < view[140, 100, 0]


def test_views_have_the_images_height_and_a_column_for_each_mesh():
    image = np.full((101, 60, 3), 7, np.uint8)
    assert views_beside(image, []).shape == image.shape
    three = views_beside(image, [(CORNERS, FACES)] * 3)
    assert three.shape == (101, 60 + 3 * 50, 3)
    np.testing.assert_array_equal(three[:, :60], image)
    np.testing.assert_array_equal(three[:, 60:110], three[:, 110:160])
    assert views_beside(image[:1], [(CORNERS, FACES)]).shape == (1, 61, 3)


def test_a_wireframe_has_the_visible_edges_only():
    far = CORNERS + np.array([0, 0, 10.0])
    wires = draw_wireframe(GREY, far, FACES, 10000.0, (64, 64), (255, 255, 255))
    white = (wires > 180).all(-1)
    assert (GREY == 100).all()
    # The front is 40 x 80 pixels and one diagonal; its middle row crosses two edges and the diagonal.
    assert white[30:100, 44].mean() > 0.8 and white[30:100, 84].mean() > 0.8
    row = wires[50, :, 0] > 150
    assert np.count_nonzero(np.diff(row.astype(int)) == 1) == 3
    np.testing.assert_array_equal(draw_wireframe(GREY, CORNERS - np.array([0, 0, 1]), FACES, 100.0, (64, 64)), GREY)


def test_colours_of_vertices_are_those_of_the_mesh():
    red = np.tile([200.0, 0, 0], (8, 1))
    arguments = GREY, CORNERS + np.array([0, 0, 1]), FACES, 500.0, (64, 64)
    np.testing.assert_array_equal(draw_mesh(*arguments, red), draw_mesh(*arguments, (200, 0, 0)))
    mixed = red.copy()
    mixed[CORNERS[:, 0] > 0] = [0, 200, 0]
    image = draw_mesh(*arguments, mixed, 1.0).astype(int)
    assert image[64, 56, 0] > image[64, 56, 1] and image[64, 72, 1] > image[64, 72, 0]


def test_errors_become_the_colours_of_the_scale():
    np.testing.assert_allclose(error_colours([0, 5, 10, 20, 99], 20), SCALE[[0, 1, 2, 4, 4]])
    np.testing.assert_allclose(error_colours([2.5], 20), (SCALE[:1] + SCALE[1:2]) / 2)
    for errors, limit in (([np.nan], 20), ([1.0], 0), ([1.0], np.inf)):
        with pytest.raises(ValueError, match="above 0"):
            error_colours(errors, limit)


def test_a_heat_map_is_dark_where_the_error_is_and_has_a_legend():
    errors = np.where(CORNERS[:, 1] > 0, 18.0, 1.0)
    view = error_view(CORNERS, FACES, errors, 20.0, size=160, extent=0.16)
    assert view.shape == (160, 224, 3)
    below, above = view[110, 80].astype(int), view[50, 80].astype(int)
    assert above[1] > below[1] + 80  # green: pale yellow against dark red
    scale = legend(160, 20.0)
    np.testing.assert_allclose(scale[13, 10], SCALE[-1], atol=6)
    np.testing.assert_allclose(scale[146, 10], SCALE[0], atol=6)
    assert legend(10, 20.0).shape == (10, 64, 3)
