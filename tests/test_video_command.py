"""`fasthamer predict` on videos: what it writes, and a user's mistakes in one line."""

import json

import pytest
from miniatures_video import short_clip, write_clip

from fasthamer.tools.predict import main


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("command") / "clip.mp4", short_clip()[:2])


def test_a_video_is_written_with_its_numbers_and_meshes_beside_it(source, tmp_path, capsys):
    pytest.importorskip("trimesh", reason="needs trimesh, of the extra mesh")
    options = ["--json", "--save-mesh", "obj", "--model", "mobilenetv3_l", "--device", "cpu"]
    assert main([str(source), "--out", str(tmp_path), *options]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip", "clip.json", "clip.mp4"]
    names = {path.name for path in (tmp_path / "clip").iterdir()}
    assert names == {"000000_1.obj", "000000_2.obj", "000001_1.obj", "000001_2.obj"}
    assert len(json.loads((tmp_path / "clip.json").read_text(encoding="utf-8"))["frames"]) == 2
    assert f"2 frames, 2 hands: {tmp_path / 'clip.mp4'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.mp4"], "no video none.mp4"),
        (["garbage.mp4"], "garbage.mp4 cannot be read as a video"),
        (["garbage.mp4", "--side-view"], "are for images"),
        (["garbage.mp4", "--hands", "0"], "most is 0"),
        (["garbage.mp4", "--out", "garbage.mp4"], "replaced by its own result"),
        (["97", "--out", "out.mp4"], "no webcam 97"),
        (["97", "--json"], "--json and --save-mesh are for files"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "garbage.mp4").write_bytes(b"no video at all" * 100)
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--model", "mobilenetv3_l", "--device", "cpu"])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
