"""Crops: painted landmarks must land where the transformed keypoints say, and every formula is HaMeR's."""

import cv2
import numpy as np
import pytest

from fasthamer.data import crop

SPOTS = np.array([[60.0, 50.0], [140.0, 60.0], [100.0, 110.0], [75.0, 95.0]])


def spotted(width=200, height=150):
    """A dark image with a soft round spot at each of `SPOTS`, in its own channel where there are three."""
    y, x = np.mgrid[:height, :width]
    spots = [255 * np.exp(-((x - sx) ** 2 + (y - sy) ** 2) / (2 * 3.0**2)) for sx, sy in SPOTS]
    return np.stack(spots, -1)


def centroids(images):
    y, x = np.mgrid[: images.shape[0], : images.shape[1]]
    weights = images.reshape(-1, images.shape[-1]).astype(float)
    return np.stack((x.ravel() @ weights, y.ravel() @ weights), -1) / weights.sum(0)[:, None]


def hamers_affine(cx, cy, side, size, degrees):
    """HaMeR's map from three points: the box's centre, the middle of its lower edge, the middle of its right edge."""
    r = np.pi * degrees / 180
    down, right = (
        np.array([x * np.cos(r) - y * np.sin(r), x * np.sin(r) + y * np.cos(r)])
        for x, y in ((0, side / 2), (side / 2, 0))
    )
    c, half = np.array([cx, cy]), size / 2
    source = np.array([c, c + down, c + right], np.float32)
    target = np.array([[half, half], [half, size], [size, half]], np.float32)
    return cv2.getAffineTransform(source, target)


@pytest.mark.parametrize("degrees", [0, 17, -45, 180])
def test_the_affine_map_is_hamers(degrees):
    ours = crop.crop_affine(np.array([101.5, 63.0]), 130.0, 256, degrees)
    np.testing.assert_allclose(ours, hamers_affine(101.5, 63.0, 130.0, 256, degrees), atol=1e-3)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize(("degrees", "side"), [(0, 140.0), (30, 120.0), (-75, 200.0)])
def test_painted_landmarks_land_where_the_keypoints_do(degrees, side, mirror):
    image = spotted()
    affine = crop.crop_affine(np.array([98.0, 80.0]), side, 256, degrees, mirror)
    spots = [crop.warp(np.repeat(image[..., i : i + 1], 3, -1).astype(np.uint8), affine, 256)[..., 0] for i in range(4)]
    found, expected = centroids(np.stack(spots, -1)), crop.transform(affine, SPOTS)
    assert np.abs(found - expected).max() < 0.5


def test_mirroring_a_crop_is_cropping_the_mirrored_image():
    image = np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8)
    centre = np.array([98.0, 80.0])
    mirrored = crop.warp(image, crop.crop_affine(centre, 100.0, 200, 0, True), 200)
    flipped = np.ascontiguousarray(image[:, ::-1])
    there = crop.warp(flipped, crop.crop_affine(np.array([200 - 98.0 - 1, 80.0]), 100.0, 200), 200)
    assert np.abs(mirrored.astype(int) - there).max() <= 1


def test_mirroring_twice_gives_the_original():
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    centre = np.array([41.0, 29.0])
    once = np.ascontiguousarray(image[:, ::-1])
    affine = crop.crop_affine(np.array([80 - 41.0 - 1, 29.0]), 40.0, 64, 10, True)
    plain = crop.warp(image, crop.crop_affine(centre, 40.0, 64, 10), 64)
    error = np.abs(crop.warp(once, affine, 64).astype(int) - plain).max()
    assert error <= 255 / 32  # OpenCV 4 rounds positions to 1/32 pixel; OpenCV 5 leaves one level of rounding
    vectors = np.random.default_rng(1).normal(size=(16, 3))
    np.testing.assert_array_equal(crop.mirror_axis_angle(crop.mirror_axis_angle(vectors)), vectors)
    np.testing.assert_array_equal(crop.mirror_points(crop.mirror_points(vectors)), vectors)


def test_mirrored_axis_angles_turn_mirrored_points():
    from scipy.spatial.transform import Rotation

    rng = np.random.default_rng(0)
    vector, points = rng.normal(size=3), rng.normal(size=(5, 3))
    turned = Rotation.from_rotvec(vector).apply(points)
    twin = Rotation.from_rotvec(crop.mirror_axis_angle(vector)).apply(crop.mirror_points(points))
    np.testing.assert_allclose(twin, crop.mirror_points(turned))


def test_the_box_is_twice_the_keypoints_at_hamers_aspect_ratio():
    # 30 wide, 80 high: doubled 60 x 160, already taller than 192:256, so the side is 160
    centre, side, _ = crop.keypoint_box(np.array([[10.0, 20.0], [40.0, 100.0], [20.0, 50.0]]))
    assert (centre.tolist(), side) == ([25.0, 60.0], 160.0)
    # 60 wide, 40 high: doubled 120 x 80, grows to 120 x 160
    assert crop.keypoint_box(np.array([[0.0, 0.0], [60.0, 40.0]]))[1] == pytest.approx(160.0)


def test_the_whole_freihand_image_gives_hamers_box_and_fills_what_its_backbone_sees():
    centre, side, _ = crop.image_box(224, 224)
    assert centre.tolist() == [112, 112] and side == pytest.approx(298.667, abs=1e-3)
    corners = crop.transform(crop.crop_affine(centre, side, 256), np.array([[0.0, 0.0], [224.0, 224.0]]))
    np.testing.assert_allclose(corners[:, 0], [32, 224])


def test_a_single_point_still_makes_a_box():
    assert crop.keypoint_box(np.array([[5.0, 5.0]] * 21))[1] == 2.0


def test_the_inverse_leads_back():
    affine = crop.crop_affine(np.array([98.0, 80.0]), 130.0, 224, 25, True)
    np.testing.assert_allclose(crop.transform(crop.invert(affine), crop.transform(affine, SPOTS)), SPOTS)


def test_the_centre_of_the_box_is_the_origin_of_crop_units():
    affine = crop.crop_affine(np.array([98.0, 80.0]), 130.0, 224, 25)
    np.testing.assert_allclose(crop.to_crop_units(crop.transform(affine, np.array([[98.0, 80.0]])), 224), 0, atol=1e-12)


def test_outside_of_the_image_is_black():
    image = np.full((50, 50, 3), 200, np.uint8)
    result = crop.warp(image, crop.crop_affine(np.array([25.0, 25.0]), 100.0, 100), 100)
    assert result[:20].max() == 0 and result[50, 50, 0] == 200


def test_large_images_are_smoothed_before_they_shrink():
    stripes = np.zeros((1000, 1000, 3), np.uint8)
    stripes[:, ::2] = 255  # finer than the crop's pixels: must become grey, not a pattern
    result = crop.warp(stripes, crop.crop_affine(np.array([500.0, 500.0]), 1000.0, 99), 99)
    assert result[10:-10, 10:-10].std() < 12
