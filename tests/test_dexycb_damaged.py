"""The errors for a wrong or damaged DexYCB folder."""

import numpy as np
import pytest
from miniatures_capture import SERIALS, SUBJECTS, npz_bytes, replaced

from fasthamer.data.readers.dexycb import DexYCB
from fasthamer.data.readers.dexycb_files import read_extrinsics
from fasthamer.hand.mano import Hand
from fasthamer.hand.mano_files import read_hand_arrays


@pytest.fixture(scope="module")
def right():
    """Replaces the licensed MANO file: the embedded arrays under another name."""
    return Hand(read_hand_arrays("embedded"), "MANO_RIGHT")


@pytest.fixture(scope="module")
def test_set(dexycb_root, right):
    return DexYCB(dexycb_root, "s0_test", right)


def test_a_wrong_root_or_split_says_what_is_expected(tmp_path, dexycb_root, right):
    with pytest.raises(FileNotFoundError, match=r"DATA\.ROOT.*DexYCB"):
        DexYCB(tmp_path / "nowhere", "s0_test", right)
    with pytest.raises(FileNotFoundError, match=r"needs \*-subject-03, "):
        DexYCB(tmp_path, "s0_test", right)
    with pytest.raises(ValueError, match="did you mean 's0_test'"):
        DexYCB(dexycb_root, "s0_tset", right)
    with pytest.raises(ValueError, match=r"keypoints, detector, image or one of"):
        DexYCB(dexycb_root, "s0_test", right, box="tight")


def test_a_missing_sequence_is_an_error_because_splits_refer_to_numbers(dexycb_root, right):
    last = sorted((dexycb_root / SUBJECTS[5]).iterdir())[-1]
    moved = dexycb_root / "elsewhere"
    last.rename(moved)
    try:
        with pytest.raises(ValueError, match=r"subject-06 holds 99 sequences, expected 100"):
            DexYCB(dexycb_root, "s0_test", right)
    finally:
        moved.rename(last)


META = b"num_frames: %d\nextrinsics: a\nmano_sides: [%s]\nmano_calib: [b]"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("meta.yml", None, r"meta\.yml is missing"),
        ("meta.yml", b"!!python/object/apply:os.system ['true']", r"meta\.yml: refused, .*os\.system"),
        ("meta.yml", b"serials: [", r"meta\.yml: damaged YAML"),
        ("meta.yml", b"- 1", r"meta\.yml: expected a mapping"),
        ("meta.yml", b"num_frames: 2", r"meta\.yml: not DexYCB's"),
        ("meta.yml", META % (5, b"right"), r"pose_m is 2x1x51, .* 5x1x51"),
        ("meta.yml", META % (2, b"both"), r"left or right"),
        ("pose.npz", None, r"pose\.npz is missing"),
        ("pose.npz", b"PK", r"pose\.npz: damaged archive"),
    ],
)
def test_damaged_sequence_files_are_named(dexycb_root, right, test_set, name, content, message):
    with (
        replaced(dexycb_root / test_set.frames.folders[0] / name, content),
        pytest.raises((ValueError, FileNotFoundError), match=message),
    ):
        DexYCB(dexycb_root, "s0_test", right)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("intrinsics/836212060125_640x480.yml", b"depth: {}", r"color is None"),
        ("intrinsics/836212060125_640x480.yml", b"color: {fx: a}", r"color: fx is a, expected a number"),
        (f"mano_{SUBJECTS[2]}_left/mano.yml", b"betas: [1, 2]", r"betas is \[1, 2\], expected 10"),
        (f"mano_{SUBJECTS[2]}_left/mano.yml", b"a: !!python/name:os.system ''", r"mano\.yml: refused"),
    ],
)
def test_a_damaged_calibration_is_named(dexycb_root, right, name, content, message):
    path = dexycb_root / "calibration" / name
    with replaced(path, content), pytest.raises(ValueError, match=message):
        DexYCB(dexycb_root, "s0_test", right)


def test_a_tuple_in_the_extrinsics_is_plain_data_and_an_object_is_not(dexycb_root):
    assert set(read_extrinsics(dexycb_root, "20200702_151821")) == {*SERIALS, "apriltag"}
    path = dexycb_root / "calibration" / "extrinsics_20200702_151821" / "extrinsics.yml"
    wrong = path.read_bytes().replace(b"!!python/tuple", b"!!python/object/new:tuple", 1)
    with replaced(path, wrong), pytest.raises(ValueError, match=r"extrinsics\.yml: refused, .*object/new"):
        read_extrinsics(dexycb_root, "20200702_151821")
    short = path.read_bytes().replace(b"  - 1.0\n", b"", 1)
    with replaced(path, short), pytest.raises(ValueError, match="expected 12"):
        read_extrinsics(dexycb_root, "20200702_151821")


class Evil:
    """Writes a file when it is unpickled with pickle.loads."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), "w")


def test_damaged_labels_are_named_when_their_item_is_read(test_set, tmp_path):
    path = test_set.image_path(0).with_name("labels_000001.npz")
    joints = np.load(path)["joint_3d"]
    nan = joints.copy()
    nan[0, 3] = np.nan
    cases = {
        "is missing": None,
        "damaged archive": path.read_bytes()[:200],
        "no joint_2d": npz_bytes(path, joint_2d=None),
        "joint_3d is 1x20x3, expected 1x21x3": npz_bytes(path, joint_3d=joints[:, :20]),
        "not finite": npz_bytes(path, joint_3d=nan),
        "are these millimetres": npz_bytes(path, joint_3d=joints * 1000),
        "behind the camera": npz_bytes(path, joint_3d=joints * [1, -1, -1]),
        "(?i)pickle|object arrays": npz_bytes(path, joint_3d=np.array(Evil(tmp_path / "ran"), object)),
    }
    for message, content in cases.items():
        with replaced(path, content), pytest.raises((ValueError, FileNotFoundError), match=message) as error:
            test_set[(0, 0)]
        assert "labels_000001.npz" in str(error.value)
    assert not (tmp_path / "ran").exists()
    assert test_set[(0, 0)].joints.any()


def test_an_unreadable_image_is_named(test_set):
    for content, message in ((None, "no image"), (test_set.image_path(0).read_bytes()[:700], "damaged image")):
        with (
            replaced(test_set.image_path(0), content),
            pytest.raises((ValueError, FileNotFoundError), match=rf"{message}.*color_000001|color_000001.*{message}"),
        ):
            test_set[(0, 0)]


def test_hands_of_the_wrong_side_are_detected(dexycb_root, right, test_set):
    """All right hands are labelled as left hands and the reverse."""
    metas = [
        dexycb_root / folder / "meta.yml"
        for folder in sorted({test_set.frames.folders[i] for i in test_set.frames.sequence})
    ]
    swap = {b"- right\n": b"- left\n", b"- left\n": b"- right\n"}
    changed = []
    for path in metas:
        content = path.read_bytes()
        old = next(key for key in swap if key in content)
        changed.append(content.replace(old, swap[old]))
    with (
        replaced(metas[0], changed[0]),
        replaced(metas[1], changed[1]),
        pytest.raises(ValueError, match=r"bend like the other hand: left and right are swapped"),
    ):
        DexYCB(dexycb_root, "s0_test", right)
