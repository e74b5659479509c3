"""What TokenHand's ablations compare, what the paper found, and what we compare beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fasthamer.config import differing, load_config
from fasthamer.registry import unknown

DEFAULT = "default"


class Point(NamedTuple):
    """One setting: a tokenizer, and a student that predicts its tokens."""

    name: str
    tokenizer: str  # a recipe of configs/tokenizer
    generator: str  # of the student, see `fasthamer.students.tokenhand.token_classifier.GENERATORS`


class Group(NamedTuple):
    """Points that differ in one thing."""

    title: str
    points: tuple[str, ...]
    finding: str = ""  # what the paper says of the whole group


GROUPS = (
    Group("layers 1, 2, 4", ("layers_1", "layers_2", DEFAULT)),
    Group("token counts", ("tokens_not_doubling", DEFAULT)),
    Group("blocks a layer", (DEFAULT, "blocks_2", "blocks_3"), "one to three blocks: no gain"),
    Group(
        "codebook 384, 512, 640",
        ("codes_384", DEFAULT, "codes_640"),
        "nearly equal, 4.9 to 5.1 mm, which seems to be the tokenizer's own error",
    ),
    Group("token generator A, 7x7, D", ("generator_global", "generator_map", DEFAULT)),
    Group("tokens M", ("tokens_24", DEFAULT, "tokens_96"), "48 only"),
    Group("codes K", ("codes_128", "codes_384", DEFAULT, "codes_640", "codes_2048"), "384, 512 and 640 only"),
    Group("width D of a code", ("code_width_64", DEFAULT), "512 only"),
    Group("frame", (DEFAULT, "frame_camera"), "the camera's only"),
)
PAPER = {  # FreiHAND, PA-MPJPE and PA-MPVPE in mm, FastViT-MA36
    "layers_1": (6.4, 6.8),
    "layers_2": (6.1, 6.3),
    DEFAULT: (5.7, 5.9),
    "tokens_not_doubling": (5.9, 6.1),
    "generator_global": (6.2, 6.5),
    "generator_map": (6.0, 6.3),
}
_GENERATORS = {"generator_global": "global", "generator_map": "map"}


def all_points() -> list[Point]:
    """Each once, the default first: every group has it."""
    names = dict.fromkeys([DEFAULT, *(name for group in GROUPS for name in group.points)])
    return [
        Point(name, DEFAULT, _GENERATORS[name]) if name in _GENERATORS else Point(name, name, "upsampled")
        for name in names
    ]


def chosen_points(only: Sequence[str]) -> list[Point]:
    """Those named and the default, which each is compared with; all if none is named.

    Raises:
        KeyError: no such point.
    """
    points = {point.name: point for point in all_points()}
    for name in only:
        if name not in points:
            raise KeyError(unknown("ablation", name, points) + " (--list shows them)")
    return [point for name, point in points.items() if not only or name in (DEFAULT, *only)]


def changes(point: Point) -> dict[str, object]:
    """The settings in which a point is not the default, with its values."""
    different = differing(load_config(f"tokenizer/{DEFAULT}"), load_config(f"tokenizer/{point.tokenizer}"))
    return different | ({} if point.name not in _GENERATORS else {"STUDENT.GENERATOR": point.generator})


def changes_on_one_line(point: Point) -> str:
    """On one line."""
    return ", ".join(f"{key.split('.')[-1]} {value}" for key, value in changes(point).items())


def listing() -> str:
    """Every group and point with the paper's figures."""
    points = {point.name: point for point in all_points()}
    lines = []
    for group in GROUPS:
        lines.append(group.title + (f" (the paper: {group.finding})" if group.finding else ""))
        for name in group.points:
            paper = "the paper {} / {} mm".format(*PAPER[name]) if name in PAPER else ""
            lines.append(f"  {name:20s} {changes_on_one_line(points[name]):54s} {paper}".rstrip())
    return "\n".join(lines)
