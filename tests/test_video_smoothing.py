"""The One-Euro filter against its paper, and what it does to the mesh of a still and of a moving hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
from miniatures_video import Studio, shipped_student

from fasthamer.camera import project_pixels
from fasthamer.hand.posing import Poser
from fasthamer.predict import Camera, Hands, ManoArrays
from fasthamer.video.follow import HandVideo
from fasthamer.video.one_euro import OneEuro
from fasthamer.video.smoothing import HandSmoother, bone_length
from fasthamer.video.tracker import HandTracker


def paper(values, times, cutoff, slope, speed_cutoff=1.0):
    """Algorithm 1 and 2 of the paper, for one number over time."""
    filtered, speed, results = values[0], 0.0, [values[0]]
    for value, before, now in zip(values[1:], times[:-1], times[1:], strict=True):
        rate = 1 / (now - before)

        def alpha(hertz, rate=rate):
            return 1 / (1 + rate / (2 * math.pi * hertz))

        slope_now = (value - filtered) * rate
        speed = alpha(speed_cutoff) * slope_now + (1 - alpha(speed_cutoff)) * speed
        share = alpha(cutoff + slope * abs(speed))
        filtered = share * value + (1 - share) * filtered
        results.append(filtered)
    return results


def test_one_coordinate_is_filtered_as_in_the_paper_at_any_frame_rate():
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.01, 0.1, 50))
    values = np.sin(3 * times) + rng.normal(0, 0.05, 50)
    one = OneEuro(1.2, 3.0)
    found = [float(one(np.array([[value]]), time)[0, 0]) for value, time in zip(values, times, strict=True)]
    np.testing.assert_allclose(found, paper(values.tolist(), times.tolist(), 1.2, 3.0), rtol=0, atol=1e-12)


def test_all_points_have_the_same_weight_so_linear_relations_stay():
    rng = np.random.default_rng(1)
    regressor = rng.dirichlet(np.ones(30), 5)  # joints as means of vertices
    one = OneEuro(1.0, 10.0)
    for number in range(20):
        vertices = rng.normal(0, 0.1, (30, 3))
        filtered = one(np.concatenate((vertices, regressor @ vertices)), number / 30)
    np.testing.assert_allclose(filtered[30:], regressor @ filtered[:30], atol=1e-12)


def test_a_frame_at_the_same_time_changes_nothing():
    one = OneEuro(1.0, 1.0)
    first = one(np.zeros((1, 3)), 0.0)
    assert one(np.ones((1, 3)), 0.0) is first


def a_hand(poser, betas, right=True, mano=True, turn=0.0):
    """A hand of `poser` as a model gives it, half a metre before a camera."""
    rotations = np.tile(np.eye(3), (16, 1, 1))
    rotations[0] = [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    rotations[5] = [[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]]
    vertices, joints = poser(rotations, betas)
    flip = np.array([1.0 if right else -1.0, 1, 1])
    vertices, joints, rotations = vertices * flip, joints * flip, rotations * np.outer(flip, flip)
    camera, translation = Camera(600.0, 620.0, 320.0, 240.0, True), np.array([0.05, -0.1, 0.5])
    empty = np.zeros((1, 48), np.float32)
    return Hands(
        vertices=vertices[None].astype(np.float32),
        joints=joints[None].astype(np.float32),
        keypoints_2d=project_pixels(joints[None] + translation, camera.matrix),
        translation=translation[None],
        right=np.array([right]),
        boxes=np.array([[0.0, 0, 9, 9]]),
        score=np.ones(1),
        camera=camera,
        faces=np.zeros((1538, 3), np.int64),
        mano=ManoArrays(rotations[None, 0], rotations[None, 1:], betas[None], empty, empty) if mano else None,
    )


@pytest.fixture(scope="module")
def poser(embedded):
    return Poser.of(embedded)


@pytest.mark.parametrize("right", [True, False])
def test_the_shape_becomes_the_mean_of_the_frames_in_the_pose_of_each(poser, right):
    rng = np.random.default_rng(2)
    shapes = rng.normal(0, 1, (300, 10))
    smoother = HandSmoother(poser)
    for number, betas in enumerate(shapes):
        found = smoother(a_hand(poser, betas, right, turn=0.3), float(number))  # so slow that nothing is smoothed
    truth = a_hand(poser, shapes.mean(0), right, turn=0.3)
    size = bone_length(truth.joints[0])
    assert bone_length(found.joints[0]) == pytest.approx(size, rel=0.002)
    error = np.linalg.norm(found.vertices - truth.vertices, axis=-1)
    before = np.linalg.norm(a_hand(poser, shapes[-1], right, turn=0.3).vertices - truth.vertices, axis=-1)
    assert error.max() < 0.0005 and before.max() > 0.003  # metres


def test_without_manos_parameters_the_size_becomes_the_mean_and_the_image_stays(poser):
    smoother = HandSmoother(None)
    small = a_hand(poser, np.zeros(10), mano=False)
    large = grown(small, 1.2)
    smoother(small, 0.0)
    found = smoother(large, 1e6)
    assert bone_length(found.joints[0]) == pytest.approx(1.1 * bone_length(small.joints[0]), rel=1e-4)
    np.testing.assert_allclose(found.keypoints_2d, large.keypoints_2d, atol=0.01)
    pixels = project_pixels(found.joints_camera, found.camera.matrix)
    np.testing.assert_allclose(pixels, found.keypoints_2d, atol=1e-6)
    assert found.mano is None


def grown(hand, factor):
    return replace(
        hand,
        vertices=hand.vertices * np.float32(factor),
        joints=hand.joints * np.float32(factor),
        translation=hand.translation * factor,
    )


# ------------------------------------------------------------------------------- with the shipped student, on clips


def clip(images, smooth):
    video = HandVideo(shipped_student(), tracker=HandTracker(most=1, threads=1), smooth=smooth, device="cpu", threads=1)
    frames = [video(image, number / 30) for number, image in enumerate(images)]
    assert {tuple(frame.ids) for frame in frames} == {(1,)}
    return [frame.hands[0] for frame in frames]


def acceleration(points):
    """Root mean square over points and frames, metres a second squared at 30 frames a second."""
    return float(np.sqrt((np.diff(points, 2, axis=0) ** 2).sum(-1).mean())) * 900


def test_the_mesh_of_a_still_hand_has_at_most_a_third_of_the_raw_acceleration():
    studio, rng = Studio(4), np.random.default_rng(0)
    still = studio.image([studio.hand(True, (0.03, 0.0, 0.45), 5, 0.3)])
    images = [
        np.clip(still + rng.normal(0, 3, still.shape), 0, 255).astype(np.uint8) for _ in range(24)
    ]  # sensor noise
    raw, smooth = (clip(images, smooth) for smooth in (False, True))
    for name in ("vertices", "vertices_camera"):
        before, after = (acceleration(np.concatenate([getattr(each, name) for each in one])) for one in (raw, smooth))
        print(f"{name}: {before:.2f} m/s2 raw, {after:.2f} smoothed, ratio {after / before:.2f}")
        assert before > 0.5 and after <= before / 3


def test_a_moving_hand_lags_by_less_than_a_frame():
    studio = Studio(4)
    speed = 0.4 / 30  # metres a frame
    images = [studio.image([studio.hand(True, (-0.1 + speed * n, 0.0, 0.45), 5, 0.2)]) for n in range(16)]
    raw, smooth = (clip(images, smooth) for smooth in (False, True))
    where = [np.array([hand.keypoints_2d[0].mean(0)[0] for hand in one[4:]]) for one in (raw, smooth)]
    lag = (where[0] - where[1]).mean() / np.diff(where[0]).mean()
    print(f"lag {lag:.2f} frames at {np.diff(where[0]).mean():.1f} pixels a frame")
    assert 0 <= lag < 1
