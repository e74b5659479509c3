"""How the error falls with the number of crops that a student has seen: a power law, and a check of its prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import curve_fit

FEWEST = 5  # numbers of crops: four determine the three parameters, the last is predicted


class PowerLaw(NamedTuple):
    """error = floor + (scale / crops) ** exponent, in mm (Hestness et al. 2017, arXiv 1712.00409).

    Fitted to all numbers of crops but the largest, which it predicts.
    """

    floor: float  # mm, with endless training
    scale: float  # crops
    exponent: float
    predicted: float  # mm, at the largest number of crops
    measured: float  # mm, there

    def at(self, crops: NDArray[np.float64]) -> NDArray[np.float64]:
        """The error in mm after so many crops."""
        return np.asarray(_law(crops, self.floor, np.log(self.scale), self.exponent))


def power_law(crops: Sequence[float], errors: Sequence[float]) -> PowerLaw:
    """
    Args:
        crops: at least five different numbers, ascending.
        errors: mm, one for each.

    Raises:
        ValueError: too few numbers, or no such law describes the errors.
    """
    if len(crops) < FEWEST or sorted(set(crops)) != list(crops):
        raise ValueError(f"a power law takes at least {FEWEST} numbers of crops, ascending, not {list(crops)}")
    known, values = np.asarray(crops[:-1], dtype=float), np.asarray(errors[:-1], dtype=float)
    guess = (0.8 * values.min(), np.log(known[0]), 0.5)
    try:
        found, _ = curve_fit(_law, known, values, guess, bounds=([0, -50, 0.01], [values.min(), 50, 5]), max_nfev=20000)
    except RuntimeError as error:
        raise ValueError(f"no power law fits {list(errors[:-1])}: {error}") from None
    floor, scale, exponent = found
    return PowerLaw(floor, float(np.exp(scale)), exponent, float(_law(crops[-1], *found)), float(errors[-1]))


def _law(crops: float | np.ndarray, floor: float, log_scale: float, exponent: float) -> float | np.ndarray:
    return floor + np.exp(exponent * (log_scale - np.log(crops)))
