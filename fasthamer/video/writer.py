"""A video file, frame by frame, with the sound of another."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthamer.video.pyav import pyav

CODECS = ("libx264", "mpeg4")  # the first that this PyAV has
QUALITY = {"libx264": {"crf": "20", "preset": "veryfast"}, "mpeg4": {"qscale": "4"}}


class VideoWriter:
    """Writes a video; a context manager that finishes the file at its end, after an interrupt too.

    Args:
        path: its suffix chooses the container: .mp4, .mkv, .mov, ...
        tick: seconds, the unit of the frames' times.
        rate: frames a second, roughly; frame times may vary.
        sound_of: a file whose sound is copied as it is.

    Raises:
        ValueError: a container that is not known or takes no such video.
        ImportError: PyAV is not installed.
    """

    def __init__(self, path: Path, tick: Fraction, rate: Fraction = Fraction(30), sound_of: Path | None = None) -> None:
        av = pyav()
        self.tick, self._video_frame = tick, av.VideoFrame
        try:
            self._container = av.open(str(path), "w")
            codec = next(each for each in CODECS if each in av.codec.codecs_available)
            self._stream = self._container.add_stream(codec, rate=rate, options=QUALITY[codec])
        except (av.error.FFmpegError, ValueError) as error:
            raise ValueError(f"no video can be written as {path.name}: {error}; give .mp4, .mkv or .mov") from None
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = tick
        self._sound = _Sound(sound_of, self._container) if sound_of is not None else None
        self.sound_left_out = "" if self._sound is None else self._sound.left_out  # why; empty where it was copied

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream.codec_context.is_open:
            self._container.mux(self._stream.encode())
            if self._sound is not None:
                self._sound.copy_until(None)
        self._container.close()
        if self._sound is not None:
            self._sound.close()

    def write(self, image: NDArray[np.uint8], ticks: int) -> None:
        """Adds a frame (H, W, 3) RGB of the same size as the others; odd sides grow by one pixel."""
        height, width = image.shape[:2]
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if not self._stream.codec_context.is_open:
            self._stream.height, self._stream.width = image.shape[:2]
        frame = self._video_frame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts, frame.time_base = ticks, self.tick
        self._container.mux(self._stream.encode(frame))
        if self._sound is not None:
            self._sound.copy_until(ticks * self.tick)


class _Sound:
    """The first sound track of a file, copied without decoding."""

    def __init__(self, path: Path, output: Any) -> None:
        self._input = pyav().open(str(path))
        self._output, self._waiting, self.left_out = output, None, ""
        self._packets: Any = iter(())
        if not self._input.streams.audio:
            return
        stream = self._input.streams.audio[0]
        if stream.codec_context.name not in output.supported_codecs:
            self.left_out = f"its codec {stream.codec_context.name} does not fit the output's container; .mkv takes it"
            return
        self._stream = output.add_stream_from_template(stream)
        self._packets = self._input.demux(stream)

    def copy_until(self, time: Fraction | None) -> None:
        """Copies what starts before a time in seconds, or the rest."""
        while True:
            packet = next(self._packets, None) if self._waiting is None else self._waiting
            if packet is None or packet.dts is None:  # the end
                return
            if time is not None and packet.dts * packet.time_base > time:
                self._waiting = packet
                return
            self._waiting = None
            packet.stream = self._stream
            self._output.mux(packet)

    def close(self) -> None:
        self._input.close()
