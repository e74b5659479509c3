"""What is written for each frame of a video: overlays, JSON, meshes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fasthamer.predict import Hands
from fasthamer.video.follow import TrackedHands

INK, EDGE = (255, 255, 255), (0, 0, 0)
DECIMALS = {"box": 2, "keypoints_2d": 2, "joints": 5, "translation": 5, "score": 4}  # pixels, metres


def overlay(
    image: NDArray[np.uint8], tracked: TrackedHands, names: Sequence[str], skeleton: bool = False
) -> NDArray[np.uint8]:
    """The frame with its hands and their numbers; of several models side by side, each with its name.

    Args:
        image: (H, W, 3) RGB; not changed.
        names: of the models.
        skeleton: bones instead of meshes.

    Returns:
        (H, models * W, 3).
    """
    panels = []
    for name, hands in zip(names, tracked.hands, strict=True):
        panel = hands.draw(image, skeleton=skeleton)
        for number, box in zip(tracked.ids.tolist(), hands.boxes, strict=True):
            _write(panel, str(number), box[:2])
        if len(names) > 1:
            _write(panel, name, (0.02 * image.shape[1], 0.06 * image.shape[0]))
        panels.append(panel)
    return np.concatenate(panels, axis=1)


def _write(image: NDArray[np.uint8], text: str, place: Sequence[float] | NDArray) -> None:
    """Puts text into an image, its lower left corner at `place`, moved inside."""
    size = max(image.shape[:2]) / 1000
    height = 22 * size + 3
    x = int(np.clip(place[0], 0, max(0.0, image.shape[1] - height)))
    y = int(np.clip(place[1], height, image.shape[0] - 1))
    for colour, width in ((EDGE, 3), (INK, 1)):
        thickness = max(1, round(width * 1.5 * size)) + width // 2
        cv2.putText(image, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, colour, thickness, cv2.LINE_AA)


class FrameWriter:
    """Writes one JSON object frame by frame: a line for each frame.

    Args:
        file: open for text.
        about: the keys before `frames`.
    """

    def __init__(self, file: IO[str], about: dict[str, Any]) -> None:
        self._file = file
        self._file.write(json.dumps(about)[:-1] + ', "frames": [')
        self._separator = "\n"

    def write(self, frame: int, time: float, ids: NDArray[np.int64], hands: Hands) -> None:
        """Adds a frame; `time` in seconds."""
        row = {"frame": frame, "time": round(time, 6), "hands": frame_rows(ids, hands)}
        self._file.write(self._separator + json.dumps(row, allow_nan=False))
        self._separator = ",\n"

    def close(self, **rest: Any) -> None:
        """Ends the object with further keys."""
        self._file.write("\n]" + "".join(f", {json.dumps(key)}: {json.dumps(value)}" for key, value in rest.items()))
        self._file.write("}\n")


def frame_rows(ids: NDArray[np.int64], hands: Hands) -> list[dict[str, Any]]:
    """One object for each hand: pixels of the image, metres; joints in the hand frame, OpenPose order."""
    rows = []
    for number, hand in zip(ids.tolist(), hands, strict=True):
        values = {name: np.round(getattr(hand, name), digits).tolist() for name, digits in DECIMALS.items()}
        rows.append({"id": number, "side": hand.side, **values})
    return rows


def save_meshes(folder: Path, frame: int, ids: NDArray[np.int64], hands: Hands, suffix: str) -> None:
    """Writes `FRAME_ID.SUFFIX` for each hand, see `HandResult.save`."""
    for number, hand in zip(ids.tolist(), hands, strict=True):
        hand.save(folder / f"{frame:06d}_{number}{suffix}")
