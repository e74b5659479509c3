"""HO-3D's layout, versions 2 and 3: axes, joint order, pickles; and the errors for wrong or damaged files."""

import json
import pickle

import numpy as np
import pytest
import torch
from miniatures_capture import (
    HO3D_K,
    HO3D_TIPS,
    OPENGL,
    mano,
    posed,
    project,
    replaced,
    write_ho3d,
    write_python2_pickle,
)
from outlines import off_the_hand, outline_error

from fasthamer.config import load_config
from fasthamer.data.augment import Strength
from fasthamer.data.build import build_dataset
from fasthamer.data.crop import box_side
from fasthamer.data.readers.boxes import Boxes
from fasthamer.data.readers.ho3d import HO3D
from fasthamer.files.images import read_image
from fasthamer.hand.mano import Hand, load_hand
from fasthamer.hand.mano_files import read_hand_arrays
from fasthamer.types import ManoParams


@pytest.fixture(scope="module")
def arrays():
    return read_hand_arrays("embedded")


@pytest.fixture(scope="module")
def hand(arrays):
    """Replaces the licensed MANO file: the embedded arrays under another name."""
    return Hand(arrays, "MANO_RIGHT")


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    return {version: write_ho3d(tmp_path_factory.mktemp(version), version) for version in ("v2", "v3")}


@pytest.fixture
def root(roots):
    return roots["v2"]


def meta_path(root, index, split="train"):
    return root / split / ("ABF10" if split == "train" else "SM1") / "meta" / f"{index:04d}.pkl"


def meta_bytes(path, tmp_path, **changes):
    """A changed copy of an annotation, pickled like the official ones."""
    content = pickle.loads(path.read_bytes(), encoding="latin1") | changes
    write_python2_pickle(tmp_path / "meta.pkl", content)
    return (tmp_path / "meta.pkl").read_bytes()


@pytest.mark.parametrize("version", ["v2", "v3"])
@pytest.mark.parametrize("split", ["training", "evaluation"])
def test_projected_labels_lie_on_the_rendered_hand(roots, arrays, hand, version, split):
    dataset = HO3D(roots[version], split, hand)
    assert len(dataset) == (3 if split == "training" else 2)
    for index in range(0, len(dataset), 2 if split == "training" else 1):
        labels, image = dataset.labels(index), read_image(dataset.image_path(index))
        assert dataset.image_path(index).suffix == (".png" if version == "v2" else ".jpg")
        assert outline_error(labels.vertices, arrays["f"], dataset.camera(index), image) <= 1
        assert off_the_hand(labels.keypoints[:, :2], image).max() < 1.5
        item = dataset[(0, index)]
        crop = item.image.numpy().transpose(1, 2, 0)
        assert off_the_hand((item.keypoints_2d[:, :2].numpy() + 0.5) * 256, crop).max() < 2.5


def test_joints_are_in_openpose_order_and_the_camera_looks_along_z(root, arrays, hand):
    meta = pickle.loads(meta_path(root, 0).read_bytes(), encoding="latin1")
    vertices, joints = posed(mano(arrays), meta["handPose"], meta["handBeta"], meta["handTrans"])
    labels = HO3D(root, "training", hand).labels(0)
    np.testing.assert_allclose(labels.vertices, vertices @ OPENGL, atol=1e-6)
    assert (labels.joints[:, 2] > 0).all()
    thumb, index_finger = [13, 14, 15], [1, 2, 3]  # in MANO's order
    np.testing.assert_allclose(labels.joints[1:4, :3], joints[thumb] @ OPENGL, atol=1e-9)
    np.testing.assert_allclose(labels.joints[5:8, :3], joints[index_finger] @ OPENGL, atol=1e-9)
    np.testing.assert_allclose(labels.joints[[4, 8, 12, 16, 20], :3], vertices[HO3D_TIPS] @ OPENGL, atol=1e-9)


@pytest.mark.parametrize("strength", [None, Strength()])
def test_parameters_give_the_labelled_mesh(root, hand, strength):
    item = HO3D(root, "training", hand, strength=strength)[(1, 2)]
    assert item.has_pose == item.has_betas == item.has_vertices == 1
    vertices, joints = hand(ManoParams(item.global_orient[None], item.hand_pose[None], item.betas[None]))
    torch.testing.assert_close(vertices[0] - joints[0, 0], item.vertices - item.joints[0, :3], atol=3e-6, rtol=0)


def test_a_frame_without_annotation_is_an_image_without_labels(root, hand):
    item = HO3D(root, "training", hand)[(0, 1)]
    assert item.joints.abs().sum() == item.keypoints_2d.abs().sum() == item.has_pose == item.has_betas == 0
    assert item.image.any()


def test_a_frame_without_object_pose_counts_as_not_annotated(root, hand, tmp_path):
    path = meta_path(root, 0)
    with replaced(path, meta_bytes(path, tmp_path, objRot=None)):
        assert HO3D(root, "training", hand)[(0, 0)].joints.abs().sum() == 0


def test_without_the_released_labels_evaluation_has_the_wrist_and_the_box(tmp_path, hand):
    root = write_ho3d(tmp_path, truth=False)
    dataset = HO3D(root, "evaluation", hand)
    labels = dataset.labels(1)
    meta = pickle.loads(meta_path(root, 1, "evaluation").read_bytes(), encoding="latin1")
    np.testing.assert_allclose(labels.joints[0], [*(meta["handJoints3D"] @ OPENGL), 1])
    expected = project(meta["handJoints3D"][None] @ OPENGL, HO3D_K)[0]
    np.testing.assert_allclose(labels.keypoints[0], [*expected, 1])
    assert labels.joints[1:].any() == labels.keypoints[1:].any() == False  # noqa: E712
    assert labels.vertices is None and labels.pose is None
    left, top, right, bottom = meta["handBoundingBox"]
    centre, side, _ = dataset.raw_sample(1).box
    np.testing.assert_allclose(centre, [(left + right) / 2, (top + bottom) / 2])
    assert side == box_side(2 * np.array([right - left, bottom - top]))


def test_samples_are_in_the_order_of_the_lists(root, hand):
    dataset = HO3D(root, "evaluation", hand)
    assert [dataset.sample_name(i) for i in range(2)] == ["SM1/0000", "SM1/0001"]
    assert dataset.info.protocol == dataset.info.tips == "ho3d"
    with replaced(root / "evaluation.txt", b"SM1/0001\nSM1/0000\n"):
        turned = HO3D(root, "evaluation", load_hand("embedded"))
    assert turned.image_path(0) == dataset.image_path(1)


def test_it_is_built_by_name_from_a_config(root, hand):
    config = load_config(None, ["DATA.NAME", "ho3d", "DATA.ROOT", str(root)])
    train, test = (build_dataset(config, hand, train=train) for train in (True, False))
    assert (len(train), len(test)) == (3, 2)
    assert train[(0, 0)].has_vertices == 0 and test[(0, 0)].has_vertices == 1
    assert build_dataset(config, load_hand("embedded"), train=False)[(0, 0)].has_vertices == 0


def test_hamers_boxes_are_used_if_given(root, hand, tmp_path):
    path = tmp_path / "ho3d_val.npz"
    names = np.array(["SM1/rgb/0001.png", "SM1/rgb/0000.png"])
    np.savez(path, imgname=names, center=[[300.0, 200], [310, 210]], scale=[[90.0, 100], [120, 100]])
    centre, side, _ = HO3D(root, "evaluation", hand, box=str(path)).raw_sample(0).box
    assert centre.tolist() == [310, 210] and side == pytest.approx(120 * 256 / 192)
    with pytest.raises(ValueError, match="has no box for ABF10"):
        HO3D(root, "training", hand, box=str(path)).raw_sample(0)


def test_hamers_real_boxes_cover_the_whole_evaluation_set(shared_data):
    boxes = Boxes(str(shared_data("hint") / "ho3d_val.npz"))
    sequences = {"SB11": 1687, "SB13": 1687, "SM1": 890} | {f"AP{i}": 766 for i in range(10, 15)}
    sequences |= {f"MPM{i}": 686 for i in range(10, 15)}
    names = list(boxes.rows)
    assert {s: sum(name.startswith(f"{s}/") for name in names) for s in sequences} == sequences
    assert len(names) == 11524 and names[0] == "SM1/rgb/0000.png"
    sides = np.array([boxes(None, name, None)[1] for name in names])
    assert sides.min() > 40 and sides.max() < 1000
    whole = Boxes(str(shared_data("hint") / "freihand_val.npz"))
    assert whole(None, "00001234.jpg", None)[1] == pytest.approx(224 * 256 / 192)  # the same as DATA.BOX image


def test_errors_for_wrong_roots_lists_and_splits_say_what_is_expected(root, hand, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train\.txt is missing: DATA\.ROOT"):
        HO3D(tmp_path, "training", hand)
    with pytest.raises(ValueError, match="no HO-3D split named 'test'"):
        HO3D(root, "test", hand)
    for content in (b"", b"ABF10\n", b"../../secret/0000\n", b"/0000\n"):
        with (
            replaced(root / "train.txt", content),
            pytest.raises(ValueError, match=r"train\.txt: .*such as ABF10/0000"),
        ):
            HO3D(root, "training", hand)
    with replaced(root / "train.txt", b"ABF10/0007\n"), pytest.raises(FileNotFoundError, match=r"0007\.png .*\.jpg"):
        HO3D(root, "training", hand)


def test_released_labels_of_another_length_are_refused(root, hand):
    path = root / "evaluation_xyz.json"
    one = json.dumps(json.loads(path.read_text())[:1]).encode()
    with replaced(path, one), pytest.raises(ValueError, match=r"evaluation_xyz\.json has 1 records.* 2 lines"):
        HO3D(root, "evaluation", hand)
    with replaced(path, one[:-20]), pytest.raises(ValueError, match="cut short"):
        HO3D(root, "evaluation", hand)


class Evil:
    """Writes a file when it is unpickled with pickle.loads."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), "w")


def test_damaged_annotations_are_named_when_their_item_is_read(root, hand, tmp_path):
    path, dataset = meta_path(root, 0), HO3D(root, "training", hand)
    meta = pickle.loads(path.read_bytes(), encoding="latin1")
    joints = meta["handJoints3D"]
    nan = joints.copy()
    nan[4, 1] = np.nan
    cases = {
        "is missing": None,
        "not a readable pickle": path.read_bytes()[:300],
        "refused": pickle.dumps(meta | {"handPose": Evil(tmp_path / "ran")}, protocol=2),
        "not an annotation": pickle.dumps([1, 2]),
        "handPose is missing": pickle.dumps({k: v for k, v in meta.items() if k != "handPose"}, protocol=2),
        r"handJoints3D has shape \(20, 3\)": meta_bytes(path, tmp_path, handJoints3D=joints[:20]),
        "handBeta is 'many'": meta_bytes(path, tmp_path, handBeta="many"),
        "not finite": meta_bytes(path, tmp_path, handJoints3D=nan),
        "are these millimetres": meta_bytes(path, tmp_path, handJoints3D=joints * 1000),
        "axes those of OpenGL": meta_bytes(path, tmp_path, handJoints3D=joints @ OPENGL),
    }
    for message, content in cases.items():
        with replaced(path, content), pytest.raises((ValueError, FileNotFoundError), match=message) as error:
            dataset[(0, 0)]
        assert "0000.pkl" in str(error.value)
    assert not (tmp_path / "ran").exists()
    assert dataset[(0, 0)].joints.any()


def test_an_unreadable_image_is_named(root, hand):
    dataset = HO3D(root, "training", hand)
    for content in (None, dataset.image_path(2).read_bytes()[:900]):
        with (
            replaced(dataset.image_path(2), content),
            pytest.raises((ValueError, FileNotFoundError), match=r"0002\.png"),
        ):
            dataset[(0, 2)]


def test_mirrored_hands_are_detected(root, hand, tmp_path):
    path = meta_path(root, 0)
    joints = pickle.loads(path.read_bytes(), encoding="latin1")["handJoints3D"] * [-1, 1, 1]
    with (
        replaced(root / "train.txt", b"ABF10/0000\n" * 12),  # one hand is not enough for the check, twelve are
        replaced(path, meta_bytes(path, tmp_path, handJoints3D=joints)),
        pytest.raises(ValueError, match="bend like the other hand"),
    ):
        HO3D(root, "training", hand)
