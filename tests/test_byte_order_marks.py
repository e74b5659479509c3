"""Text files that begin with a byte-order mark, as Windows' editors write them, are read as without it."""

import codecs
import json

import numpy as np
import pytest
from miniatures_2d import write_coco, write_folder, write_hint, write_interhand
from miniatures_capture import write_freihand

from fasthamer.data.readers.coco import CocoHands
from fasthamer.data.readers.folder import Folder
from fasthamer.data.readers.freihand import FreiHAND
from fasthamer.data.readers.hint import HInt
from fasthamer.data.readers.interhand import InterHand
from fasthamer.hand.mano import load_hand
from fasthamer.metrics.submissions import read_keypoints, read_predictions, read_result_lines, read_truth


def mark(folder):
    """Writes the mark at the start of every text file in a folder and its folders."""
    files = [path for path in folder.rglob("*") if path.suffix in (".json", ".csv", ".txt")]
    assert files
    for path in files:
        path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())


@pytest.mark.parametrize("vertices", [778, 3])  # in the official form, and in one that the JSON module reads
def test_submissions(tmp_path, vertices):
    joints, mesh = np.full((2, 21, 3), 0.25), np.full((2, vertices, 3), 0.5)
    (tmp_path / "pred.json").write_text(json.dumps([joints.tolist(), mesh.tolist()]))
    (tmp_path / "evaluation_xyz.json").write_text(json.dumps(joints.tolist()))
    (tmp_path / "keypoints.json").write_text(json.dumps(joints[..., :2].tolist()))
    (tmp_path / "results.txt").write_text(",".join(["7", *["250"] * 63]) + "\n")
    mark(tmp_path)
    assert (read_predictions(tmp_path / "pred.json").vertices is None) == (vertices == 3)
    np.testing.assert_array_equal(read_predictions(tmp_path / "pred.json").joints, joints)
    np.testing.assert_array_equal(read_truth(tmp_path).joints, joints)
    np.testing.assert_array_equal(read_keypoints(tmp_path / "keypoints.json"), joints[..., :2])
    np.testing.assert_array_equal(read_result_lines(tmp_path / "results.txt", [7]), joints[:1])


SETS = {
    "freihand": (
        lambda root: write_freihand(root, count=2),
        lambda root: FreiHAND(root, "training", load_hand("embedded")),
    ),
    "hint": (write_hint, lambda root: HInt(root, "evaluation")),
    "coco": (write_coco, lambda root: CocoHands(root, "training")),
    "interhand": (lambda root: write_interhand(root, 2), lambda root: InterHand(root, "training")),
    "csv": (write_folder, Folder),
    "json": (lambda root: write_folder(root, form="json"), Folder),
}


@pytest.mark.parametrize("name", SETS)
def test_datasets(name, tmp_path):
    write, read = SETS[name]
    write(tmp_path)
    before = read(tmp_path)[(0, 0)]
    mark(tmp_path)
    after = read(tmp_path)[(0, 0)]
    assert before.keypoints_2d.equal(after.keypoints_2d) and before.crop.equal(after.crop)
