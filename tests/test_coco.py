"""2D keypoints in COCO's and COCO-WholeBody's format, rendered and real; and JSON files read piece by piece."""

import json

import numpy as np
import pytest
import torch
from miniatures_2d import drawn_hands, write_coco
from miniatures_capture import unreadable
from torch.utils.data import default_collate

from fasthamer.config import load_config
from fasthamer.data.build import build_dataset
from fasthamer.data.crop import Box
from fasthamer.data.readers.coco import LARGE, CocoHands
from fasthamer.data.sample import Labels, make_item
from fasthamer.files.json_stream import JsonStream
from fasthamer.hand.mano import load_hand
from fasthamer.types import Batch


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("coco")
    return root, write_coco(root, 4)


def edited(root, change, name="annotations/hands_train.json"):
    """Changes the JSON file in place with `change`; returns `root`."""
    path = root / name
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return root


def test_keypoints_equal_those_of_the_file_in_any_order_of_images(drawn):
    root, truth = drawn
    dataset = CocoHands(root, "training")
    assert len(dataset) == 4 and dataset.info.protocol == "hint"
    for index in range(4):
        labels = dataset.labels(index)
        np.testing.assert_allclose(labels.keypoints[:, :2], truth[dataset.image_path(index).name], atol=1e-3)
        assert (labels.keypoints[:, 2] == 1).all()
        assert labels.joints is labels.vertices is labels.pose is labels.betas is None
        assert dataset.is_left(index) == bool(index % 2)
        assert dataset.sample_name(index) == f"{index:012d}.jpg:{'left' if index % 2 else 'right'}"


def test_keypoints_lie_on_the_rendered_hand_in_image_and_crop(drawn):
    dataset = CocoHands(drawn[0], "hands_train.json")
    for index, (image, mask, _, _) in enumerate(drawn_hands(4)):
        points = np.rint(dataset.labels(index).keypoints[:, :2]).astype(int)
        low, high = np.clip(points - 1, 0, None), points + 2
        assert all(mask[y0:y1, x0:x1].any() for (x0, y0), (x1, y1) in zip(low, high, strict=True))
        item = dataset[(0, index)]
        x, y = ((item.keypoints_2d[:, :2] + 0.5) * 256).round().long().T
        red, blue = item.image[0].float(), item.image[2].float()
        brightest = torch.nn.functional.max_pool2d(red[None], 3, 1, 1)[0]  # within a pixel
        assert (brightest[y, x] > 100).all() and red[2, 2] < blue[2, 2] + 50
        assert image[..., 0].max() > 100


def test_whole_body_annotations_give_each_valid_hand_with_its_side(tmp_path):
    truth = write_coco(tmp_path, 2, "annotations/coco_wholebody_train_v1.0.json", whole_body=True)
    (tmp_path / "images").rename(tmp_path / "train2017")
    dataset = CocoHands(tmp_path, "training")
    assert [dataset.is_left(index) for index in range(len(dataset))] == [False, True]
    for index in range(2):
        np.testing.assert_allclose(
            dataset.labels(index).keypoints[:, :2], truth[dataset.image_path(index).name], atol=1e-3
        )
    both = {"lefthand_valid": True, "lefthand_box": [1, 2, 30, 40], "lefthand_kpts": [5.0, 6.0, 0.7] * 21}
    edited(
        tmp_path, lambda content: content["annotations"][0].update(both), "annotations/coco_wholebody_train_v1.0.json"
    )
    dataset = CocoHands(tmp_path, "training")
    assert len(dataset) == 3 and dataset.labels(0).keypoints[0, 2] == pytest.approx(0.7)


def test_the_crop_uses_the_annotated_box_if_keypoints_are_unknown(tmp_path):
    write_coco(tmp_path, 1)

    def hide(content):
        content["annotations"][0]["keypoints"][3 * 8 : 3 * 9] = [0, 0, 0]
        content["annotations"][0]["bbox"] = [20, 30, 60, 100]

    labels = CocoHands(tmp_path, "training").raw_sample(0)
    spread = np.ptp(labels.labels.keypoints[:, :2], axis=0)
    assert labels.box[1] == pytest.approx(max(2 * spread[1], 2 * spread[0] * 256 / 192), rel=1e-5)
    centre, side, _ = CocoHands(edited(tmp_path, hide), "training").raw_sample(0).box
    assert centre.tolist() == [50, 80] and side == 200
    edited(tmp_path, lambda content: content["annotations"][0].pop("bbox"))
    item = CocoHands(tmp_path, "training")[(0, 0)]
    assert item.keypoints_2d[:, 2].sum() == 20 and item.keypoints_2d[8].abs().sum() == 0


def test_hands_with_fewer_than_five_keypoints_are_left_out_and_counted(tmp_path):
    write_coco(tmp_path, 3)

    def hide(content):
        for hand, known in ((0, 4), (1, 5)):
            content["annotations"][hand]["keypoints"][2 + 3 * known :: 3] = [0] * (21 - known)

    dataset = CocoHands(edited(tmp_path, hide), "training")
    assert len(dataset) == 2 and dataset.info.left_out == ("1 hands with too few keypoints",)
    assert dataset.labels(0).keypoints[:, 2].sum() == 5


def test_the_side_comes_from_the_annotation_then_the_category_and_defaults_to_right(tmp_path):
    write_coco(tmp_path, 3)

    def change(content):
        first, second, third = content["annotations"]
        first.pop("hand_type"), second.pop("hand_type"), third.update(hand_type="left")
        second["category_id"] = 2
        content["categories"].append({"id": 2, "name": "Left_Hand"})

    dataset = CocoHands(edited(tmp_path, change), "training")
    assert [dataset.is_left(index) for index in range(3)] == [False, True, True]


FINGERS = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
TIP_TO_BASE = ["wrist", *(f"{finger}{number}" for finger in FINGERS for number in (4, 3, 2, 1))]  # mmpose's RHD


def test_keypoints_follow_the_names_in_their_category(tmp_path):
    truth = write_coco(tmp_path, 3)
    order = [0, *(joint for base in range(1, 21, 4) for joint in range(base + 3, base - 1, -1))]

    def change(content):
        for annotation in content["annotations"]:
            rows = np.array(annotation["keypoints"]).reshape(21, 3)
            annotation["keypoints"] = rows[order].ravel().tolist()
        content["categories"] = [{"id": 1, "name": "hand", "keypoints": TIP_TO_BASE}, {"id": 2, "name": "left"}]
        in_our_order = content["annotations"][2]
        in_our_order["category_id"] = 2  # without names: OpenPose's
        in_our_order["keypoints"] = np.array(in_our_order["keypoints"]).reshape(21, 3)[order].ravel().tolist()

    dataset = CocoHands(edited(tmp_path, change), "training")
    for index in range(3):
        points = dataset.labels(index).keypoints[:, :2]
        np.testing.assert_allclose(points, truth[dataset.image_path(index).name], atol=1e-3)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["nose", *TIP_TO_BASE[1:]], "'nose' is not understood; its keypoints are nose, thumb4, thumb3"),
        (["wrist", "thumb"], r"its keypoints are 2 \(wrist, thumb\), expected one hand's 21"),
    ],
)
def test_keypoint_names_that_are_not_understood_are_refused(tmp_path, names, message):
    write_coco(tmp_path, 1)
    edited(tmp_path, lambda content: content["categories"][0].update(keypoints=names))
    with pytest.raises(ValueError, match=rf"hands_train.json: categories\[0\]: .*{message}"):
        CocoHands(tmp_path, "training")


def test_names_of_categories_without_hands_and_of_whole_bodies_do_not_matter(tmp_path):
    write_coco(tmp_path / "a", 1)
    edited(tmp_path / "a", lambda c: c["categories"].append({"id": 5, "name": "person", "keypoints": ["nose"]}))
    assert len(CocoHands(tmp_path / "a", "training")) == 1
    name = "annotations/coco_wholebody_train_v1.0.json"
    truth = write_coco(tmp_path / "b", 1, name, whole_body=True)
    edited(tmp_path / "b", lambda c: c["categories"][0].update(keypoints=TIP_TO_BASE), name)
    points = CocoHands(tmp_path / "b", "training").labels(0).keypoints[:, :2]
    np.testing.assert_allclose(points, truth["000000000000.jpg"], atol=1e-3)


def test_annotations_of_groups_are_left_out_and_counted(tmp_path):
    write_coco(tmp_path, 3)
    dataset = CocoHands(edited(tmp_path, lambda c: c["annotations"][1].update(iscrowd=1)), "training")
    assert len(dataset) == 2 and dataset.info.left_out == ("1 annotations of groups (iscrowd)",)
    assert [dataset.sample_name(index)[:12] for index in range(2)] == ["000000000000", "000000000002"]


def test_2d_samples_collate_with_fully_labelled_ones(drawn):
    hand = load_hand("embedded")
    names = ["DATA.NAME", "coco", "DATA.ROOT", str(drawn[0]), "IMAGE_SIZE", "64"]
    flat = build_dataset(load_config(None, names), hand, train=True)
    point, rest = np.ones((21, 1)), np.zeros((16, 3))
    known = Labels(np.ones((21, 3)), np.hstack((np.zeros((21, 3)), point)), np.zeros((778, 3)), rest, np.zeros(10))
    whole = make_item(np.zeros((64, 64, 3), np.uint8), known, Box(np.array([32.0, 32.0]), 64.0), 64, 0)
    batch = Batch(*default_collate([flat[(0, 0)], whole]))
    assert batch.has_pose.tolist() == batch.has_vertices.tolist() == batch.has_betas.tolist() == [0, 1]
    assert batch.joints[:, :, 3].sum(1).tolist() == [0, 21]
    assert batch.keypoints_2d[:, :, 2].sum(1).tolist() == [21, 21]


def test_the_index_of_a_large_file_is_cached_until_the_file_changes(tmp_path):
    write_coco(tmp_path, 3)
    path = tmp_path / "annotations" / "hands_train.json"
    edited(tmp_path, lambda content: content["annotations"][2].update(keypoints=[0] * 63))
    path.write_text(path.read_text() + " " * LARGE)
    first = CocoHands(tmp_path, "training", cache=str(tmp_path / "indexes"))
    with unreadable(path):  # reading it again would fail
        again = CocoHands(tmp_path, "training", cache=str(tmp_path / "indexes"))
    assert (len(again), again.info) == (len(first), first.info) and len(first) == 2
    for one, two in zip(first[(0, 1)], again[(0, 1)], strict=True):
        assert torch.equal(one, two)
    edited(tmp_path, lambda content: content["annotations"].pop(0))
    path.write_text(path.read_text() + " " * LARGE)
    assert len(CocoHands(tmp_path, "training", cache=str(tmp_path / "indexes"))) == 1


def test_an_annotation_file_is_found_by_a_part_of_its_name(tmp_path):
    write_coco(tmp_path, 1, "annotations/onehand10k_train.json")
    with pytest.raises(FileNotFoundError, match=r"fits 'evaluation' \(there: onehand10k_train.json\)"):
        CocoHands(tmp_path, "evaluation")
    write_coco(tmp_path, 2, "onehand10k_val.json")
    (tmp_path / "evaluation_K.json").write_text("[[[1, 2, 3]]]")  # FreiHAND's, beside it: a list, not COCO
    assert len(CocoHands(tmp_path, "evaluation")) == 2 and len(CocoHands(tmp_path, "training")) == 1
    write_coco(tmp_path, 1, "other_val.json")
    with pytest.raises(ValueError, match=r"several .* 'evaluation' \(onehand10k_val.json, other_val.json\)"):
        CocoHands(tmp_path, "evaluation")
    with pytest.raises(FileNotFoundError, match="no folder"):
        CocoHands(tmp_path / "nowhere", "training")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][1].pop("keypoints"), r"annotations\[1\] has no 'keypoints'"),
        (lambda c: c["annotations"][1].update(keypoints=[0] * 51), r"annotations\[1\]: 51 numbers for keypoints"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), r"annotations\[0\]: box .* expected x, y, width"),
        (lambda c: c["annotations"][0]["keypoints"].__setitem__(4, float("inf")), "not finite"),
        (lambda c: c["annotations"][0].update(hand_type="both"), "hand_type is 'both', expected left or right"),
        (lambda c: c["annotations"][0].update(iscrowd="no"), "iscrowd is 'no', expected 0 or 1"),
        (lambda c: c["categories"][0].pop("id"), r"categories\[0\] has no 'id'"),
        (lambda c: c["annotations"][0].update(image_id=5), "annotations of image 5, which is not among its images"),
        (lambda c: c["images"][1].pop("file_name"), r"images\[1\] has no 'file_name'"),
        (lambda c: c.pop("images"), "has no images: not a COCO annotation file"),
        (lambda c: c["annotations"].clear(), "no hand with 5 keypoints or more"),
    ],
)
def test_a_damaged_file_is_named_together_with_the_record(tmp_path, change, message):
    write_coco(tmp_path, 2)
    with pytest.raises(ValueError, match=f"hands_train.json.*{message}"):
        CocoHands(edited(tmp_path, change), "training")


def test_a_truncated_file_and_a_missing_image_are_named(tmp_path):
    write_coco(tmp_path, 2)
    (tmp_path / "images" / "000000000001.jpg").unlink()
    dataset = CocoHands(tmp_path, "training")
    with pytest.raises(FileNotFoundError, match=r"no image .*000000000001.jpg"):
        dataset[(0, 1)]
    (tmp_path / "images" / "000000000000.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"no image 000000000000.jpg in"):
        CocoHands(tmp_path, "training")
    path = tmp_path / "annotations" / "hands_train.json"
    for length in (0, 1, 40, path.stat().st_size - 1):
        path.write_text(path.read_text()[:length])
        with pytest.raises(ValueError, match=r"hands_train.json: no complete JSON"):
            CocoHands(tmp_path, "training")


VALUES = {
    "text": 'ä "quoted" \\ \n [{',
    "numbers": [0, -1.5e-7, 12345678901234567890, 1e300],
    "nested": {"empty": {}, "list": [[], [1, [2, {"a": None}]]], "true": True},
    "last": 1234567,
}


@pytest.mark.parametrize("block", [1, 2, 7, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_streamed_file_equals_json_load_for_any_block_size(tmp_path, block, indent):
    path = tmp_path / "some.json"
    path.write_text(" " + json.dumps(VALUES, indent=indent, ensure_ascii=False), encoding="utf-8")
    with JsonStream(path, block) as stream:
        assert {key: stream.value() for key in stream.members()} == VALUES
    with JsonStream(path, block) as stream:
        parts = {}
        for key in stream.members():
            if key == "numbers":
                parts[key] = list(stream.elements())
            else:
                stream.skip()
    assert parts == {"numbers": VALUES["numbers"]}


def test_a_number_that_crosses_the_edge_of_a_block_is_read_completely(tmp_path):
    (tmp_path / "n.json").write_text("[123456, 7]")
    with JsonStream(tmp_path / "n.json", block=3) as stream:
        assert list(stream.elements()) == [123456, 7]


def test_too_deep_nesting_is_an_error_and_not_a_crash(tmp_path):
    (tmp_path / "deep.json").write_text('{"images": ' + "[" * 200_000 + "]" * 200_000 + "}")
    with JsonStream(tmp_path / "deep.json") as stream, pytest.raises(ValueError, match=r"deep\.json"):
        for _ in stream.members():
            stream.value()


def test_real_freihand_keypoints_in_coco_format_are_the_same_on_every_background(shared_data):
    dataset = CocoHands(shared_data("freihand_2d"), "evaluation")
    assert len(dataset) == 8
    by_hand = {}
    for index in range(8):
        item, labels = dataset[(0, index)], dataset.labels(index)
        assert labels.keypoints[:, :2].min() > 0 and labels.keypoints[:, :2].max() < 224
        by_hand.setdefault(int(dataset.image_path(index).stem) % 32560, []).append(item.keypoints_2d)
    assert sorted(by_hand) == [355, 17620]
    for items in by_hand.values():
        assert len(items) == 4 and all(torch.equal(items[0], each) for each in items)
