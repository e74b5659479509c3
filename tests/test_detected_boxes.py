"""DATA.BOX detector: the detected box that fits the label, misses, and what cannot be detected in."""

import json
import os
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from miniatures_2d import write_coco, write_hint
from miniatures_capture import write_freihand
from miniatures_images import exact_output
from torch import nn

from fasthamer.config import load_config
from fasthamer.data.build import build_dataset
from fasthamer.data.crop import BOX_SHAPES, Box, chosen_box, hand_box, image_box, keypoint_box
from fasthamer.detect.boxes import BoxFinder, hand_boxes
from fasthamer.detect.detections import Detections
from fasthamer.distill.evaluate import evaluate, predict, rules_for
from fasthamer.distill.score_table import table


def box(x, y, side):
    return Box(np.array([x, y], float), side)


def test_the_box_with_the_largest_overlap_is_chosen_and_without_one_the_whole_image():
    labelled = box(100, 100, 80)  # its middle half: 80 to 120
    near, nearer, next_to = box(110, 100, 80), box(100, 100, 100), box(141, 100, 80)
    assert chosen_box([near, nearer], labelled, 300, 200) is nearer  # 0.6 and 0.64
    assert chosen_box([next_to, near], labelled, 300, 200) is near
    for found in ([], [next_to]):  # a neighbour's box overlaps only in its outer half
        chosen, whole = chosen_box(found, labelled, 300, 200, "square"), image_box(300, 200, "square")
        assert chosen.centre.tolist() == whole.centre.tolist() == [150, 100] and chosen.side == whole.side == 300


def test_boxes_are_around_landmarks_and_turn_with_them_where_there_are_any():
    rng = np.random.default_rng(0)
    landmarks = rng.uniform(20, 80, (2, 21, 2))
    found = Detections(np.concatenate((landmarks.min(1), landmarks.max(1)), 1), np.ones(2, bool), np.ones(2), landmarks)
    for shape in ("hamer", "square", "upright"):
        for got, points in zip(hand_boxes(found, shape), landmarks, strict=True):
            wanted = hand_box(np.column_stack((points, np.ones(21))), shape)
            assert (
                got.side == wanted.side
                and got.rotation == wanted.rotation
                and (got.rotation != 0) == (shape == "upright")
            )
    (first, _) = hand_boxes(found._replace(landmarks=None), "square")
    assert first.side == keypoint_box(landmarks[0], "square").side and first.rotation == 0
    turned = found._replace(landmarks=None, rotation=np.array([30.0, -60.0]))
    assert [each.rotation for each in hand_boxes(turned, "upright")] == [30, -60]
    assert [each.rotation for each in hand_boxes(turned, "square")] == [0, 0]


def opened(counter):
    with counter.open("a") as file:
        file.write(f"{os.getpid()}\n")
    return lambda image: Detections(np.array([[1.0, 2, 5, 9]]), np.ones(1, bool), np.ones(1))


def test_a_detector_is_opened_once_in_each_process_and_never_sent_to_one(tmp_path):
    finder = BoxFinder(partial(opened, tmp_path / "log"))
    assert not (tmp_path / "log").exists()
    image = np.zeros((20, 20, 3), np.uint8)
    assert finder(image, "square")[0].side == finder(image, "square")[0].side == 14  # twice the larger side
    assert len((tmp_path / "log").read_text().split()) == 1
    other = pickle.loads(pickle.dumps(finder))
    other(image, "square")
    assert len((tmp_path / "log").read_text().split()) == 2


class Fake:
    """Finds the labelled box, moved by two pixels, and a larger one far away; nothing in every `gap`-th image."""

    def __init__(self, boxes, gap):
        self.boxes, self.gap, self.calls = boxes, gap, 0

    def __call__(self, image, shape):
        self.calls += 1
        number = self.calls - 1
        if number % self.gap == self.gap - 1:
            return [box(2000, 2000, 400)]
        label = self.boxes[number % len(self.boxes)]
        return [box(2000, 2000, 400), label._replace(centre=label.centre + 2)]


class Perfect(nn.Module):
    """Outputs the labels of a dataset's crops in order; of 2D labels only the keypoints."""

    def __init__(self, items, hand):
        super().__init__()
        self.items, self.hand, self.begin = items, hand, 0

    def forward(self, image):
        items = self.items[self.begin : self.begin + len(image)]
        self.begin += len(image)
        return exact_output(items, self.hand)


def labelled_and_detected(settings, hand, gap):
    plain = build_dataset(load_config(None, settings), hand, train=False)
    boxes = [plain.raw_sample(index).box for index in range(len(plain))]
    detected = load_config(None, [*settings, "DATA.BOX", "detector"])
    return plain, [build_dataset(detected, hand, train=False, find=Fake(boxes, gap)) for _ in range(2)]


def test_crops_are_around_detected_hands_and_misses_are_counted_and_printed(tmp_path, embedded):
    write_freihand(tmp_path, count=1, evaluation=3)
    settings = ["DATA.NAME", "freihand", "DATA.ROOT", str(tmp_path), "IMAGE_SIZE", "64", "DATA.INDEX", "none"]
    plain, (first, second) = labelled_and_detected(settings, embedded, gap=3)
    items = [first[(0, index)] for index in range(3)]
    for index, item in enumerate(items[:2]):
        side = plain.raw_sample(index).box.side
        np.testing.assert_allclose(item.crop - plain[(0, index)].crop, [[0, 0, -128 / side]] * 2, atol=1e-4)
    np.testing.assert_allclose(items[2].crop[0, 0], 64 / image_box(224, 224).side, rtol=1e-6)
    predicted = predict(Perfect(items, embedded), second, batch=2)
    assert predicted.missed.tolist() == [False, False, True]
    scores = evaluate(predicted, rules_for(second), embedded.J_regressor.numpy())
    assert scores["detector_misses"] == 1 and scores["n"] == 3
    assert "1 hands not found by the detector: the crop was the whole image" in table(scores)
    without = predict(Perfect([plain[(0, index)] for index in range(3)], embedded), plain)
    assert without.missed is None
    assert "detector_misses" not in json.dumps(evaluate(without, rules_for(plain), embedded.J_regressor.numpy()))


def test_pck_stays_relative_to_the_labelled_box(tmp_path, embedded):
    write_hint(tmp_path, count=3, names=("TEST_newdays_img",))
    settings = [
        "DATA.NAME",
        "hint",
        "DATA.ROOT",
        str(tmp_path),
        "DATA.EVAL_SPLIT",
        "TEST_newdays_img",
        "IMAGE_SIZE",
        "64",
    ]
    plain, (first, second) = labelled_and_detected(settings, embedded, gap=2)
    items = [first[(0, index)] for index in range(3)]
    predicted = predict(Perfect(items, embedded), second, batch=3)
    assert predicted.missed.tolist() == [False, True, False]
    np.testing.assert_allclose(predicted.hand_size, [plain.raw_sample(index).box.side / 2 for index in range(3)])


@pytest.mark.parametrize("shape", BOX_SHAPES)
def test_pck_is_relative_to_the_labelled_keypoints_whatever_the_model_crops(tmp_path, embedded, shape):
    truth = write_coco(tmp_path, 3)
    settings = ["DATA.NAME", "coco", "DATA.ROOT", str(tmp_path), "DATA.EVAL_SPLIT", "hands_train.json"]
    dataset = build_dataset(load_config(None, [*settings, "DATA.BOX_SHAPE", shape]), embedded, train=False)
    predicted = predict(Perfect([dataset[(0, index)] for index in range(3)], embedded), dataset, batch=3)
    names = [dataset.image_path(index).name for index in range(3)]
    np.testing.assert_allclose(predicted.hand_size, [np.ptp(truth[name], axis=0).max() for name in names], rtol=1e-4)


def test_it_is_refused_where_there_is_no_image_to_search_or_no_detector(embedded, tmp_path):
    synthetic = load_config(None, ["DATA.NAME", "synthetic", "DATA.BOX", "detector"])
    with pytest.raises(ValueError, match="synthetic hands are rendered inside their box"):
        build_dataset(synthetic, embedded, train=False, find=Fake([], 2))
    with pytest.raises(ValueError, match=r"for tools/distill.py and tools/eval.py"):
        build_dataset(synthetic, embedded, train=False)
    tars = load_config(None, ["DATA.NAME", "tars", "DATA.ROOT", str(tmp_path), "DATA.BOX", "detector"])
    with pytest.raises(ValueError, match="tar shards hold the boxes"):
        build_dataset(tars, embedded, train=True, find=Fake([], 2))


def test_real_hands_are_found_where_they_are_labelled(shared_data, embedded):
    pytest.importorskip("onnxruntime", reason="the detector needs the extra [export]")
    from fasthamer.detect.boxes import mediapipe_boxes

    settings = ["DATA.NAME", "freihand", "DATA.ROOT", str(shared_data("realhand")), "DATA.INDEX", "none"]
    settings += ["DATA.BOX_SHAPE", "upright"]
    labelled = build_dataset(load_config(None, settings), embedded, train=False)
    cfg = load_config(None, [*settings, "DATA.BOX", "detector"])
    detected = build_dataset(cfg, embedded, train=False, find=mediapipe_boxes())
    for index in (0, 40, 79):
        crops = [torch.linalg.det(each[(0, index)].crop[:, :2]) for each in (labelled, detected)]
        assert 0.6 < float(crops[0] / crops[1]) < 1.7
        assert detected[(0, index)].keypoints_2d[:, :2].abs().max() < 0.4
