"""Cameras against HaMeR's formulas worked out number by number, and against each other."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from fasthamer.camera import (
    CROP_FOCAL,
    fit_weak_camera,
    full_image_focal,
    full_image_translation,
    project,
    project_pixels,
    turn_to_fit,
    weak_to_translation,
)


def hand(batch=3, seed=0):
    return torch.randn(batch, 21, 3, generator=torch.Generator().manual_seed(seed)).double() * 0.05


def test_the_crop_camera_is_hamers():
    camera = torch.tensor([[7.5, 0.03, -0.04]])
    # depth 2 * 5000 / (256 * 7.5 + 1e-9) = 5.2083333
    torch.testing.assert_close(weak_to_translation(camera), torch.tensor([[0.03, -0.04, 5.2083333]]))
    point = torch.tensor([[[0.05, 0.02, 0.1]]])
    # x: 5000 / 256 * (0.05 + 0.03) / (0.1 + 5.2083333) = 0.2943482; y: 5000 / 256 * -0.02 / 5.3083333
    expected = torch.tensor([[[0.2943485, -0.0735871]]])
    torch.testing.assert_close(project(point, weak_to_translation(camera)), expected, atol=1e-6, rtol=0)


def test_the_fit_finds_a_weak_perspective_camera_exactly():
    points = hand()
    camera = torch.tensor([[5.0, 0.1, -0.2], [8.0, 0, 0], [3.0, -0.05, 0.3]]).double()
    keypoints = camera[:, None, :1] / 2 * (points[..., :2] + camera[:, None, 1:])
    torch.testing.assert_close(fit_weak_camera(points, keypoints), camera)


def test_the_fit_is_the_least_squares_optimum_and_ignores_points_without_weight():
    points, keypoints = hand(1), torch.randn(1, 21, 2, generator=torch.Generator().manual_seed(1)).double() * 0.1
    keypoints += points[..., :2] * 3
    weight = (torch.arange(21) % 3 > 0).double()[None]
    # solve x = a X + b, y = a Y + c for (a, b, c) with NumPy
    rows, targets = [], []
    for i in range(21):
        if weight[0, i] > 0:
            rows += [[points[0, i, 0], 1, 0], [points[0, i, 1], 0, 1]]
            targets += [keypoints[0, i, 0], keypoints[0, i, 1]]
    a, b, c = np.linalg.lstsq(np.array(rows, dtype=float), np.array(targets, dtype=float), rcond=None)[0]
    keypoints[0, 0] = 1e6  # has weight 0
    np.testing.assert_allclose(fit_weak_camera(points, keypoints, weight)[0], [2 * a, b / a, c / a])


def test_the_fit_reprojects_within_two_percent_of_a_hand_in_perspective():
    points = hand()
    camera = torch.tensor([[5.0, 0.1, -0.2]] * 3).double()
    keypoints = project(points, weak_to_translation(camera))
    error = (project(points, weak_to_translation(fit_weak_camera(points, keypoints))) - keypoints).norm(dim=-1)
    extent = (keypoints.amax(1) - keypoints.amin(1)).amax()
    assert error.max() < 0.02 * extent


def test_mirrored_keypoints_do_not_flip_the_camera():
    points = hand()
    assert (fit_weak_camera(points, -points[..., :2])[:, 0] > 0).all()


def test_the_full_image_camera_projects_to_where_the_crop_camera_does():
    points, camera = hand(1) / 2, torch.tensor([[6.0, 0.02, -0.01]]).double()
    centre, side, size = torch.tensor([[410.0, 300.0]]), torch.tensor([220.0]), torch.tensor([[640.0, 480.0]])
    focal = full_image_focal(640, 480)
    assert focal == 5000 / 256 * 640
    translation = full_image_translation(camera, centre, side, size, focal)
    # tz = 2 f / (b s), tx = tx + 2 (cx - W/2) / (b s)
    np.testing.assert_allclose(translation[0, 2], 2 * focal / (220 * 6), rtol=1e-6)
    np.testing.assert_allclose(translation[0, 0], 0.02 + 2 * (410 - 320) / (220 * 6), rtol=1e-6)
    intrinsics = torch.tensor([[focal, 0, 320], [0, focal, 240], [0, 0, 1]]).double()
    full = project_pixels(points + translation[:, None], intrinsics)
    crop = project(points, weak_to_translation(camera)) * side + centre
    assert (full - crop).norm(dim=-1).max() < 1.0  # pixels; what remains is the change of perspective


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_pixels_come_from_intrinsics_by_hand(kind):
    # (500 * 0.1 / 0.5 + 100, 400 * -0.05 / 0.5 + 80) = (200, 40)
    pixels = project_pixels(kind([[0.1, -0.05, 0.5]]), kind([[500.0, 0, 100], [0, 400, 80], [0, 0, 1]]))
    np.testing.assert_allclose(np.asarray(pixels), [[200.0, 40.0]], rtol=1e-6)


def test_the_focal_length_is_five_thousand_crop_pixels():
    assert CROP_FOCAL * 256 == 5000


def test_a_hand_beside_the_cameras_axis_is_turned_as_its_crop_shows_it():
    random = np.random.default_rng(0)
    points = random.normal(scale=0.05, size=(21, 3))
    true = Rotation.from_rotvec(np.radians([15.0, -20.0, 0.0])).as_matrix()
    keypoints = (points @ true.T)[:, :2] * 3.0 + [0.1, -0.2]
    keypoints[4] += 1.0  # a wrong point, of which nobody is sure
    weight = np.ones(21)
    weight[4] = 0
    np.testing.assert_allclose(turn_to_fit(points + 0.3, keypoints, weight), true, atol=1e-5)
    straight = points[:, :2] * 3.0
    np.testing.assert_allclose(turn_to_fit(points, straight, np.ones(21)), np.eye(3), atol=1e-6)
