"""Orientation marks and boxes in folders, COCO-style sets, calibration images and other annotated sets."""

import numpy as np
import pytest
import torch
from encoded_images import BLOCKS, written
from miniatures_2d import write_coco, write_folder

from fasthamer.data.check import check
from fasthamer.data.pack import packed_hand
from fasthamer.data.readers.coco import CocoHands
from fasthamer.data.readers.folder import Folder
from fasthamer.files.images import decode_image, read_image
from fasthamer.runtime.calibration import image_crops


def listed(root, *lines):
    (root / "boxes.csv").write_text("path,x,y,width,height,side\n" + "".join(f"{line}\n" for line in lines))
    return root


def test_unlabelled_folders_are_read_as_viewers_show_them(tmp_path):
    marked = written(tmp_path / "a.jpg", BLOCKS, "JPEG", 6)
    plain = written(tmp_path / "b.png", read_image(marked), "PNG")
    dataset = Folder(listed(tmp_path, "a.jpg,10,10,30,60,right", "b.png,10,10,30,60,right"))
    one, other = dataset[(0, 0)].image, dataset[(0, 1)].image
    assert torch.equal(one, other)
    report = check(dataset, 2)
    assert not report.problems
    assert any("1 image carries an EXIF orientation" in line and "is applied" in line for line in report.facts)
    content, moved = packed_hand(dataset.raw_sample(0))  # shards are read as stored, so the mark is gone
    whole = decode_image(content, "", upright=False)
    assert whole.shape == read_image(plain).shape and np.allclose(moved.box[0], dataset.raw_sample(0).box[0])
    assert np.abs(whole.astype(int) - read_image(plain)).mean() < 5


def test_image_crops_are_upright(tmp_path):
    marked = written(tmp_path / "a" / "x.jpg", BLOCKS, "JPEG", 6)
    written(tmp_path / "b" / "x.png", read_image(marked), "PNG")
    np.testing.assert_array_equal(image_crops(tmp_path / "a", 32), image_crops(tmp_path / "b", 32))


def test_a_folders_boxes_are_compared_with_its_images(tmp_path):
    write_folder(tmp_path, 2)
    name = next(tmp_path.rglob("image 0.jpg")).relative_to(tmp_path)
    good, outside = f"{name},-20,-20,90,90,left", f"{name},330,10,60,60,right"
    dataset = Folder(listed(tmp_path, good, outside))
    assert dataset[(0, 0)].image.shape == (3, 256, 256)
    with pytest.raises(ValueError, match=r"boxes\.csv: box 2 \(.*image 0\.jpg\): .* lies outside of the 320x240 image"):
        dataset[(0, 1)]
    problems = check(dataset, 2).problems
    assert len([line for line in problems if "box 2" in line and "outside of the 320x240" in line]) == 1
    assert not [line for line in problems if "box 1" in line]
    with pytest.raises(ValueError, match=r"boxes\.csv: box 2 .*0\.5 pixels large: is it normalised"):
        Folder(listed(tmp_path, good, f"{name},0.1,0.2,0.5,0.4,right"))


@pytest.mark.parametrize("recorded", ["stored", "turned", "none"])
def test_coco_follows_the_recorded_size(tmp_path, recorded):
    import json

    truth = write_coco(tmp_path, 1)
    (name,) = truth
    image = tmp_path / "images" / name
    upright = read_image(image)
    stored = np.ascontiguousarray(np.rot90(upright, 1))  # mark 6 turns it back, clockwise
    written(image, stored, "JPEG", 6)
    path = tmp_path / "annotations" / "hands_train.json"
    content = json.loads(path.read_text())
    size = {"stored": stored.shape, "turned": upright.shape}.get(recorded)
    for record in content["images"]:
        record.pop("width"), record.pop("height")
        if size:
            record |= {"width": size[1], "height": size[0]}
    path.write_text(json.dumps(content))
    dataset = CocoHands(tmp_path, "training")
    hand = dataset.raw_sample(0)
    found = read_image(hand.path, hand.upright)
    assert found.shape == (stored if recorded == "stored" else upright).shape
    report = check(dataset, 1)
    assert any("EXIF orientation" in line for line in (report.problems if recorded == "none" else report.facts))


def test_other_annotated_sets_are_read_as_stored_and_marks_are_reported(tmp_path):
    from miniatures_2d import write_hint

    from fasthamer.data.readers.hint import HInt

    write_hint(tmp_path, 1)
    dataset = HInt(tmp_path, "TEST_newdays_img")
    before = dataset[(0, 0)]
    image = dataset.image_path(0)
    assert not [line for line in check(dataset, 1).problems if "EXIF" in line]
    pixels = read_image(image)
    written(image, pixels, "JPEG", 6)
    after = HInt(tmp_path, "TEST_newdays_img")[(0, 0)]
    assert torch.equal(before.keypoints_2d, after.keypoints_2d)
    assert (before.image.float() - after.image.float()).abs().mean() < 3
    (problem,) = [line for line in check(dataset, 1).problems if "EXIF" in line]
    assert "orientation 6" in problem and "is not applied" in problem and "exiftool" in problem
