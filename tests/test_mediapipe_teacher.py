"""MediaPipe as a teacher of points: offsets to our joints, confidence by agreement, hands that are left out."""

import runpy

import numpy as np
import pytest

from fasthamer.data.crop import mirror_points
from fasthamer.detect.detections import Detections
from fasthamer.teachers import build_teacher
from fasthamer.teachers.mediapipe import TURN, PointLabeller, confidence, looks
from fasthamer.teachers.mediapipe_frame import (
    image_frame,
    joint_offsets,
    keypoint_offsets,
    palm_frame,
    to_our_joints,
    to_our_keypoints,
)
from fasthamer.teachers.mediapipe_offsets import JOINTS, KEYPOINTS
from fasthamer.tools import distill
from fasthamer.tools.assets import measure_mediapipe

RIGHT = np.array([True])


def test_the_axes_of_a_hand_are_as_long_as_its_palm():
    points = np.zeros((1, 21, 3))
    points[0, 0], points[0, 9], points[0, 5], points[0, 17] = (0, 0, 0), (0, -0.1, 0), (-0.02, -0.1, 0), (0.02, -0.1, 0)
    # Seen from the back with the fingers up, a right hand's index finger is on the left.
    np.testing.assert_allclose(image_frame(points[..., :2], RIGHT)[0], [[0, -0.1], [0.1, 0]], atol=1e-12)
    np.testing.assert_allclose(image_frame(points[..., :2], ~RIGHT)[0], [[0, -0.1], [-0.1, 0]], atol=1e-12)
    along, across, out = palm_frame(points)[0]
    np.testing.assert_allclose(along, [0, -0.1, 0], atol=1e-12)
    np.testing.assert_allclose(across, [-0.1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(out, np.cross(along, across) / 0.1, atol=1e-12)


def test_offsets_measured_on_a_hand_turn_its_landmarks_into_our_joints():
    rng = np.random.default_rng(0)
    theirs, ours = rng.normal(0, 30, (1, 21, 2)), rng.normal(0, 30, (1, 21, 2))
    offsets = keypoint_offsets(theirs, ours)[0]
    np.testing.assert_allclose(to_our_keypoints(theirs, RIGHT, offsets), ours, atol=1e-9)
    mirrored = theirs * [-1, 1], ours * [-1, 1]
    np.testing.assert_allclose(to_our_keypoints(mirrored[0], ~RIGHT, offsets), mirrored[1], atol=1e-9)
    world, joints = rng.normal(0, 0.05, (1, 21, 3)), rng.normal(0, 0.05, (1, 21, 3))
    offsets = joint_offsets(world, joints)[0]
    found = to_our_joints(world, RIGHT, offsets)
    np.testing.assert_allclose(found - found[:, :1], joints - joints[:, :1], atol=1e-9)
    found = to_our_joints(mirror_points(world), ~RIGHT, offsets)
    np.testing.assert_allclose(found - found[:, :1], mirror_points(joints - joints[:, :1]), atol=1e-9)


def test_confidence_falls_from_one_to_zero_between_one_and_two_tolerances():
    points = np.zeros((1, 21, 2))
    points[0, 20] = 100, 50  # the hand measures 100 pixels
    other, third = points.copy(), points.copy()
    other[0, 1:4, 0] += 4.9, 7.5, 11
    third[0, 2, 1] -= 9  # the farther one counts: 2 - 9 / 5
    np.testing.assert_allclose(confidence(points, other, third, tolerance=0.05)[0, :5], [1, 1, 0.2, 0, 1], atol=1e-9)


class Reader:
    """A landmark network: the same points in every crop, moved by `shift` pixels."""

    def __init__(self, shift=0.0, presence=0.99, right=0.9, joints=21):
        self.shift, self.presence, self.right, self.joints = shift, presence, right, joints

    def __call__(self, images):
        angle = np.linspace(0, 5, 21)
        points = np.stack((112 + 60 * np.cos(angle), 112 + 60 * np.sin(angle), np.zeros(21)), -1)
        points[: self.joints] += self.shift
        every = np.ones(len(images))
        world = np.random.default_rng(0).normal(0, 0.05, (21, 3))
        return (
            points[None] * every[:, None, None],
            self.presence * every,
            self.right * every,
            np.stack([world] * len(images)),
        )


def found_hand():
    angle = np.linspace(0, 5, 21)
    points = np.stack((80 + 20 * np.cos(angle), 60 + 20 * np.sin(angle)), -1)[None]
    return Detections(np.concatenate((points.min(1), points.max(1)), 1), RIGHT, np.ones(1), points)


def test_three_looks_at_each_hand_of_which_the_second_is_turned():
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    (look,) = looks(image, found_hand())
    assert look.crops.shape == (2, 224, 224, 3) and look.rotations[1] - look.rotations[0] == TURN
    labeller = PointLabeller(full=Reader(), lite=Reader())
    # The fake network gives the same points in the turned crop too, which are others in the image.
    assert labeller([look]) == ["the networks disagree about its joints"]


@pytest.mark.parametrize(
    ("full", "lite", "reason"),
    [
        (Reader(presence=0.8), Reader(), "the networks are not sure that it is a hand (0.80)"),
        (Reader(), Reader(presence=0.3), "the networks are not sure that it is a hand (0.30)"),
        (Reader(right=0.9), Reader(right=0.2), "the networks disagree about its side"),
        (Reader(), Reader(shift=40.0), "the networks disagree about its joints"),
    ],
)
def test_a_doubtful_hand_is_left_out_with_the_reason(full, lite, reason):
    (look,) = looks(np.zeros((120, 160, 3), np.uint8), found_hand())
    straight = look._replace(affines=look.affines[[0, 0]], rotations=(look.rotations[0],) * 2)
    assert PointLabeller(full=full, lite=lite)([straight]) == [reason]


def test_sure_joints_are_labelled_and_the_others_have_no_confidence():
    (look,) = looks(np.zeros((120, 160, 3), np.uint8), found_hand())
    straight = look._replace(affines=look.affines[[0, 0]], rotations=(look.rotations[0],) * 2)
    (labels,) = PointLabeller(full=Reader(right=0.1), lite=Reader(shift=40.0, joints=3, right=0.2))([straight])
    assert labels.right is False and labels.vertices is None
    assert labels.keypoints[:, 2].tolist() == labels.joints[:, 3].tolist() == [0] * 3 + [1] * 18


def test_the_shipped_networks_agree_on_a_rendered_hand_and_find_its_joints(embedded):
    from fasthamer.data.synthetic.dataset import SyntheticDataset

    item = SyntheticDataset(embedded, 512, measure_mediapipe.SEED, 320, scale=0.0, shift=0.0)[(0, 2)]
    image, truth = item.image.permute(1, 2, 0).numpy(), (item.keypoints_2d[:, :2].double().numpy() + 0.5) * 320
    found = Detections(np.array([[*truth.min(0), *truth.max(0)]]), RIGHT, np.ones(1), truth[None])
    labeller = PointLabeller("cpu")
    (labels,) = labeller(labeller.views(image, found))
    assert labels.right and (labels.keypoints[:, 2] > 0).sum() > 15
    off = np.linalg.norm(labels.keypoints[:, :2] - truth, axis=1) / np.ptp(truth, axis=0).max()
    assert off.mean() < 0.05
    bones = [np.linalg.norm(points[9] - points[0]) for points in (labels.joints[:, :3], item.joints[:, :3].numpy())]
    assert bones[0] == pytest.approx(bones[1], rel=0.3)


def test_the_measurement_writes_a_module_like_the_shipped_one(tmp_path):
    out = tmp_path / "offsets.py"
    assert measure_mediapipe.main(["--count", "4", "--out", str(out)]) == 0
    written = runpy.run_path(str(out))
    assert written["KEYPOINTS"].shape == KEYPOINTS.shape == (21, 2)
    assert written["JOINTS"].shape == JOINTS.shape == (21, 3) and not JOINTS[0].any()
    assert np.abs(KEYPOINTS).max() < 0.1 and np.abs(written["KEYPOINTS"] - KEYPOINTS).max() < 0.5


def test_it_is_no_teacher_to_distil_from(tmp_path, capsys):
    with pytest.raises(ValueError, match="gives points only, no mesh to distil: label images with it first"):
        build_teacher("mediapipe")
    with pytest.raises(SystemExit):
        distill.main(["--teacher", "mediapipe", "--out", str(tmp_path / "run")])
    assert "--data labelled --data-root OUT --kd none" in capsys.readouterr().err and not list(tmp_path.iterdir())
