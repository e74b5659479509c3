"""The models that the page offers, opened when first chosen, and how long their detector took."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fasthamer.detect.detections import Detections, HandDetector
from fasthamer.detect.detector import MediaPipeDetector
from fasthamer.predict import HandMesh
from fasthamer.students.shipped import shipped_students

MOST_HANDS = 20  # in one image; a page is not for crowds


class TimedDetector:
    """A detector that remembers how long its last image took."""

    def __init__(self, detector: HandDetector) -> None:
        self.detector = detector
        self.seconds = 0.0

    def __call__(self, image: NDArray[np.uint8]) -> Detections:
        """As any `HandDetector`."""
        began = time.perf_counter()
        found = self.detector(image)
        self.seconds = time.perf_counter() - began
        return found


class Models:
    """Opened models by name, with one detector for all.

    Args:
        files: what `HandMesh` opens beside the shipped models: run directories, students' or exported files. They are
            opened at once, so that a mistake is found before anyone waits for a page.
        device: of `HandMesh`.

    Raises:
        FileNotFoundError, ValueError, KeyError, ImportError: as `HandMesh`, for one of `files`.
    """

    def __init__(self, files: Sequence[str] = (), device: str = "auto") -> None:
        self.names = list(dict.fromkeys([*files, *shipped_students(), "embedded"]))
        self.detector = TimedDetector(MediaPipeDetector(most=MOST_HANDS))
        self._device = device
        self._opened: dict[str, HandMesh] = {}
        for name in files:
            self.open(name)

    def open(self, name: str) -> HandMesh:
        """The model of that name.

        Raises:
            KeyError: none of `names`.
        """
        if name not in self.names:
            raise KeyError(f"no model {name!r} on this page: choose {', '.join(self.names)}")
        if name not in self._opened:
            self._opened[name] = HandMesh(name, device=self._device, detector=self.detector)
        return self._opened[name]
