"""The readers of datasets, lists and predictions."""

from __future__ import annotations

import json
import shutil
import tempfile
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
from fuzzing.sandbox import Target
from miniatures_2d import write_coco, write_folder, write_hamer_list, write_hint, write_interhand, write_labelled
from miniatures_capture import write_freihand, write_ho3d
from miniatures_tars import write_shards

from fasthamer.data.poses import poses_of_file
from fasthamer.data.readers import dexycb_files
from fasthamer.data.readers.boxes import Boxes
from fasthamer.data.readers.coco import CocoHands
from fasthamer.data.readers.folder import Folder
from fasthamer.data.readers.freihand import FreiHAND
from fasthamer.data.readers.hint import HInt
from fasthamer.data.readers.ho3d import HO3D
from fasthamer.data.readers.interhand import InterHand
from fasthamer.data.readers.labelled import Labelled
from fasthamer.data.readers.tars import TarDataset
from fasthamer.files.index import cached
from fasthamer.files.json_records import JsonRecords
from fasthamer.hand.mano import Hand, load_hand
from fasthamer.hand.mano_files import read_hand_arrays
from fasthamer.metrics import submissions
from fasthamer.metrics.scores import Hands

ITEMS = 3  # of a dataset, read whole


@cache
def embedded() -> Hand:
    return load_hand("embedded")


@cache
def licensed() -> Hand:
    """Stands in for MANO, so that labels of parameters and meshes are read too."""
    return Hand(read_hand_arrays("embedded"), "MANO_RIGHT")


def _items(dataset) -> None:
    for index in range(min(len(dataset), ITEMS)):
        dataset[(0, index)]


def _write_freihand(folder: Path) -> None:
    write_freihand(folder, count=2, evaluation=1)
    for part in ("K", "xyz", "verts", "mano"):  # the meshes are rounded: fewer bytes to read
        path = folder / f"training_{part}.json"
        path.write_text(json.dumps(np.round(json.loads(path.read_text()), 3).tolist()))


def _write_hint(folder: Path) -> None:
    write_hint(folder, 2)
    write_hamer_list(folder)


def _write_shards(folder: Path) -> None:
    write_shards(folder, shards=1, samples=3)
    about = {"complete": True, "hand": "embedded", "settings": {}, "shards": {}}
    (folder / "pack.json").write_text(json.dumps(about))


def _read_shards(folder: Path, path: Path) -> None:
    skipped: list[str] = []
    dataset = TarDataset(folder, licensed(), 64)
    for _ in islice(dataset.walk(0, 1, None, skipped), ITEMS):
        pass
    if loud := next((line for line in skipped if str(folder) not in line or len(line.splitlines()) > 1), None):
        raise AssertionError(f"a line of skipped samples that names no file, or is more than one: {loud!r}")


@cache
def _dexycb() -> dict[str, bytes]:
    """DexYCB's calibration and one sequence, as the miniature writes them."""
    from miniatures_capture import write_dexycb

    with tempfile.TemporaryDirectory() as name:
        root = write_dexycb(Path(name) / "dexycb", images=False)
        first = next(root.glob("*-subject-01"))
        paths = [*sorted(first.iterdir())[0].iterdir(), *(root / "calibration").rglob("*.yml")]
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def _write_dexycb(folder: Path) -> None:
    for name, content in _dexycb().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _read_dexycb(folder: Path, path: Path) -> None:
    if path.name in ("meta.yml", "pose.npz"):
        dexycb_files._sequence(path.parent)
    elif path.name == "mano.yml":
        dexycb_files.read_betas(folder, path.parent.name.removeprefix("mano_"))
    elif path.name == "extrinsics.yml":
        dexycb_files.read_extrinsics(folder, path.parent.name.removeprefix("extrinsics_"))
    else:
        dexycb_files.read_intrinsics(folder, path.name.removesuffix("_640x480.yml"))


def _read_ho3d(folder: Path, path: Path) -> None:
    split = "evaluation" if "evaluation" in str(path.relative_to(folder)) else "training"
    _items(HO3D(folder, split, licensed(), 64))


def _write_npz_lists(folder: Path) -> None:
    write_hint(folder, 2, names=("TEST_newdays_img",))
    write_hamer_list(folder)
    np.savez(folder / "boxes.npz", imgname=np.array(["a.png"]), center=np.ones((1, 2)), scale=np.ones((1, 2)))
    np.savez_compressed(folder / "poses.npz", hand_pose=np.zeros((3, 45)), betas=np.zeros((3, 10)))


def _read_npz_list(folder: Path, path: Path) -> None:
    if path.name == "boxes.npz":
        Boxes(str(path))
    elif path.name == "poses.npz":
        poses_of_file(path)
    else:
        submissions.read_annotated(folder / "TEST_newdays_img_all.npz")
        _items(HInt(folder, path.name, 64))


def _write_predictions(folder: Path) -> None:
    joints, vertices = np.random.default_rng(0).normal(0, 0.1, (2, 778, 3)), np.zeros((2, 778, 3))
    submissions.write_predictions(folder / "pred.json", Hands(joints[:, :21], vertices))
    submissions.write_result_lines(folder / "results.txt", [3, 5], joints[:, :21])
    submissions.write_keypoints(folder / "keypoints.json", joints[:, :21, :2])
    shutil.copy(folder / "keypoints.json", folder / "list.json")
    for name, part in (("xyz", joints[:, :21]), ("verts", vertices)):
        (folder / f"evaluation_{name}.json").write_text(json.dumps(np.round(part, 3).tolist()))


def _read_predictions(folder: Path, path: Path) -> None:
    if path.name == "pred.json":
        submissions.read_predictions(path, 2)
    elif path.name == "results.txt":
        submissions.read_result_lines(path, [3, 5])
    elif path.name == "keypoints.json":
        submissions.read_keypoints(path, 2)
    elif path.name == "list.json":
        records = JsonRecords(path, (21, 2), large=0, block=300, gap=64, cache="none")
        for number in range(len(records)):
            records[number]
    else:
        submissions.read_truth(folder)


def _indexed(folder: Path, index: str) -> dict[str, np.ndarray]:
    made = {"rows": np.arange(20), "names": np.array([b"a", b"bc"])}
    return cached("example", [folder / "source.txt"], lambda: made, str(folder / index))


def _write_index(folder: Path) -> None:
    (folder / "source.txt").write_text("x")
    _indexed(folder, "index")


def _read_index(folder: Path, path: Path) -> None:
    """A copy, since a damaged index is made anew."""
    (folder / "copy").mkdir(exist_ok=True)
    shutil.copy(path, folder / "copy")
    _indexed(folder, "copy")


TARGETS = (
    Target("freihand", _write_freihand, lambda f, p: _items(FreiHAND(f, "training", licensed(), 64)), ("*.json",)),
    Target("ho3d", write_ho3d, _read_ho3d, ("*.txt", "*.json", "*/*/meta/*")),
    Target("dexycb", _write_dexycb, _read_dexycb),
    Target("interhand", write_interhand, lambda f, p: _items(InterHand(f, "train", 64)), ("annotations/*/*",)),
    Target("coco", write_coco, lambda f, p: _items(CocoHands(f, "train", 64)), ("annotations/*",)),
    Target("hint", _write_hint, lambda f, p: _items(HInt(f, "evaluation", 64)), ("*/*.json",)),
    Target("lists_npz", _write_npz_lists, _read_npz_list, ("*.npz",)),
    Target("folder_csv", write_folder, lambda f, p: _items(Folder(f, image_size=64)), ("boxes.*",)),
    Target(
        "folder_json",
        lambda f: write_folder(f, form="json"),
        lambda f, p: _items(Folder(f, image_size=64)),
        ("boxes.*",),
    ),
    Target(
        "labelled", write_labelled, lambda f, p: _items(Labelled(f, "training", embedded(), 64)), ("*.json", "*.npz")
    ),
    Target("index", _write_index, _read_index, ("index/*",)),
    Target("shards", _write_shards, _read_shards, needs=("webdataset",)),
    Target("predictions", _write_predictions, _read_predictions),
)
