"""The web page without a browser: what it makes of an upload, and how its command fails."""

import json
import re
import socket
import sys
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from fasthamer.files.images import read_image
from fasthamer.predict import Camera, HandMesh
from fasthamer.students.shipped import shipped_students
from fasthamer.tools import serve
from fasthamer.web import result
from fasthamer.web.examples import write_examples
from fasthamer.web.models import Models
from fasthamer.web.result import JOINT_COLUMNS, find_hands, joint_rows, nearby, read_upload, time_line

MODEL = "mobilenetv3_l"


@pytest.fixture(scope="module")
def models():
    return Models()


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    return write_examples(tmp_path_factory.mktemp("examples"))


@pytest.fixture(scope="module")
def hands(examples):
    """The Python API's hands of the first example."""
    return HandMesh(MODEL)(examples[0])


def test_an_image_gives_the_overlay_joints_and_files_of_the_python_api(models, examples, hands, tmp_path):
    trimesh = pytest.importorskip("trimesh", reason="needs the extra [web]")
    found = find_hands(models, MODEL, examples[0], tmp_path)
    assert found.message == f"**1 hand:** right ({hands.score[0]:.2f})"
    assert np.array_equal(found.overlay, hands.draw(read_image(examples[0])))
    mesh = trimesh.load(found.glb, process=False).to_geometry()
    flipped = hands.vertices_camera[0] * (1, -1, -1)  # glTF's axes
    assert mesh.vertices.shape == (778, 3) and np.allclose(mesh.vertices, flipped, atol=1e-5)
    saved = json.loads(found.json.read_text(encoding="utf-8"))
    assert np.allclose(saved["hands"][0]["joints_camera"], hands.joints_camera[0], atol=1e-5)
    assert [row[0] for row in found.joints] == ["1 right"] * 21
    assert set(found.seconds) == {"detection", "crop to mesh", "overlay"} and min(found.seconds.values()) > 0


def test_joints_are_pixels_of_the_image_and_millimetres_from_the_wrist(hands):
    rows = joint_rows(hands)
    assert len(JOINT_COLUMNS) == len(rows[0]) == 7
    assert rows[0][1:] == ("wrist", *hands.keypoints_2d[0, 0].round(1), 0.0, 0.0, 0.0)
    assert rows[8][1] == "index tip" and rows[20][1] == "pinky tip"
    bone = np.linalg.norm(np.subtract(rows[8][4:], rows[7][4:]))
    assert bone == pytest.approx(1000 * np.linalg.norm(hands.joints[0, 8] - hands.joints[0, 7]), abs=0.2)


def test_a_mirrored_example_is_a_left_hand(models, examples, tmp_path):
    pytest.importorskip("trimesh", reason="needs the extra [web]")
    left = next(file for file in examples if file.name.startswith("left"))
    assert find_hands(models, MODEL, left, tmp_path).message.startswith("**1 hand:** left")


def test_without_a_hand_the_image_itself_is_shown(models, tmp_path):
    Image.new("RGB", (200, 100), (90, 120, 200)).save(tmp_path / "sky.png")
    found = find_hands(models, MODEL, tmp_path / "sky.png", tmp_path)
    assert found.message.startswith("**No hand found.**")
    assert np.array_equal(found.overlay, read_image(tmp_path / "sky.png"))
    assert found.view is found.glb is found.json is None and found.joints == ()


def test_a_cleared_image_clears_the_page(models, tmp_path):
    found = find_hands(models, MODEL, None, tmp_path)
    assert found.message == "" and found.overlay is None and time_line(found.seconds) == ""


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"", "is empty"), (b"\xff\xd8\xff\xe0 no JPEG at all", "not"), (b"%PDF-1.7 no image", "PDF")],
)
def test_an_unreadable_upload_becomes_a_message(models, tmp_path, content, problem):
    (tmp_path / "upload.jpg").write_bytes(content)
    found = find_hands(models, MODEL, tmp_path / "upload.jpg", tmp_path)
    assert found.message.startswith("**This file cannot be used.** upload.jpg") and problem in found.message
    assert str(tmp_path) not in found.message and found.overlay is None


def test_an_upload_that_is_no_longer_kept_is_asked_for_again(models, tmp_path):
    assert "Upload it again" in find_hands(models, MODEL, tmp_path / "gone.png", tmp_path).message


def test_a_small_file_with_too_many_pixels_is_refused_before_it_is_decoded(tmp_path):
    Image.new("1", (6000, 5000)).save(tmp_path / "huge.png")
    with mock.patch.object(result, "read_image") as decoder, pytest.raises(ValueError, match="6000 x 5000 pixels"):
        read_upload(tmp_path / "huge.png")
    decoder.assert_not_called()


def test_a_file_with_too_many_bytes_is_refused(tmp_path):
    with open(tmp_path / "large.png", "wb") as file:
        file.truncate(result.MOST_BYTES + 1)
    with pytest.raises(ValueError, match=r"large\.png has more than 20 MB"):
        read_upload(tmp_path / "large.png")


def test_the_view_shortens_only_depths_that_are_not_metric(hands):
    near = nearby(hands)
    width = 480
    assert np.allclose(near.translation[:, 2], hands.translation[:, 2] * width / hands.camera.fx, rtol=0.01)
    assert np.array_equal(near.translation[:, :2], hands.translation[:, :2])
    metric = replace(hands, camera=Camera(600, 600, 240, 240, True))
    assert nearby(metric) is metric


def test_given_models_come_first_and_are_opened_at_once():
    file = str(shipped_students()[MODEL])
    models = Models([file])
    assert models.names[0] == file and len(models.names) == len(set(models.names))
    assert models.open(file) is models.open(file)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Models(["nowhere"])
    with pytest.raises(KeyError, match="choose"):
        models.open("nowhere")


def error_of(capsys, *arguments):
    with mock.patch.dict("os.environ"), pytest.raises(SystemExit) as ended:
        serve.main(list(arguments))
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_a_taken_port_is_named_and_port_0_is_a_free_one(capsys):
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        message = error_of(capsys, "--port", str(taken))
    assert f"port {taken}" in message and "--port" in message
    assert 0 < serve.free_port("127.0.0.1", 0) != taken
    assert "expected 0" in error_of(capsys, "--port", "70000")
    assert "203.0.113.1" in error_of(capsys, "--host", "203.0.113.1")  # a documentation address, nobody's own


def test_an_ipv6_address_stands_in_brackets():
    assert [serve.in_a_url(host) for host in ("::1", "127.0.0.1")] == ["[::1]", "127.0.0.1"]


def test_without_gradio_the_command_names_the_extra(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert "pip install 'fasthamer-kd[web]'" in error_of(capsys, "--port", "0")


def test_a_model_that_does_not_exist_is_an_error_before_anything_is_served(capsys):
    pytest.importorskip("gradio", reason="needs the extra [web]")
    assert "runs/none" in error_of(capsys, "--port", "0", "--model", "runs/none")


def test_the_page_fetches_nothing_elsewhere_and_has_no_button_that_shares(models, tmp_path):
    pytest.importorskip("gradio", reason="needs the extra [web]")
    from fasthamer.web.page import build_page, theme

    assert set(re.findall(r"https?://([\w.]+)", theme()._get_theme_css())) <= {"www.w3.org"}  # names, not addresses
    components = build_page(models, [], tmp_path).get_config_file()["components"]
    buttons = [button for each in components for button in each["props"].get("buttons") or []]
    assert "fullscreen" in buttons and "share" not in buttons
