"""Overlays: position according to the camera, smooth edges, no change of the image elsewhere."""

import numpy as np
import pytest
import torch

from fasthamer.camera import project, weak_to_translation
from fasthamer.render.overlay import (
    crop_pixels,
    draw_keypoints,
    draw_mesh,
    overlay_hand,
    sheet,
    skeletons_view,
    turned_view,
)

# An octahedron of 4 cm, counter-clockwise from outside.
CORNERS = 0.04 * np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], float)
FACES = np.array([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]])
GREY = np.full((128, 128, 3), 100, np.uint8)


def at(x, y, z):
    return CORNERS + np.array([x, y, z])


def changed(image, before=GREY):
    return (image != before).any(-1)


def middle(mask):
    rows, columns = np.nonzero(mask)
    return columns.mean(), rows.mean()


def test_a_mesh_is_drawn_where_its_camera_puts_it():
    # Centre (0.05, -0.02, 1) with focal 300 about (60, 70): x = 60 + 15, y = 70 - 6; half-width 0.04 * 300 = 12 pixels.
    image = draw_mesh(GREY, at(0.05, -0.02, 1.0), FACES, 300.0, (60.0, 70.0))
    assert middle(changed(image)) == pytest.approx((75, 64), abs=0.3)
    columns = np.nonzero(changed(image))[1]
    assert (columns.min(), columns.max()) == pytest.approx((63, 87), abs=1)
    assert (GREY == 100).all()  # the input is not changed


def test_edges_are_smooth_and_the_image_shows_through():
    image = draw_mesh(GREY, at(0, 0, 1), FACES, 300.0, (63.3, 63.6), colour=(255, 255, 255), opacity=1.0)
    bright = image[..., 0].astype(int)
    assert len(np.unique(bright[changed(image)])) > 8  # steps between the hand and the image
    half = draw_mesh(GREY, at(0, 0, 1), FACES, 300.0, (63.3, 63.6), colour=(255, 255, 255), opacity=0.5)
    inside = np.abs(bright - 100) > 60
    np.testing.assert_allclose(half[inside, 0] - 100.0, (bright[inside] - 100) / 2, atol=1)


def test_a_mesh_outside_the_image_changes_nothing():
    np.testing.assert_array_equal(draw_mesh(GREY, at(5, 0, 1), FACES, 300.0, (64, 64)), GREY)
    np.testing.assert_array_equal(draw_mesh(GREY, CORNERS - [0, 0, 1], FACES, 300.0, (64, 64)), GREY)


def test_the_light_comes_from_the_upper_left():
    image = draw_mesh(GREY, at(0, 0, 1), FACES, 900.0, (63.5, 63.5), colour=(128, 128, 128)).astype(int)
    assert image[52, 52, 0] > image[75, 75, 0] + 20


def test_a_models_mesh_coincides_with_its_keypoints():
    camera = np.array([8.0, 0.01, -0.02])
    image = overlay_hand(GREY, CORNERS, camera, FACES, (255, 0, 0))
    centre = torch.tensor(CORNERS).mean(0)[None, None]
    expected = crop_pixels(project(centre, weak_to_translation(torch.tensor(camera)[None])), 128)[0, 0]
    assert middle(changed(image)) == pytest.approx(tuple(expected), abs=0.4)


def test_a_skeleton_has_the_finger_colours_at_its_joints():
    points = np.stack([np.linspace(10, 110, 21), np.full(21, 40.0)], 1)
    points[17:, 1] = 90
    image = draw_keypoints(np.zeros((128, 128, 3), np.uint8), points)
    assert tuple(image[40, round(points[0, 0])]) == (235, 235, 235)  # wrist: white
    assert tuple(image[40, round(points[4, 0])]) == (255, 140, 60)  # thumb's tip: orange
    assert tuple(image[90, round(points[20, 0])]) == (200, 100, 230)  # pinky's tip: purple


def test_unknown_keypoints_are_left_out_and_distant_ones_clipped():
    points = np.full((21, 2), 20.0)
    points[8] = np.nan
    points[12] = [1e9, -1e9]
    draw_keypoints(GREY, points)
    hidden = draw_keypoints(GREY, np.full((21, 2), 64.0), visible=np.zeros(21))
    np.testing.assert_array_equal(hidden, GREY)
    np.testing.assert_array_equal(draw_keypoints(GREY, np.full((21, 2), np.nan)), GREY)


def test_a_turned_view_shows_depth_as_width():
    flat = CORNERS * [1, 1, 0.2]  # thin along the line of sight
    paper = np.full((128, 128, 3), (250, 250, 248), np.uint8)
    front = changed(turned_view(flat, FACES, 0, size=128), paper).sum()
    side = changed(turned_view(flat, FACES, 90, size=128), paper).sum()
    assert side < 0.4 * front


def test_equal_skeletons_cover_each_other():
    joints = np.random.default_rng(0).normal(0, 0.03, (21, 3))
    one = skeletons_view(joints, joints + 0.2, size=128)
    grey = (one == 150).all(-1).sum()
    assert grey < 60  # the coloured skeleton covers nearly all of the grey one, for any position of the hand


def test_a_sheet_contains_all_its_images():
    images = [[np.full((50, 50, 3), 10 * (3 * r + c), np.uint8) for c in range(3)] for r in range(2)]
    page = sheet(images, ["a", "b", "c"], [["x", "", "z"]] * 2, cell=64)
    assert page.dtype == np.uint8 and page.shape[1] == 10 + 3 * 74
    for value in (0, 10, 20, 30, 40, 50):
        assert (page == value).all(-1).sum() >= 64 * 64
    with pytest.raises(ValueError, match="rows of the same length"):
        sheet([images[0], images[1][:1]])
    with pytest.raises(ValueError, match="at least one row"):
        sheet([])
