"""Reading and writing video files: times, sound, rotation, and files that are none."""

import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from miniatures_video import write_clip

from fasthamer.video.reader import VideoReader
from fasthamer.video.writer import VideoWriter


def images(count, height=48, width=64):
    """Each of another grey, with a white upper left corner."""
    made = [np.full((height, width, 3), 20 * n % 200, np.uint8) for n in range(count)]
    for image in made:
        image[:16, :16] = 255
    return made


def read(path):
    with VideoReader(path) as reader:
        return reader, list(reader)


def packets(path, kind):
    with av.open(str(path)) as file:
        return [bytes(packet) for packet in file.demux(**{kind: 0}) if packet.size]


def test_frames_come_in_order_with_their_times(tmp_path):
    made = images(10)
    reader, frames = read(write_clip(tmp_path / "clip.mp4", made))
    assert reader.expected == 10 and reader.damaged == 0
    times = [float(frame.ticks * reader.tick) for frame in frames]
    np.testing.assert_allclose(times, np.arange(10) / 30, atol=0.001)
    for frame, image in zip(frames, made, strict=True):
        assert np.abs(frame.image.astype(int) - image).max() <= 4


def test_a_variable_frame_rate_is_kept(tmp_path):
    ticks = [0, 10, 95, 100, 400, 1000]  # milliseconds
    reader, frames = read(write_clip(tmp_path / "clip.mkv", images(6), ticks))
    with VideoWriter(tmp_path / "out.mp4", reader.tick, reader.rate) as writer:
        for frame in frames:
            writer.write(frame.image, frame.ticks)
    again, copied = read(tmp_path / "out.mp4")
    assert [round(float(frame.ticks * again.tick) * 1000) for frame in copied] == ticks


def test_sound_is_copied_unchanged_and_starts_with_the_image(tmp_path):
    source = write_clip(tmp_path / "clip.mp4", images(20), sound="aac")
    with VideoReader(source) as reader, VideoWriter(tmp_path / "out.mp4", reader.tick, reader.rate, source) as writer:
        for frame in reader:
            writer.write(frame.image, frame.ticks)
    assert writer.sound_left_out == ""
    assert packets(tmp_path / "out.mp4", "audio") == packets(source, "audio") != []
    with av.open(str(tmp_path / "out.mp4")) as file:
        assert file.streams.audio[0].start_time in (None, 0)
        assert file.streams.video[0].frames == 20


def test_sound_that_the_container_does_not_take_is_left_out_with_a_reason(tmp_path):
    source = write_clip(tmp_path / "clip.avi", images(20), sound="pcm_mulaw")
    with VideoWriter(tmp_path / "out.mp4", Fraction(1, 1000), sound_of=source) as writer:
        writer.write(images(1)[0], 0)
    assert "pcm_mulaw" in writer.sound_left_out and ".mkv" in writer.sound_left_out
    assert len(read(tmp_path / "out.mp4")[1]) == 1


def test_odd_sides_grow_by_one_pixel(tmp_path):
    with VideoWriter(tmp_path / "out.mp4", Fraction(1, 30)) as writer:
        writer.write(images(1, 51, 63)[0], 0)
    assert read(tmp_path / "out.mp4")[1][0].image.shape == (52, 64, 3)


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_frames_are_turned_as_the_file_demands(tmp_path, rotation):
    source = write_clip(tmp_path / "clip.mp4", images(2), rotation=rotation)
    image = read(source)[1][0].image
    expected = np.rot90(images(1)[0], rotation // 90)  # FFmpeg's rotation is counter-clockwise
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).max() <= 4


def test_damaged_frames_are_left_out(tmp_path):
    source = write_clip(tmp_path / "clip.mkv", images(10))
    content = bytearray(source.read_bytes())
    source.write_bytes(content[: len(content) * 2 // 3])
    frames = read(source)[1]
    assert 0 < len(frames) < 10


def no_frames(path):
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        file.start_encoding()


def sound_only(path):
    with av.open(str(path), "w") as file:
        tone = file.add_stream("aac", rate=48000, layout="mono")
        part = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), format="s16", layout="mono")
        part.sample_rate = 48000
        file.mux(tone.encode(part))
        file.mux(tone.encode())


def unknown_codec(path):
    write_clip(path, images(3))
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b""), "cannot be read as a video"),
        (lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)), "cannot be read as a video"),
        (no_frames, "no frame"),
        (sound_only, "no video stream"),
        (unknown_codec, "codec"),
    ],
    ids=["empty", "garbage", "no frames", "sound only", "unknown codec"],
)
def test_a_file_that_is_no_video_is_one_clear_error(tmp_path, make, message):
    path = tmp_path / ("clip.avi" if make is no_frames else "clip.mp4")
    make(path)
    with pytest.raises(ValueError, match=message) as error:
        read(path)
    assert str(path) in str(error.value)


def test_a_missing_file_and_an_unknown_container_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.mp4"):
        VideoReader(tmp_path / "none.mp4")
    with pytest.raises(ValueError, match=r"out\.xyz.*\.mp4"):
        VideoWriter(tmp_path / "out.xyz", Fraction(1, 30))


def test_without_pyav_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "clip.mp4").write_bytes(b"x")
    with pytest.raises(ImportError, match=r"pip install 'fasthamer-kd\[video\]'"):
        VideoReader(tmp_path / "clip.mp4")
