"""Which side a hand is of, as people and files write it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_RIGHT = {"left": False, "right": True, "false": False, "true": True, "0": False, "1": True}


def is_left_side(side: object) -> bool:
    """Whether a side is left, for the columns and entries of files that name it.

    Args:
        side: left or right, in any case.

    Raises:
        ValueError: anything else.
    """
    name = side.strip().lower() if isinstance(side, str) else side
    if name not in ("left", "right"):
        raise ValueError(f"side is {side!r}, expected left or right")
    return name == "left"


def are_right(values: ArrayLike) -> NDArray[np.bool_]:
    """Whether each hand is a right one; of the shape of `values`.

    Args:
        values: True, 1 or "right" for a right hand; False, 0 or "left" for a left one.

    Raises:
        ValueError: anything else; the message names the first such value.
    """
    if isinstance(values, np.ndarray) and values.dtype == bool:  # as every large table of sides has them
        return values
    given = np.asarray(values, object)
    found = np.array([_is_right(value) for value in given.reshape(-1)], bool)
    return found.reshape(given.shape)


def _is_right(value: object) -> bool:
    value = value.item() if isinstance(value, np.ndarray | np.generic) and np.size(value) == 1 else value
    if isinstance(value, str) and value.strip().lower() in _RIGHT:
        return _RIGHT[value.strip().lower()]
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    raise ValueError(f"{value!r} is no side: a hand is right (True, 1 or 'right') or left (False, 0 or 'left')")
