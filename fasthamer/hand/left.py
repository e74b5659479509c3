"""Left hands: every left hand is processed as its mirror image, a right hand.

MANO_LEFT as released is not the mirror image of MANO_RIGHT: template, pose directions and components are, but the
x part of its shape directions has the right hand's sign (vchoutas/smplx issue 48), so the same betas give another
hand. Labels made with it, such as DexYCB's, are reproduced only with it as `released`; fitting left and right hands
with one set of betas needs it `mirrored`, that is with the sign corrected.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np

from fasthamer.hand.mano import Hand
from fasthamer.hand.mano_files import read_hand_arrays
from fasthamer.registry import unknown

LEFT_SHAPES = ("released", "mirrored")  # the sign of MANO_LEFT's shape directions
_FLIP = np.array([-1.0, 1.0, 1.0])


def mirror_arrays(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of the mirror image (about x = 0) of a hand; applied twice, those of the hand itself.

    Posed with `crop.mirror_axis_angle` of some rotations it gives `crop.mirror_points` of what the hand gives.
    """
    mirrored = {key: value.copy() for key, value in arrays.items()}
    for key in ("v_template", "shapedirs", "posedirs"):
        mirrored[key][:, 0] *= -1
    mirrored["posedirs"] *= np.tile(np.outer(_FLIP, _FLIP).ravel(), 15)  # MRM for each of 15 rotation matrices
    mirrored["f"] = arrays["f"][:, ::-1].copy()
    mirrored["hands_mean"] = (arrays["hands_mean"].reshape(15, 3) * -_FLIP).ravel()
    mirrored["hands_components"] = (arrays["hands_components"].reshape(-1, 15, 3) * -_FLIP).reshape(-1, 45)
    return mirrored


def left_hand(right: Hand, path: str | Path = "", shape: str = "released") -> Hand:
    """The mirror image of MANO's left hand: a right hand, to be posed with mirrored rotations.

    Args:
        right: MANO's right hand.
        path: MANO_LEFT.pkl, or a converted one, in either convention; empty mirrors `right`.
        shape: a convention of LEFT_SHAPES.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no usable left hand, or one that does not belong to `right`.
    """
    if shape not in LEFT_SHAPES:
        raise ValueError(unknown("convention of MANO's left shape", shape, LEFT_SHAPES))
    sign = -1.0 if shape == "released" else 1.0  # of the x part, beside the right hand's
    if not path:
        hand = copy.deepcopy(right)
        hand.layer.shapedirs[:, 0] *= sign
        return hand
    arrays = mirror_arrays(read_hand_arrays(path, side="left"))
    shapes = right.layer.shapedirs[:, 0].numpy()
    # smplx's test for the released file: the summed difference of all 7,780 numbers is below 1
    signs = [each for each in (-1.0, 1.0) if np.abs(arrays["shapedirs"][:, 0] - each * shapes).sum() < 1]
    if not signs:
        raise ValueError(f"{path}: its shape directions are not those of {right.name}: both have to be MANO's files")
    arrays["shapedirs"][:, 0] *= sign * signs[0]
    return Hand(arrays, Path(path).stem)
