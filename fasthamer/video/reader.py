"""Frames of a video file, with their times."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthamer.video.pyav import pyav

RATE = Fraction(30)  # frames a second, of a file that does not state it


class Frame(NamedTuple):
    """One frame."""

    image: NDArray[np.uint8]  # (H, W, 3) RGB, upright
    ticks: int  # its time in units of the reader's `tick`; increases from frame to frame


class VideoReader:
    """The frames of a file, one after the other, turned as its metadata demand; a context manager.

    Frames that are damaged are left out; `damaged` counts them.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it cannot be read as a video.
        ImportError: PyAV is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        av = pyav()
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"no video {path}")
        self._errors = av.error.FFmpegError
        try:
            self._container = av.open(str(path), metadata_errors="replace")
        except self._errors as error:
            raise ValueError(f"{path} cannot be read as a video: {error.strerror}") from None
        streams = self._container.streams.video
        if not streams:
            self._container.close()
            raise ValueError(f"{path} has no video stream")
        if streams[0].codec_context is None:  # PyAV before 18.1 would crash
            self._container.close()
            raise ValueError(f"{path}: the codec of this video is not supported")
        self._stream = streams[0]
        self._stream.thread_type = "AUTO"
        self.rate = Fraction(self._stream.average_rate or RATE)  # frames a second, the mean
        self.tick = Fraction(self._stream.time_base or 1 / self.rate)  # seconds
        self.expected = self._expected()  # number of frames, roughly; 0 where the file does not state it
        self.damaged = 0

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[Frame]:
        """Raises: ValueError: not a single frame can be read."""
        last = None
        for frame in self._decoded():
            ticks = frame.pts
            if ticks is None:
                ticks = 0 if last is None else last + round(1 / (self.rate * self.tick))
            ticks = ticks if last is None else max(ticks, last + 1)
            turned = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
            yield Frame(np.ascontiguousarray(turned), ticks)
            last = ticks
        if last is None:
            raise ValueError(f"{self.path} has no frame that can be read: is it complete, and its codec supported?")

    def _decoded(self) -> Iterator[Any]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except self._errors:  # nothing behind this can be found
                self.damaged += 1
                return
            if packet is None:
                return
            try:
                yield from packet.decode()
            except self._errors:
                self.damaged += 1

    def _expected(self) -> int:
        stream = self._stream
        if stream.frames:
            return int(stream.frames)
        return round(stream.duration * self.tick * self.rate) if stream.duration else 0
