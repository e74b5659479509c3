"""From an uploaded file to everything that the page shows of it. Nothing here knows Gradio."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthamer.files.images import read_image, read_image_size
from fasthamer.predict import Hands
from fasthamer.web.models import Models

MOST_BYTES = 20 * 2**20  # of an upload
MOST_PIXELS = 25_000_000  # of an image: a small file can hold a huge one
JOINT_COLUMNS = ("hand", "joint", "u px", "v px", "x mm", "y mm", "z mm")


class PageResult(NamedTuple):
    """What the page shows of one image; without hands or without a readable image only a part of it."""

    message: str  # of the hands found, or why there are none
    overlay: NDArray[np.uint8] | None = None  # (H, W, 3) RGB
    view: Path | None = None  # .glb of `nearby`
    glb: Path | None = None  # of the hands
    json: Path | None = None  # of the hands
    joints: tuple[tuple[str | float, ...], ...] = ()  # 21 rows of JOINT_COLUMNS a hand; x, y, z from the wrist
    seconds: dict[str, float] | None = None  # by stage


def find_hands(models: Models, model: str, file: str | Path | None, folder: Path) -> PageResult:
    """Runs a model on an uploaded file, and writes its meshes and values into `folder`, over those of the last call.

    Whatever is wrong with the file becomes the message.

    Args:
        models: opened models.
        model: one of `models.names`.
        file: an image file, or None where the page has none.
        folder: for the files.

    Raises:
        KeyError: no such model.
    """
    hand_mesh = models.open(model)
    if file is None:
        return PageResult("")
    try:
        image = read_upload(Path(file))
    except FileNotFoundError:  # the page still shows an image that is no longer kept
        return PageResult("**This image is no longer here.** Upload it again.")
    except ValueError as error:
        return PageResult(f"**This file cannot be used.** {error}")
    began = time.perf_counter()
    hands = hand_mesh(image)
    predicted = time.perf_counter()
    overlay = hands.draw(image)
    seconds = {
        "detection": models.detector.seconds,
        "crop to mesh": predicted - began - models.detector.seconds,
        "overlay": time.perf_counter() - predicted,
    }
    if not len(hands):
        return PageResult("**No hand found.** Large, sharp hands are found best.", overlay, seconds=seconds)
    view, glb, json = folder / "view.glb", folder / "hands.glb", folder / "hands.json"
    nearby(hands).save(view)
    hands.save(glb)
    hands.save(json)
    sides = ", ".join(f"{hand.side} ({hand.score:.2f})" for hand in hands)
    message = f"**{len(hands)} hand{'s' if len(hands) > 1 else ''}:** {sides}"
    return PageResult(message, overlay, view, glb, json, joint_rows(hands), seconds)


def read_upload(file: Path) -> NDArray[np.uint8]:
    """An uploaded image, (H, W, 3) uint8 RGB.

    Raises:
        FileNotFoundError: it has been removed.
        ValueError: too many bytes or pixels, or not an image; the message names the file without its folder.
    """
    if file.stat().st_size > MOST_BYTES:
        raise ValueError(f"{file.name} has more than {MOST_BYTES >> 20} MB: make it smaller")
    try:
        width, height = read_image_size(file, upright=False)
        if width * height > MOST_PIXELS:
            raise ValueError(
                f"{file.name} has {width} x {height} pixels, more than {MOST_PIXELS // 10**6} million: make it smaller"
            )
        return read_image(file)
    except ValueError as error:
        raise ValueError(str(error).replace(str(file), file.name)) from None


def nearby(hands: Hands) -> Hands:
    """The hands as near to the camera and to one another as a usual camera would have them.

    HaMeR's focal length, which is used where the camera's is unknown, is about ten times a usual one; so are depths,
    and the differences between those of several hands.
    """
    if hands.camera.metric:
        return hands
    usual = 2 * max(hands.camera.cx, hands.camera.cy)  # the image's longer side: a field of view of 53 degrees
    shrink = np.array([1, 1, usual / hands.camera.fx])
    return replace(hands, translation=hands.translation * shrink)


def joint_rows(hands: Hands) -> tuple[tuple[str | float, ...], ...]:
    """`PageResult.joints`."""
    rows: list[tuple[str | float, ...]] = []
    for number, hand in enumerate(hands, 1):
        names = [name.lower().replace("_finger", "").replace("_", " ") for name in hand.to("mediapipe").names]
        millimetres = (hand.joints - hand.joints[0]).astype(np.float64) * 1000
        for name, pixel, point in zip(names, hand.keypoints_2d, millimetres, strict=True):
            values = (*np.round(pixel, 1).tolist(), *np.round(point, 1).tolist())
            rows.append((f"{number} {hand.side}", name, *values))
    return tuple(rows)


def time_line(seconds: dict[str, float] | None) -> str:
    """The times by stage as one line."""
    return " · ".join(f"{stage} {value * 1000:.0f} ms" for stage, value in (seconds or {}).items())
