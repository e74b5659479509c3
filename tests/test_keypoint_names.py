"""Names of keypoints in annotation files, in every spelling in use, and the order of OpenPose."""

import pytest

from fasthamer.data.keypoint_names import openpose_order

FINGERS = ("thumb", "index", "middle", "ring", "little")
MMPOSE = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
MEDIAPIPE = ("index_finger", "middle_finger", "ring_finger", "pinky")
SIDE_PREFIXES = ("left_", "right_", "l_", "R_", "LeftHand", "rh_")
TIPS_FIRST = [joint for base in range(1, 21, 4) for joint in range(base + 3, base - 1, -1)]


def each(fingers, *parts):
    return [f"{finger}{part}" for finger in fingers for part in parts]


IN_ORDER = {
    "mmpose": ["wrist", *each(MMPOSE, 1, 2, 3, 4)],
    "from 0": ["palm", *each(FINGERS, "_0", "_1", "_2", "_3")],
    "with zeros": ["root", *each(FINGERS, "01", "02", "03", "04")],
    "mediapipe": [
        "WRIST",
        *each(["THUMB"], "_CMC", "_MCP", "_IP", "_TIP"),
        *each(MEDIAPIPE, "_MCP", "_PIP", "_DIP", "_TIP"),
    ],
    "thumb as the others": [
        "hand_root",
        *each(("thumb", "pointer", "mid", "ring", "pinkie"), " MCP", " PIP", " DIP", " TIP"),
    ],
    "camel case": ["Wrist", *each(("Thumb", "Index", "Middle", "Ring", "Pinky"), "Mcp", "Pip", "Dip", "Tip")],
    "part first": ["wrist", *(f"{part}-{finger}" for finger in FINGERS for part in ("mcp", "pip", "dip", "tip"))],
    "three and the tip": ["wrist", *each(FINGERS, 1, 2, 3, "_tip")],
    "bones": [
        *("wrist", "thumb_metacarpal", "thumb_proximal", "thumb_distal", "thumb_tip"),
        *each(FINGERS[1:], "_proximal", "_intermediate", "_distal", "_tip"),
    ],
    "letters": ["W", *each("TIMRP", "MCP", "PIP", "DIP", "TIP")],
}
for prefix in SIDE_PREFIXES:
    IN_ORDER[prefix] = [prefix + name for name in IN_ORDER["mmpose"]]
    IN_ORDER[prefix + " mediapipe"] = [prefix + name for name in IN_ORDER["mediapipe"]]
IN_ORDER["side last"] = [f"{name}_right" for name in IN_ORDER["mmpose"]]


@pytest.mark.parametrize("names", IN_ORDER.values(), ids=IN_ORDER)
def test_each_spelling_is_understood_in_any_order(names):
    assert openpose_order(names) == list(range(21))
    assert openpose_order([names[0], *(names[joint] for joint in TIPS_FIRST)]) == [0, *TIPS_FIRST]
    backwards = openpose_order(names[::-1])
    assert [names[::-1][position] for position in backwards] == names


def test_known_lists_of_other_orders():
    rhd = ["wrist", *each(MMPOSE, 4, 3, 2, 1)]  # mmpose's RHD
    assert openpose_order(rhd) == [0, 4, 3, 2, 1, 8, 7, 6, 5, 12, 11, 10, 9, 16, 15, 14, 13, 20, 19, 18, 17]
    interhand = [*each([f"right_{finger}" for finger in MMPOSE], 4, 3, 2, 1), "right_wrist"]
    assert openpose_order(interhand) == [20, 3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12, 19, 18, 17, 16]
    hands_2017 = ["Wrist", *each("TIMRP", "MCP"), *each("TIMRP", "PIP", "DIP", "TIP")]
    assert openpose_order(hands_2017) == [0, 1, 6, 7, 8, 2, 9, 10, 11, 3, 12, 13, 14, 4, 15, 16, 17, 5, 18, 19, 20]
    bodies = [f"right_{finger}" for finger in ("index", "middle", "pinky", "ring", "thumb")]
    smplx = ["right_wrist", *each(bodies, 1, 2, 3), *(bodies[n] for n in (4, 0, 1, 3, 2))]
    assert openpose_order(smplx) == [0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20]


@pytest.mark.parametrize("names", [list(map(str, range(21))), list(range(21)), [f"kp{n}" for n in range(1, 22)]])
def test_names_that_merely_count_tell_no_order(names):
    assert openpose_order(names) is None


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["wrist", "thumb1"], r"its keypoints are 2 \(wrist, thumb1\), expected one hand's 21"),
        (["nose", *each(MMPOSE, 1, 2, 3, 4)], "its keypoint 'nose' is not understood; its keypoints are nose, thumb1"),
        (
            ["wrist", *each(MMPOSE, 1, 2, 3, 5)],
            r"keypoints of the thumb \(thumb1, thumb2, thumb3, thumb5\) are not four",
        ),
        (["wrist", "wrist", *each(MMPOSE, 1, 2, 3, 4)[1:]], "2 of its keypoints are the wrist"),
        (["wrist", "thumb1", "thumb1", *each(MMPOSE, 1, 2, 3, 4)[2:]], "'thumb1' is listed twice"),
        (["palm_center", *each(MMPOSE, 1, 2, 3, 4)], "'palm_center' is not understood"),
        ([f"a{n}" for n in range(20)] + ["b20"], "'a0' is not understood"),
    ],
)
def test_what_cannot_be_mapped_is_refused_with_the_names(names, message):
    with pytest.raises(ValueError, match=message):
        openpose_order(names)
