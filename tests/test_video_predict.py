"""A whole video through the shipped student: overlays, JSON, an interrupted run, a webcam."""

import json

import av
import numpy as np
import pytest
from miniatures_video import HEIGHT, WIDTH, shipped_student, short_clip, write_clip

from fasthamer.video import HandTracker, HandVideo, predict_video, predict_webcam


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("video") / "clip.mp4", short_clip(), sound="aac")


class Counted(HandVideo):
    """Counts the frames for which networks run, and is interrupted before one of them."""

    def __init__(self, stop=None, **options):
        super().__init__(shipped_student(), tracker=HandTracker(threads=1), device="cpu", threads=1, **options)
        self.computed, self.stop = 0, stop

    def follow(self, image, time, computed=None):
        if self.computed == self.stop:
            raise KeyboardInterrupt
        self.computed += computed is None
        return super().follow(image, time, computed)


def frames(path):
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


@pytest.fixture(scope="module")
def finished(source, tmp_path_factory):
    """The results of one run without an interrupt."""
    folder = tmp_path_factory.mktemp("finished")
    summary = predict_video(source, folder / "out.mp4", Counted(), json=folder / "out.json", progress=False)
    return folder, summary


def test_a_video_gives_overlays_and_numbers_of_each_frame(source, finished):
    folder, summary = finished
    assert (summary.frames, summary.tracks, summary.resumed, summary.damaged) == (12, 2, 0, 0)
    assert sorted(path.name for path in folder.iterdir()) == ["out.json", "out.mp4"]
    result = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    assert (result["width"], result["height"], len(result["frames"])) == (WIDTH, HEIGHT, 12)
    assert [row["frame"] for row in result["frames"]] == list(range(12))
    np.testing.assert_allclose([row["time"] for row in result["frames"]], np.arange(12) / 30, atol=0.001)
    assert {(hand["id"], hand["side"]) for row in result["frames"] for hand in row["hands"]} in (
        {(1, "right"), (2, "left")},
        {(1, "left"), (2, "right")},
    )
    camera = result["camera"]
    hand = result["frames"][5]["hands"][0]
    points = np.array(hand["joints"]) + hand["translation"]
    pixels = points[:, :2] / points[:, 2:] * (camera["fx"], camera["fy"]) + (camera["cx"], camera["cy"])
    np.testing.assert_allclose(pixels, hand["keypoints_2d"], atol=0.05)  # the file's numbers are rounded
    drawn, original = frames(folder / "out.mp4"), frames(source)
    assert len(drawn) == 12
    low, high = np.array(hand["box"]).reshape(2, 2).astype(int)
    middle = tuple(slice(a + (b - a) // 3, b - (b - a) // 3) for a, b in zip(low[::-1], high[::-1], strict=True))
    assert np.abs(drawn[5][middle].astype(int) - original[5][middle]).mean() > 20  # the mesh
    assert np.abs(drawn[5][-20:, :20].astype(int) - original[5][-20:, :20]).mean() < 8  # the background
    with av.open(str(folder / "out.mp4")) as file:
        assert len(file.streams.audio) == 1


@pytest.mark.parametrize("cut", [0, 100], ids=["interrupted", "killed while writing"])
def test_an_interrupted_run_goes_on_with_the_same_result(source, finished, tmp_path, cut):
    out, numbers = tmp_path / "out.mp4", tmp_path / "out.json"
    with pytest.raises(KeyboardInterrupt):
        predict_video(source, out, Counted(stop=7), json=numbers, progress=False)
    stored = tmp_path / "out.mp4.frames"
    assert [path.name for path in tmp_path.iterdir()] == [stored.name]  # no half a video
    content = stored.read_bytes()
    stored.write_bytes(content[: len(content) - cut])
    again = Counted()
    summary = predict_video(source, out, again, json=numbers, progress=False)
    kept = 7 - (cut > 0)
    assert (summary.resumed, again.computed, summary.frames) == (kept, 12 - kept, 12)
    assert numbers.read_bytes() == (finished[0] / "out.json").read_bytes()
    for one, other in zip(frames(out), frames(finished[0] / "out.mp4"), strict=True):
        assert np.abs(one.astype(int) - other).mean() < 1  # x264 is not the same from run to run
    assert not stored.exists()


def test_frames_stored_with_other_settings_are_computed_again(source, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        predict_video(source, tmp_path / "out.mp4", Counted(stop=2), progress=False)
    again = Counted(camera=400.0, stop=2)
    with pytest.raises(KeyboardInterrupt):
        predict_video(source, tmp_path / "out.mp4", again, progress=False)
    assert again.computed == 2


def test_two_models_stand_side_by_side_and_meshes_are_saved(source, tmp_path):
    trimesh = pytest.importorskip("trimesh", reason="needs trimesh, of the extra mesh")
    hands = Counted(compare=shipped_student(), stop=3)
    with pytest.raises(KeyboardInterrupt):
        predict_video(source, tmp_path / "out.mp4", hands, meshes=tmp_path / "meshes", progress=False)
    names = sorted(path.name for path in (tmp_path / "meshes").iterdir())
    assert names == [f"{frame:06d}_{number}.glb" for frame in range(3) for number in (1, 2)]
    assert trimesh.load_mesh(tmp_path / "meshes" / names[0]).vertices.shape[1] == 3


def test_a_webcam_is_written_until_ctrl_c(source, tmp_path, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    count = predict_webcam(str(source), Counted(stop=4), tmp_path / "out.mp4")  # OpenCV reads a file as a webcam
    assert count == 4 and len(frames(tmp_path / "out.mp4")) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    with pytest.raises(ValueError, match=r"no display.*--out"):
        predict_webcam(str(source), Counted())


def test_a_video_without_hands_is_written_as_it_is(tmp_path):
    blank = write_clip(tmp_path / "blank.mp4", [np.full((50, 70, 3), 90, np.uint8)] * 3)
    summary = predict_video(blank, tmp_path / "out.mp4", Counted(), json=tmp_path / "out.json", progress=False)
    assert (summary.frames, summary.tracks) == (3, 0)
    assert [row["hands"] for row in json.loads((tmp_path / "out.json").read_text())["frames"]] == [[], [], []]
    assert np.abs(frames(tmp_path / "out.mp4")[0].astype(int) - 90).max() <= 4


def test_no_webcam_nothing_to_write_and_overwriting_the_video_are_refused(source, tmp_path):
    with pytest.raises(ValueError, match="no webcam"):
        predict_webcam(str(tmp_path / "none.mp4"), Counted(), tmp_path / "out.mp4")
    with pytest.raises(ValueError, match="nothing to write"):
        predict_video(source, None, Counted())
    with pytest.raises(ValueError, match="replaced by its own result"):
        predict_video(source, source, Counted())
