"""A hand's 21 keypoints by name, as annotation files spell them, in OpenPose order."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fasthamer.types import N_JOINTS

_FINGERS = (  # thumb to little finger, the spellings in use; the letters are those of HANDS 2017 (TMCP, IPIP, ...)
    ("thumb", "t"),
    ("index", "forefinger", "fore", "pointer", "i"),
    ("middle", "mid", "m"),
    ("ring", "r"),
    ("little", "pinky", "pinkie", "small", "p", "l"),
)
_WRIST = "wrist|root|palm|carpus|w"
_PARTS = "metacarpal|proximal|intermediate|medial|distal|cmc|tmc|mcp|pip|dip|tip|ip"
_PARTS_OF_THUMB = (
    ("cmc", "mcp", "ip", "tip"),
    ("tmc", "mcp", "ip", "tip"),
    ("cmc", "mcp", "pip", "tip"),
    ("cmc", "mcp", "dip", "tip"),
    ("mcp", "pip", "dip", "tip"),
    ("metacarpal", "proximal", "distal", "tip"),  # the joint at the bone's near end, as in OpenXR
)
_PARTS_OF_FINGER = (
    ("mcp", "pip", "dip", "tip"),
    ("proximal", "intermediate", "distal", "tip"),
    ("proximal", "medial", "distal", "tip"),
)
_NUMBERED = (  # from base to tip; in SMPL-X's names the tip bears the finger's name alone
    ("1", "2", "3", "4"),
    ("0", "1", "2", "3"),
    ("1", "2", "3", "tip"),
    ("0", "1", "2", "tip"),
    ("1", "2", "3", ""),
)
_SIDE = "(?:left|right|lh|rh|l|r)?"
_FINGER = "|".join(sorted((name for names in _FINGERS for name in names), key=len, reverse=True))
_FORMS = [  # the first without a side: RTIP is the ring finger's tip
    re.compile(rf"(?P<finger>{_FINGER})(?:finger)?(?P<part>{_PARTS}|\d+|)"),
    re.compile(rf"{_SIDE}(?:hand)?(?P<finger>{_FINGER})(?:finger)?(?P<part>{_PARTS}|\d+|){_SIDE}"),
    re.compile(rf"{_SIDE}(?:hand)?(?P<part>{_PARTS})(?P<finger>{_FINGER})(?:finger)?{_SIDE}"),
]
_WRIST_FORM = re.compile(rf"{_SIDE}(?:hand)?(?:{_WRIST}){_SIDE}")


def openpose_order(names: Sequence[str]) -> list[int] | None:
    """Which of a file's keypoints is each of OpenPose's 21: `points[order]` is in OpenPose order.

    Names such as thumb1, thumb_tip, left_index_finger_mcp, forefinger4, MiddlePIP, pinky_dip, little_finger_3, wrist,
    hand_root or TMCP; numbers run from a finger's base to its tip and begin with 0 or 1.

    Args:
        names: of the file's keypoints, in its order.

    Returns:
        21 positions; None where the names merely count (0, 1, 2 ..., or kp1, kp2 ...) and so tell no order.

    Raises:
        ValueError: the names are not those of one hand's 21 keypoints, or not understood; the message lists them.
    """
    if _merely_count(names):
        return None
    listed = ", ".join(map(str, names))
    if len(names) != N_JOINTS:
        raise ValueError(f"its keypoints are {len(names)} ({listed}), expected one hand's {N_JOINTS}")
    places: list[dict[str, int]] = [{} for _ in _FINGERS]  # of each finger, position by part
    wrists = []
    for position, name in enumerate(names):
        plain = re.sub(r"[^a-z0-9]", "", str(name).lower())
        if _WRIST_FORM.fullmatch(plain):
            wrists.append(position)
            continue
        match = next((match for form in _FORMS if (match := form.fullmatch(plain))), None)
        if match is None:
            raise ValueError(f"its keypoint {name!r} is not understood; its keypoints are {listed}")
        finger = next(number for number, spellings in enumerate(_FINGERS) if match["finger"] in spellings)
        part = match["part"].lstrip("0") or "0" if match["part"].isdigit() else match["part"]
        if part in places[finger]:
            raise ValueError(f"its keypoint {name!r} is listed twice; its keypoints are {listed}")
        places[finger][part] = position
    if len(wrists) != 1:
        raise ValueError(f"{len(wrists)} of its keypoints are the wrist; its keypoints are {listed}")
    order = wrists
    for number, place in enumerate(places):
        families = (*(_PARTS_OF_FINGER if number else _PARTS_OF_THUMB), *_NUMBERED)
        family = next((family for family in families if place.keys() == set(family)), None)
        if family is None:
            name = _FINGERS[number][0]
            raise ValueError(
                f"the keypoints of the {name} ({', '.join(str(names[each]) for each in place.values()) or 'none'}) "
                f"are not four from base to tip; its keypoints are {listed}"
            )
        order = [*order, *(place[part] for part in family)]
    return order


def _merely_count(names: Sequence[str]) -> bool:
    """Whether the names are one stem, or none, with consecutive numbers."""
    parts = [re.fullmatch(r"(.*?)(\d+)", str(name)) for name in names]
    if len(names) != N_JOINTS or not all(parts):
        return False
    first = int(parts[0][2])  # type: ignore[index]
    found = [(part[1], int(part[2])) for part in parts]  # type: ignore[index]
    return found == [(found[0][0], first + number) for number in range(len(names))]
