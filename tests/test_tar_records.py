"""Records in HaMeR's format: labels, filters, and what is refused."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from miniatures_tars import hand_record

from fasthamer.data import crop
from fasthamer.data.readers.tar_record import Filters, read_record, write_record
from fasthamer.data.sample import Labels


def read(*hands, filters=None):
    return read_record(pickle.dumps(list(hands)), "a.tar: key", filters)


def record(seed=0, **changes):
    return hand_record(np.random.default_rng(seed), **changes)


def test_a_record_is_read_according_to_hamers_format():
    made = record(seed=3)
    (hand,) = read(made, filters=Filters())
    np.testing.assert_array_equal(hand.labels.keypoints, made["keypoints_2d"])
    np.testing.assert_array_equal(hand.labels.joints, made["keypoints_3d"])
    np.testing.assert_array_equal(hand.labels.pose.ravel(), made["hand_pose"])
    np.testing.assert_array_equal(hand.labels.betas, made["betas"])
    width, height = made["scale"].astype(float) * 200
    assert hand.box[1] == pytest.approx(max(height, width * 256 / 192)) and not hand.left
    assert hand.labels.vertices is None


def test_an_image_of_two_hands_gives_two_hands():
    first, second = read(record(), record(seed=1, left=True))
    assert (first.left, second.left) == (False, True)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_and_old_numpy_names_are_read(protocol):
    data = pickle.dumps([record()], protocol=protocol)
    old = data.replace(b"cnumpy._core.", b"cnumpy.core.") if protocol == 2 else data
    assert len(read_record(old, "x", None)) == 1


def test_keypoints_below_the_confidence_are_unknown():
    points = record()["keypoints_2d"].copy()
    points[:3, 2] = [0.29, 0.31, 0.0]
    (hand,) = read(record(keypoints_2d=points), filters=Filters())
    assert (hand.labels.keypoints[:3, 2] > 0).tolist() == [False, True, False]


@pytest.mark.parametrize(("known", "kept"), [(4, 0), (5, 1)])
def test_hands_with_four_keypoints_or_fewer_are_left_out(known, kept):
    points = record()["keypoints_2d"].copy()
    points[known:, 2] = 0
    assert len(read(record(keypoints_2d=points), filters=Filters())) == kept


@pytest.mark.parametrize(("loss", "kept"), [(30999.0, 1), (31000.0, 0)])
def test_hands_whose_fit_reprojects_badly_are_left_out(loss, kept):
    info = {"fitting_loss": np.array({"reprojection_loss": np.float32(loss)}, dtype=object)}
    assert len(read(record(extra_info=info), filters=Filters())) == kept
    assert len(read(record(extra_info={}), filters=Filters())) == 1  # without a fitting loss


def test_a_fitting_loss_in_brackets_is_one_and_several_are_refused():
    filters = Filters(fitting_loss=5.0)
    assert len(read(record(extra_info={"fitting_loss": {"reprojection_loss": np.array([4.0])}}), filters=filters)) == 1
    with pytest.raises(ValueError, match="hand 0: the fitting loss is not one number"):
        read(record(extra_info={"fitting_loss": {"reprojection_loss": np.ones(2)}}), filters=filters)


@pytest.mark.parametrize(
    "changes", [{"betas": np.array([0, 3.1] + [0] * 8)}, {"has_betas": np.array(0.0)}, {"has_hand_pose": np.array(0.0)}]
)
def test_pose_and_shape_are_labels_together_or_the_shape_is_the_mean(changes):
    (hand,) = read(record(**changes), filters=Filters())
    assert hand.labels.pose is None and hand.labels.betas.tolist() == [0] * 10  # HaMeR's BETAS_REG
    (hand,) = read(record(**changes), filters=Filters(regular_betas=False))
    assert hand.labels.betas is None


def test_shards_packed_by_our_tool_are_not_filtered():
    made = record(betas=np.full(10, 5.0))
    (hand,) = read(made, filters=None)
    assert hand.labels.betas.tolist() == [5.0] * 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keypoints_2d": np.zeros((44, 3))}, r"keypoints_2d is \(44, 3\), expected \(21, 3\)"),
        ({"center": np.array([np.nan, 3])}, "has no box"),
        ({"scale": np.zeros(2)}, "has no box"),
        ({"hand_pose": np.full(48, np.inf)}, "hand_pose holds numbers that are not finite"),
        ({"right": 0.5}, "right: 0.5 is no side"),
        ({"right": np.nan}, "right: nan is no side"),
        ({"right": "yes"}, "right is not an array of numbers"),
    ],
)
def test_a_malformed_record_is_refused_and_named(changes, message):
    with pytest.raises(ValueError, match=rf"a\.tar: key: hand 0.*{message}"):
        read(record(**changes))
    lacking = record()
    del lacking["keypoints_3d"]
    with pytest.raises(ValueError, match="hand 0 has no keypoints_3d"):
        read(lacking)


def test_a_malicious_record_is_refused_without_being_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "harm",)

    with pytest.raises(ValueError, match="refused, since it refers to pathlib"):
        read({"keypoints_2d": Evil()})
    assert not (tmp_path / "harm").exists()


def test_a_written_record_reads_back_to_float32():
    rng = np.random.default_rng(0)
    labels = Labels(
        np.column_stack((rng.normal(100, 30, (21, 2)), np.ones(21))),
        np.column_stack((rng.normal(size=(21, 3)), np.ones(21))),
        rng.normal(size=(778, 3)),
        rng.normal(size=(16, 3)),
        rng.normal(size=10),
    )
    for given in (labels, Labels(), labels._replace(pose=None), labels._replace(joints=None, vertices=None)):
        (hand,) = read_record(write_record(given, crop.Box(np.array([3.5, 9.0]), 123.4), True, "x.jpg"), "x", None)
        assert hand.left and hand.box[1] == pytest.approx(123.4) and hand.box[0].tolist() == [3.5, 9.0]
        for found, wanted in zip(hand.labels, given, strict=True):
            assert (found is None) == (wanted is None)
            if wanted is not None:
                np.testing.assert_array_equal(found, wanted.astype(np.float32))


def test_the_box_equals_hamers():
    made = record(scale=np.array([1.2, 0.4], np.float32))
    (hand,) = read(made)
    assert hand.box[1] == pytest.approx(1.2 * 200 * 256 / 192) == pytest.approx(crop.box_side(np.array([240.0, 80.0])))
