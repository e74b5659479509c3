"""A whole video, or a webcam, through a hand model: overlays, JSON and meshes as files."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from fasthamer.files.atomic import replacing
from fasthamer.video.follow import HandVideo
from fasthamer.video.outputs import FrameWriter, overlay, save_meshes
from fasthamer.video.reader import VideoReader
from fasthamer.video.records import FrameRecords
from fasthamer.video.writer import VideoWriter

RECORDS = ".frames"  # suffix of the file of an unfinished run
MILLISECOND = Fraction(1, 1000)
TITLE = "fasthamer (q ends)"


class VideoSummary(NamedTuple):
    """What became of a video."""

    frames: int
    tracks: int  # hands that were followed
    resumed: int  # frames that an interrupted run had computed
    damaged: int  # parts of the file that cannot be decoded, left out
    sound_left_out: str  # why; empty where the sound was copied or there is none


def predict_video(
    source: str | Path,
    out: str | Path | None,
    hands: HandVideo,
    json: str | Path | None = None,
    meshes: str | Path | None = None,
    mesh_suffix: str = ".glb",
    skeleton: bool = False,
    progress: bool = True,
) -> VideoSummary:
    """Follows the hands of a video file and writes what is asked for, each file completely or not at all.

    Sound is copied and each frame keeps its time. What the networks compute is stored frame by frame beside the output;
    after an interrupt the same call goes on from there, with the same result.

    Args:
        source: any file that FFmpeg reads.
        out: the video with overlays, of two models side by side; None: none.
        hands: not used before: it has not followed another video.
        json: sides, boxes, keypoints and joints of the first model, by frame and track.
        meshes: a folder for a mesh of each frame and track, of the first model.
        mesh_suffix: see `HandResult.save`.
        skeleton: draws bones instead of meshes.
        progress: shows a progress bar.

    Raises:
        FileNotFoundError: no such video.
        ValueError: it cannot be read or has no frame, nothing is to be written, or the output would replace it.
        ImportError: PyAV is not installed.
    """
    source, first = Path(source), out or json or meshes
    if first is None:
        raise ValueError("nothing to write: give out, json or meshes")
    if any(each and Path(each).resolve() == source.resolve() for each in (out, json)):
        raise ValueError(f"{source} would be replaced by its own result: give another output")
    with VideoReader(source) as reader:
        first = Path(first)
        first.parent.mkdir(parents=True, exist_ok=True)
        stored = first.with_name(first.name + RECORDS)
        records = FrameRecords(stored, _run(source, hands), [model.faces for model in hands.models])
        with ExitStack() as stack:
            stack.callback(records.close)
            writer = numbers = None
            if out:
                draft = stack.enter_context(replacing(out))
                writer = stack.enter_context(VideoWriter(draft, reader.tick, reader.rate, source))
            if json:
                file = stack.enter_context(open(stack.enter_context(replacing(json)), "w", encoding="utf-8"))
                numbers = FrameWriter(file, {"video": source.name, "model": hands.names[0]})
            resumed, tracks, frame = 0, set(), -1
            for frame, (image, ticks) in enumerate(tqdm(reader, total=reader.expected or None, disable=not progress)):
                time, computed = float(ticks * reader.tick), records.read()
                resumed += computed is not None
                tracked, new = hands.follow(image, time, computed)
                if computed is None:
                    records.append(new)
                tracks.update(tracked.ids.tolist())
                if writer:
                    writer.write(overlay(image, tracked, hands.names, skeleton), ticks)
                if numbers:
                    numbers.write(frame, time, tracked.ids, tracked.hands[0])
                if meshes:
                    save_meshes(Path(meshes), frame, tracked.ids, tracked.hands[0], mesh_suffix)
            if numbers:
                camera = tracked.hands[0].camera
                numbers.close(width=image.shape[1], height=image.shape[0], camera=camera._asdict())
        stored.unlink()
        left_out = writer.sound_left_out if writer else ""
        return VideoSummary(frame + 1, len(tracks), resumed, reader.damaged, left_out)


def _run(source: Path, hands: HandVideo) -> dict[str, Any]:
    """What the stored frames of an interrupted run depend on."""
    tracker, camera = hands.tracker, hands.camera
    models = [[name, Path(name).stat().st_mtime_ns if Path(name).exists() else 0] for name in hands.names]
    return {
        "format": 1,
        "video": [source.name, source.stat().st_size, source.stat().st_mtime_ns],
        "models": models,
        "camera": None if camera is None else np.asarray(camera, np.float64).tolist(),
        "tracker": [type(tracker.detector).__name__, tracker.most, tracker.every, tracker.patience],
    }


def predict_webcam(
    source: int | str,
    hands: HandVideo,
    out: str | Path | None = None,
    skeleton: bool = False,
) -> int:
    """Follows the hands before a webcam until q, Escape or Ctrl-C, in a window where there is a display.

    Args:
        source: the webcam's number, 0 for the first, or an address that OpenCV opens.
        out: a video of what is shown, finished properly at the end; needed where there is no display.

    Returns:
        Number of frames.

    Raises:
        ValueError: no such webcam, or neither a display nor `out`.
        ImportError: PyAV, which writes `out`, is not installed.
    """
    capture = cv2.VideoCapture(source)
    with ExitStack() as stack:
        stack.callback(capture.release)
        if not capture.isOpened():
            raise ValueError(f"no webcam {source}: 0 is the first one; is it connected, and free of other programs?")
        window = _opens_window()
        if not window and out is None:
            raise ValueError("there is no display for a window: give --out FILE to write a video until Ctrl-C")
        writer = None
        if out is not None:
            writer = stack.enter_context(VideoWriter(stack.enter_context(replacing(out)), MILLISECOND))
        began, frames, ticks = monotonic(), 0, -1
        with suppress(KeyboardInterrupt):
            while (read := capture.read())[0]:
                image = np.ascontiguousarray(read[1][:, :, ::-1], np.uint8)
                ticks = max(ticks + 1, round((monotonic() - began) * 1000))
                shown = overlay(image, hands(image, ticks / 1000), hands.names, skeleton)
                frames += 1
                if writer:
                    writer.write(shown, ticks)
                if window:
                    cv2.imshow(TITLE, shown[:, :, ::-1].copy())
                    if cv2.waitKey(1) & 0xFF in (ord("q"), 27):
                        break
        if window:
            cv2.destroyAllWindows()
        if not frames:
            raise ValueError(f"webcam {source} gives no frame: is it free of other programs?")
    return frames


def _opens_window() -> bool:
    """Whether OpenCV can show a window: with a display, and not as opencv-python-headless."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    try:
        cv2.namedWindow(TITLE)
    except cv2.error:
        return False
    return True
