"""Tracks keep their numbers: on made landmarks, and on a rendered clip with the shipped detector."""

import numpy as np
import pytest
from miniatures_video import HEIGHT, WIDTH, Studio, crossing_hands

from fasthamer.detect.detections import Detections
from fasthamer.detect.landmark_reader import Landmarks
from fasthamer.video.tracker import HandTracker, Observed

SHAPE = np.random.default_rng(0).uniform(-20, 20, (21, 2))  # a hand of about 40 pixels


def observed(*hands, detected=True):
    """Hands as (x, y, probability of right)."""
    points = np.array([SHAPE * (1 if right > 0.5 else (-1, 1)) + (x, y) for x, y, right in hands]).reshape(-1, 21, 2)
    right, count = np.array([hand[2] for hand in hands], float), len(hands)
    return Observed(Landmarks(points, np.full(count, 0.9), right, np.zeros((count, 21, 3))), detected)


def follow(tracker, frames, rate=30):
    """The ids of each frame, by the order of the hands in it; 0 for a hand that has no track."""
    rows = []
    for number, hands in enumerate(frames):
        found = tracker.associate(observed(*hands), number / rate, 640, 480)
        middles = found.landmarks.mean(1) - SHAPE.mean(0) * np.where(found.right[:, None], 1, (-1, 1))
        row = []
        for x, y, _ in hands:
            near = np.linalg.norm(middles - (x, y), axis=1) < 1
            row.append(int(tracker.ids[np.argmax(near)]) if near.any() else 0)
        rows.append(row)
    return rows


@pytest.fixture(scope="module")
def tracker():
    """A function that makes trackers."""
    detector = HandTracker(threads=1).detector
    return lambda **settings: HandTracker(detector, **settings)


@pytest.mark.parametrize("sides", [(1, 0), (1, 1)], ids=["left and right", "two right hands"])
def test_hands_that_pass_each_other_keep_their_numbers(tracker, sides):
    # 10 pixels a frame towards each other; in the middle three frames only one of them is found.
    frames = [[(100 + 10 * n, 200, sides[0]), (400 - 10 * n, 205, sides[1])] for n in range(31)]
    for number in (14, 15, 16):
        del frames[number][1]
    rows = follow(tracker(), frames)
    assert {tuple(row) for row in rows if len(row) == 2} == {(1, 2)}
    assert [row for row in rows if len(row) == 1] == [[1]] * 3


def test_a_track_ends_where_the_hand_leaves_and_when_patience_is_over(tracker):
    leaves = tracker()
    follow(leaves, [[(620 + 4 * n, 200, 1)] for n in range(6)])
    leaves.associate(observed(), 0.2, 640, 480)
    assert leaves.tracks == []  # its predicted middle is 640 or more

    hidden = tracker(patience=0.5)
    follow(hidden, [[(300, 200, 1)]] * 3)
    hidden.associate(observed(), 0.5, 640, 480)
    assert len(hidden.tracks) == 1 and len(hidden.ids) == 0
    hidden.associate(observed((300, 200, 1)), 0.55, 640, 480)
    assert hidden.ids.tolist() == [1]
    hidden.associate(observed(), 1.06, 640, 480)
    hidden.associate(observed((300, 200, 1)), 1.1, 640, 480)
    assert hidden.ids.tolist() == [2]


def test_the_side_is_the_mean_of_all_frames(tracker):
    one, sides = tracker(), []
    for number, right in enumerate((0.9, 0.8, 0.1, 0.0, 0.2)):  # means 0.9, 0.85, 0.6, 0.45, 0.4
        hands = observed((300, 200, 1)).hands._replace(right=np.array([right]))
        sides += one.associate(Observed(hands, True), number / 30, 640, 480).right.tolist()
    assert sides == [True, True, True, False, False]


def test_no_more_hands_than_asked_for_and_the_surest_come_first(tracker):
    one = tracker(most=1)
    hands = observed((100, 100, 1), (300, 200, 0)).hands
    assert one.associate(Observed(hands, True), 0.0, 640, 480).landmarks.mean(1)[0, 0] == pytest.approx(
        hands.points[0].mean(0)[0]
    )
    assert one.ids.tolist() == [1]


@pytest.mark.parametrize(
    ("setting", "message"), [({"most": 0}, "most is 0"), ({"every": 0}, "every is 0"), ({"patience": -1.0}, "patience")]
)
def test_settings_out_of_range_are_refused(tracker, setting, message):
    with pytest.raises(ValueError, match=message):
        tracker(**setting)


def test_landmarks_are_read_in_the_boxes_of_a_detector_of_boxes_alone():
    studio = Studio()
    hands = [studio.hand(True, (0.1, 0, 0.45)), studio.hand(False, (-0.1, 0, 0.45))]
    boxes = np.array([[*hand.keypoints.min(0), *hand.keypoints.max(0)] for hand in hands])
    calls = []

    def detector(image):
        calls.append(image.shape)
        return Detections(boxes, np.array([True, False]), np.ones(2))

    tracker = HandTracker(detector, threads=1)
    image = studio.image(hands)
    for number in range(3):
        found = tracker(image, number / 30)
    assert calls == [(HEIGHT, WIDTH, 3)]  # both are there: no detection after the first
    truth = np.stack([hand.keypoints for hand in hands])
    errors = np.linalg.norm(found.landmarks[:, None] - truth, axis=-1).mean(-1)  # (tracks, hands)
    assert found.right.tolist() == [hands[index].right for index in errors.argmin(1)]
    assert sorted(errors.argmin(1)) == [0, 1] and errors.min(1).max() < 8


def test_a_rendered_clip_of_two_hands_that_cross_twice_and_leave_is_tracked_without_a_switch():
    studio = Studio(4)
    tracker = HandTracker(threads=1)
    owners, both, detections = {}, 0, 0
    switches = 0
    for time, hands in crossing_hands(studio):
        found = tracker(studio.image(hands), time)
        detections += tracker.detected
        truth = np.stack([hand.keypoints for hand in hands])
        both += len(tracker.ids) == 2
        for number, points in zip(tracker.ids.tolist(), found.landmarks, strict=True):
            owner = int(np.linalg.norm(truth - points, axis=-1).mean(1).argmin())
            switches += owners.setdefault(number, owner) != owner
    print(f"120 frames, {both} with both hands tracked, {switches} switches, {detections} detections")
    assert switches == 0
    assert owners == {1: 0, 2: 1}  # two tracks, one for each hand
    assert both >= 90 and detections <= 40
    assert len(tracker.ids) == 0 and tracker.tracks == []  # both have left
