"""The One-Euro filter (Casiez, Roussel and Vogel, CHI 2012): a low-pass filter that follows fast motion closely."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


class OneEuro:
    """Filters a set of points with one cutoff for all.

    In the paper each coordinate has its own cutoff, `cutoff + slope * speed`. Here the speed is the mean of the points,
    so the result is one weighted mean of whole sets: what is linear in them, such as joints in vertices, stays valid.

    Args:
        cutoff: Hz, at rest; lower is smoother.
        slope: Hz for each unit of speed; higher lags less.
        speed_cutoff: Hz, of the low-pass filter of the speed.
    """

    def __init__(self, cutoff: float, slope: float, speed_cutoff: float = 1.0) -> None:
        self.cutoff, self.slope, self.speed_cutoff = cutoff, slope, speed_cutoff
        self._value: NDArray[np.float64] | None = None

    def __call__(self, points: NDArray, time: float, unit: float = 1.0) -> NDArray[np.float64]:
        """The filtered points.

        Args:
            points: (N, D).
            time: seconds; a frame that is not later than the last one does not change the result.
            unit: speeds are multiplied by it, if the points are not in the unit of the slope.
        """
        value = np.asarray(points, np.float64)
        if self._value is None:
            self._value, self._velocity, self._time = value, np.zeros_like(value), time
        elif time > self._time:
            step = time - self._time
            velocity = (value - self._value) / step
            self._velocity = self._velocity + _weight(self.speed_cutoff, step) * (velocity - self._velocity)
            speed = unit * float(np.linalg.norm(self._velocity, axis=-1).mean())
            weight = _weight(self.cutoff + self.slope * speed, step)
            self._value = self._value + weight * (value - self._value)
            self._time = time
        return self._value


def _weight(cutoff: float, step: float) -> float:
    """Of the new value, in a low-pass filter with a time constant of 1 / (2 pi cutoff)."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff * step))
