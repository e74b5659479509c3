"""The part of tools/predict.py that is for videos and webcams."""

from __future__ import annotations

import argparse
from pathlib import Path

VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".3gp")
WRITTEN = (".mp4", ".mkv", ".mov")  # what `--out` may be; other videos become .mp4


def is_video(source: Path) -> bool:
    """Whether it is a video file by its name, or the number of a webcam."""
    return source.suffix.lower() in VIDEOS or is_webcam(source)


def is_webcam(source: Path) -> bool:
    """Whether it is a number, and no such file exists."""
    return source.name.isdigit() and not source.exists()


def predict(arguments: argparse.Namespace) -> str:
    """Follows the hands of a video or before a webcam; returns what became of it.

    Raises:
        FileNotFoundError, ValueError, KeyError, ImportError: a mistake in the arguments, or a file that is no video.
    """
    from fasthamer.detect.detector import MediaPipeDetector
    from fasthamer.video import HandTracker, HandVideo, predict_video, predict_webcam

    if arguments.box or arguments.rotation or arguments.side_view:
        raise ValueError("--box, --rotation and --side-view are for images: hands in a video are detected and tracked")
    hands = HandVideo(
        arguments.model,
        arguments.compare,
        HandTracker(MediaPipeDetector(tiles=arguments.tiles), arguments.hands),
        camera=arguments.focal,
        hand=arguments.mano,
        checkpoint=arguments.teacher_ckpt,
        device=arguments.device,
    )
    file = arguments.out if arguments.out.suffix.lower() in WRITTEN else None
    if is_webcam(arguments.source):
        if arguments.json or arguments.save_mesh:
            raise ValueError("--json and --save-mesh are for files: write the webcam with --out first")
        frames = predict_webcam(int(arguments.source.name), hands, file, arguments.skeleton)
        return f"{frames} frames{f': {file}' if file else ''}"
    source = arguments.source
    out = file or arguments.out / (source.name if source.suffix.lower() in WRITTEN else f"{source.name}.mp4")
    done = predict_video(
        source,
        out,
        hands,
        json=out.with_suffix(".json") if arguments.json else None,
        meshes=out.with_suffix("") if arguments.save_mesh else None,
        mesh_suffix=f".{arguments.save_mesh}",
        skeleton=arguments.skeleton,
    )
    notes = [f"{done.frames} frames, {done.tracks} hands"]
    notes += [f"{done.resumed} frames done before"] if done.resumed else []
    notes += [f"{done.damaged} damaged parts left out"] if done.damaged else []
    notes += [f"sound left out: {done.sound_left_out}"] if done.sound_left_out else []
    return f"{'; '.join(notes)}: {out}"
