"""Inputs and outputs of an exported model, and the header that describes them. Needs neither torch nor a runtime."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from fasthamer import __version__
from fasthamer.files.safe_json import parse_json
from fasthamer.one_line import one_line

FORMAT = "fasthamer-export-1"
KEY = "fasthamer"  # under which an exported file holds this module's JSON
INPUT = "image"
MESH = ("vertices", "joints", "keypoints_2d", "camera")  # outputs of every model
PARAMETERS = ("camera", "global_orient", "hand_pose", "betas")  # outputs of a decoder of MANO parameters
OUTPUTS = (*MESH, *PARAMETERS[1:])
MEANING = {
    "vertices": "(B, 778, 3) metres, x right, y down, z forward, hand-centred; of a right hand",
    "joints": "(B, 21, 3) metres, same frame; OpenPose order: wrist, then thumb, index, middle, ring, pinky, each "
    "from base to tip",
    "keypoints_2d": "(B, 21, 2) crop units: the crop spans [-0.5, 0.5], its centre is (0, 0)",
    "camera": "(B, 3) weak perspective (s, tx, ty) as HaMeR: translation (tx, ty, 2 * 5000 / (256 * s)) metres",
    "global_orient": "(B, 1, 3, 3) absolute rotation of the wrist",
    "hand_pose": "(B, 15, 3, 3) rotations of the other joints relative to their parents, MANO's order",
    "betas": "(B, 10) shape",
}
LICENCE_OF_HAND = {
    True: "The mesh of this graph is fasthamer's embedded hand, MIT like fasthamer itself.",
    False: "This graph contains the arrays of a MANO-type hand model from the user's file. MANO is for "
    "non-commercial research under its own licence (mano.is.tue.mpg.de), which covers this file too.",
}
LICENCE_WITHOUT = "No hand model is inside: the outputs are parameters, which need one to become a mesh."


class Contract(NamedTuple):
    """The header of an exported model."""

    image_size: int  # S of its input crops (B, 3, S, S)
    view: tuple[float, float, float, float]  # left, top, right, bottom of the part of the crop that it uses, crop units
    outputs: tuple[str, ...]
    precision: str  # fp32, fp16, bf16 or int8
    hand: str  # fingerprint of the hand model
    hand_name: str
    faces: list[list[int]] | None  # of the mesh; None without one
    mean: tuple[float, float, float]  # of the normalisation inside the graph, values 0..1
    std: tuple[float, float, float]
    box_shape: str = "hamer"  # of the boxes that it was trained on, see `fasthamer.data.crop.BOX_SHAPES`
    weights_licence: str = ""  # terms of the network's weights, where they are known to be restricted

    def to_json(self) -> str:
        licence = LICENCE_OF_HAND[self.hand_name == "embedded"] if self.faces else LICENCE_WITHOUT
        described = {
            "format": FORMAT,
            "made_by": f"fasthamer {__version__}",
            **self._asdict(),
            "input": f"{INPUT}: (B, 3, {self.image_size}, {self.image_size}) uint8 RGB, a square crop of a right hand "
            "(mirror left ones); (image / 255 - mean) / std is inside the graph",
            "meaning": {name: MEANING[name] for name in self.outputs},
            "licence": f"{licence} {self.weights_licence}".strip(),
        }
        return json.dumps(described)

    @classmethod
    def from_json(cls, text: str | None, source: str) -> Contract:
        """The header of `source`.

        Raises:
            ValueError: there is none, or of another version.
        """
        if text is None:
            raise ValueError(f"{source}: no model that fasthamer exported (no header): make one with tools/export.py")
        header = parse_json(text, source)
        if not isinstance(header, dict) or "format" not in header:
            raise ValueError(f"{source}: a damaged fasthamer header")
        if header["format"] != FORMAT:
            found = one_line(repr(header["format"]))
            raise ValueError(f"{source}: exported by another version ({found}, not {FORMAT!r})")
        header = {**cls._field_defaults, **header}  # files of earlier versions have fewer fields
        if strange := [name for name in cls._fields if name not in header or not _KINDS[name](header[name])]:
            raise ValueError(f"{source}: a damaged fasthamer header ({', '.join(strange)})")
        return cls(*(_tupled(name, header[name]) for name in cls._fields))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_numbers(count: int) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, list) and len(value) == count and all(isinstance(each, int | float) for each in value)
    )


_KINDS: dict[str, Callable[[Any], bool]] = {  # what each field of a header has to be
    "image_size": lambda value: isinstance(value, int) and 0 < value < 1 << 16,
    "view": _are_numbers(4),
    "outputs": lambda value: isinstance(value, list) and all(map(_is_text, value)),
    "precision": _is_text,
    "hand": _is_text,
    "hand_name": _is_text,
    "faces": lambda value: value is None or (isinstance(value, list) and all(map(_are_numbers(3), value))),
    "mean": _are_numbers(3),
    "std": _are_numbers(3),
    "box_shape": _is_text,
    "weights_licence": _is_text,
}


def _tupled(name: str, value: Any) -> Any:
    return tuple(value) if isinstance(value, list) and name != "faces" else value
