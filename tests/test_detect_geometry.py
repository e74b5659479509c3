"""Anchors, suppression, tiles and turned squares of the hand detector, by hand."""

import numpy as np
import pytest

from fasthamer.data.crop import transform
from fasthamer.detect.detector import MediaPipeDetector, distinct, tight_boxes
from fasthamer.detect.landmark_reader import Landmarks
from fasthamer.detect.palms import Palms, anchors, decode, weighted_nms, window_affine, windows
from fasthamer.detect.regions import Region, box_region, hand_rotation, landmark_region, palm_region, turn_back
from fasthamer.detect.sampling import sample


def palms(boxes, score):
    boxes = np.array(boxes, float).reshape(-1, 4)
    keypoints = np.repeat(boxes[:, None, :2], 7, axis=1)
    return Palms(boxes, keypoints, np.array(score, float))


def an_upright_hand():
    """Landmarks of a stick hand: wrist at (100, 200), the middle finger's knuckle at (100, 140)."""
    fingers = {1: (60, 150), 5: (85, 142), 9: (100, 140), 13: (115, 142), 17: (128, 150)}
    points = np.zeros((21, 2))
    points[0] = 100, 200
    for first, (x, y) in fingers.items():
        for joint in range(4):
            points[first + joint] = x, y - 20 * joint
    return points


# ------------------------------------------------------------------------------------------------------------- palms


def test_anchors_are_the_middles_of_two_grids():
    found = anchors()
    assert found.shape == (2 * 24 * 24 + 6 * 12 * 12, 2) == (2016, 2)
    for index in range(1152):  # two in each cell of 8 pixels
        row, column = divmod(index // 2, 24)
        assert found[index].tolist() == [column * 8 + 4, row * 8 + 4]
    for index in range(864):  # six in each cell of 16 pixels
        row, column = divmod(index // 6, 12)
        assert found[1152 + index].tolist() == [column * 16 + 8, row * 16 + 8]


def test_a_palm_is_decoded_relative_to_its_anchor_and_the_window():
    # A window of 384 x 192 pixels at (100, 50): 2 pixels of the image for one of the network, 48 black rows above.
    affine = window_affine(np.array([100.0, 50, 484, 242]))
    values, logits = np.zeros((2016, 18)), np.full(2016, -200.0)
    values[2, :4] = 3, 4, 10, 20  # anchor 2 is at (12, 4): the box is (10, -2) to (20, 18)
    values[2, 8:10] = -1, 1  # keypoint 2 at (11, 5)
    logits[2], logits[7] = np.log(3), -0.1  # scores 0.75 and 0.475
    found = decode(values, logits, affine, 0.5)
    assert found.score == pytest.approx([0.75])
    np.testing.assert_allclose(found.boxes, [[100 + 20, 50 + 2 * (-2 - 48), 100 + 40, 50 + 2 * (18 - 48)]])
    np.testing.assert_allclose(found.keypoints[0, 2], [100 + 22, 50 + 2 * (5 - 48)])
    np.testing.assert_allclose(found.keypoints[0, 0], [100 + 24, 50 + 2 * (4 - 48)])


def test_overlapping_palms_are_averaged_by_score():
    # The second covers 8 of 10 columns of the first: 80 / 120 overlap. The third touches neither.
    found = weighted_nms(palms([[2, 0, 12, 10], [0, 0, 10, 10], [30, 0, 40, 10]], [0.6, 0.9, 0.7]), 9)
    assert found.score.tolist() == [0.9, 0.7]
    left = (0.6 * 2 + 0.9 * 0) / 1.5
    np.testing.assert_allclose(found.boxes, [[left, 0, left + 10, 10], [30, 0, 40, 10]])
    np.testing.assert_allclose(found.keypoints[0], [[left, 0]] * 7)


def test_palms_that_overlap_little_stay_apart_and_empty_ones_are_left_out():
    # 40 of 160 pixels in common: 0.25.
    found = weighted_nms(palms([[0, 0, 10, 10], [6, 0, 16, 10], [5, 5, 5, 9]], [0.6, 0.5, 0.99]), 9)
    assert found.score.tolist() == [0.6, 0.5]
    assert len(weighted_nms(palms([], []), 9).score) == 0


def test_the_number_of_palms_is_bounded():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 4000, (5000, 2))
    many = palms(np.concatenate((low, low + 20), 1), rng.uniform(0.5, 1, 5000))
    found = weighted_nms(many, 100)
    assert len(found.score) == 100
    assert (np.diff(found.score) <= 0).all() and found.score[0] == many.score.max()


def test_tiles_cover_the_image_and_repeat_a_quarter():
    assert windows(70, 35, 1).tolist() == [[0, 0, 70, 35]]
    # Two tiles that share a quarter of their side: 1 / 1.75 of the image each, 40 and 20 pixels, at 0 and 30 or 15.
    found = windows(70, 35, 2)
    whole = [[0, 0, 70, 35]]
    np.testing.assert_allclose(found, [*whole, [0, 0, 40, 20], [30, 0, 70, 20], [0, 15, 40, 35], [30, 15, 70, 35]])
    assert windows(70, 35, 5)[1:, 2:].max(0) == pytest.approx([70, 35])


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"tiles": 0}, "tiles is 0"), ({"tiles": 9}, "tiles is 9"), ({"most": 0}, "most is 0"), ({"score": 1}, "score")],
)
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        MediaPipeDetector(**setting)


# ----------------------------------------------------------------------------------------------------- turned squares


def test_the_square_of_an_upright_palm_lies_above_it():
    keypoints = np.zeros((7, 2))
    keypoints[0], keypoints[2] = (50, 80), (50, 40)
    region = palm_region(np.array([30.0, 40, 70, 80]), keypoints)
    assert region.rotation == 0 and region.side == pytest.approx(2.6 * 40)
    assert region.centre.tolist() == [50, 60 - 20]


def test_the_square_of_a_palm_turned_to_the_right_lies_on_its_right():
    keypoints = np.zeros((7, 2))
    keypoints[0], keypoints[2] = (30, 60), (70, 60)
    region = palm_region(np.array([30.0, 40, 70, 80]), keypoints)
    assert region.rotation == pytest.approx(90)
    np.testing.assert_allclose(region.centre, [50 + 20, 60])
    # The crop shows the knuckle above the wrist, both on its middle column.
    wrist, knuckle = transform(region.affine(104), keypoints[[0, 2]])
    np.testing.assert_allclose([wrist[0], knuckle[0], wrist[1] - knuckle[1]], [52, 52, 40])


def test_the_square_of_landmarks_follows_the_rule():
    region = landmark_region(an_upright_hand())
    # Weighted knuckles: ((85 + 115) / 4 + 100 / 2, ...) = 100: straight above the wrist. Without the outer joints of
    # the fingers the hand reaches from x 60 to 128 and from y 110 (thumb) to 200: 68 x 90 around (94, 155).
    assert region.rotation == pytest.approx(0)
    assert region.side == pytest.approx(2 * 90)
    np.testing.assert_allclose(region.centre, [94, 155 - 9])


def test_squares_turn_with_the_hand():
    points = an_upright_hand()
    still = landmark_region(points)
    for angle in (-170.0, -60.0, 30.0, 90.0):
        cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        turn = np.array([[cos, -sin], [sin, cos]])  # clockwise as seen, since y points down
        region = landmark_region(points @ turn.T)
        assert region.rotation == pytest.approx(angle) and region.side == pytest.approx(still.side)
        np.testing.assert_allclose(region.centre, turn @ still.centre)
        np.testing.assert_allclose(hand_rotation(points @ turn.T), angle)
        size = 224
        np.testing.assert_allclose(
            transform(region.affine(size), points @ turn.T), transform(still.affine(size), points), atol=1e-9
        )


def test_joints_in_a_turned_square_are_turned_back_to_the_camera():
    # A hand turned by 90 degrees points up in its square: up there is right in the image.
    np.testing.assert_allclose(turn_back(np.array([0.0, -1, 5]), 90), [1, 0, 5], atol=1e-12)
    np.testing.assert_allclose(turn_back(np.array([1.0, 0, 5]), 90), [0, 1, 5], atol=1e-12)


def test_a_given_box_is_enlarged_and_squared():
    region = box_region(np.array([10.0, 20, 50, 40]), 30)
    assert (region.centre.tolist(), region.side, region.rotation) == ([30, 30], 60, 30)


def test_a_large_image_is_averaged_before_it_shrinks():
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 200  # one in two columns: sampled without averaging it would be 0 or 200
    crop = sample(stripes, Region(np.array([200.0, 200]), 400, 0.0).affine(100), 100, repeat=False)
    assert crop.shape == (100, 100, 3) and np.abs(crop[5:-5, 5:-5].astype(int) - 100).max() <= 1
    # A dot stays where it is.
    dot = np.zeros((400, 400, 3), np.uint8)
    dot[118:123, 278:283] = 255  # around (280, 120)
    crop = sample(dot, Region(np.array([200.0, 200]), 400, 0.0).affine(100), 100, repeat=False)[..., 0].astype(float)
    assert (crop.sum(0) @ np.arange(100) / crop.sum()) == pytest.approx(280 / 4, abs=0.05)
    assert (crop.sum(1) @ np.arange(100) / crop.sum()) == pytest.approx(120 / 4, abs=0.05)


def test_outside_of_the_image_is_black_or_its_edge():
    white = np.full((10, 10, 3), 255, np.uint8)
    affine = Region(np.array([5.0, 5]), 20, 0.0).affine(20)
    assert sample(white, affine, 20, repeat=False)[0, 0].tolist() == [0, 0, 0]
    assert sample(white, affine, 20, repeat=True)[0, 0].tolist() == [255, 255, 255]


# ---------------------------------------------------------------------------------------------------- found once only


def hands_at(points, presence):
    points = np.array(points, float)
    count = len(points)
    return Landmarks(points, np.array(presence, float), np.ones(count), np.zeros((count, 21, 3)))


def test_a_hand_found_twice_is_kept_once_with_the_higher_presence():
    hand = an_upright_hand()  # 120 pixels high: nearer than 42 it is the same
    near, far, other = (hand + np.array(by) for by in ((0, 41), (0, 43), (200, 0)))
    assert distinct(hands_at([hand, near, other], [0.8, 0.9, 0.7]), 600, 600).tolist() == [1, 2]
    assert distinct(hands_at([hand, far], [0.8, 0.9]), 600, 600).tolist() == [1, 0]


def test_a_part_of_a_hand_is_no_hand_and_a_hand_outside_of_the_image_neither():
    hand = an_upright_hand()
    half = hand.mean(0) + (hand - hand.mean(0)) / 2  # its box has a quarter of the area
    inside, apart = half + np.array([5, 10]), half + np.array([0, 120])
    assert distinct(hands_at([inside, hand, apart], [0.8, 0.9, 0.7]), 600, 600).tolist() == [1, 2]
    assert distinct(hands_at([hand + 700, hand, hand * 0], [0.8, 0.7, 0.9]), 600, 600).tolist() == [1]
    assert distinct(hands_at(np.zeros((0, 21, 2)), []), 600, 600).tolist() == []


def test_boxes_are_tight_around_the_landmarks():
    assert tight_boxes(an_upright_hand()[None]).tolist() == [[60, 80, 128, 200]]
