"""`fasthamer predict`: files of images and folders, what is left out, and how a run continues."""

import json
import os

import cv2
import numpy as np
import pytest
import torch

from fasthamer.files.images import read_image, write_image
from fasthamer.students import build_student, save_student
from fasthamer.tools import predict

IMAGE = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
BOX = ["--box", "20,15,60,45"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "student.safetensors"
    save_student(path, build_student("timm:test_resnet", decoder_size="tiny", image_size=64), {})
    return ["--model", str(path), "--device", "cpu"]


@pytest.fixture
def folder(tmp_path):
    """Two images without hands and a damaged one."""
    write_image(tmp_path / "images" / "a.png", IMAGE)
    write_image(tmp_path / "images" / "sub" / "b.jpg", IMAGE)
    (tmp_path / "images" / "sub" / "c.jpg").write_bytes(b"\xff\xd8 no image")
    (tmp_path / "images" / "notes.txt").write_text("no image either")
    return tmp_path / "images"


def run(*arguments):
    return predict.main([str(each) for each in arguments])


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_an_image_gives_an_overlay_a_mesh_and_numbers(model, tmp_path, capsys):
    pytest.importorskip("trimesh")
    write_image(tmp_path / "a.png", IMAGE)
    out = tmp_path / "out" / "hands.png"
    assert run(tmp_path / "a.png", *BOX, *model, "--out", out, "--json", "--save-mesh", "obj", "--focal", 90) == 0
    assert capsys.readouterr().out == f"1 hand(s): {out}\n"
    assert files(out.parent) == ["hands.json", "hands.obj", "hands.png"]
    assert (read_image(out) != IMAGE).any() and read_image(out).shape == IMAGE.shape
    found = json.loads(out.with_suffix(".json").read_text())
    assert found["camera"][0] == 90 and len(found["hands"][0]["vertices"]) == 778
    assert out.with_suffix(".obj").read_text().count("\nv ") >= 777


def test_side_views_stand_beside_the_overlay(model, tmp_path):
    write_image(tmp_path / "a.png", IMAGE)
    plain, beside = tmp_path / "plain.png", tmp_path / "beside.png"
    two = [*BOX, *BOX, *model]
    assert run(tmp_path / "a.png", *two, "--out", plain) == 0
    assert run(tmp_path / "a.png", *two, "--out", beside, "--side-view") == 0
    image = read_image(beside)
    assert image.shape == (60, 80 + 2 * 30, 3)  # a column of 30 x 30 views for each hand
    np.testing.assert_array_equal(image[:, :80], read_image(plain))
    for y in (0, 30):
        for x in (80, 110):
            view = image[y : y + 30, x : x + 30]
            covered = (view < 240).any(-1).mean()
            assert 0.05 < covered < 0.8


def test_a_folder_is_walked_and_a_damaged_image_named(model, folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(folder, *model, "--out", out, "--json") == 1
    printed = capsys.readouterr()
    assert "left out:" in printed.err and "c.jpg: damaged image" in printed.err
    assert printed.out == f"2 images, 0 hands, 2 images without; 1 left out: {out}\n"
    assert files(out) == ["a.png", "a.png.json", "settings.json", "sub/b.jpg", "sub/b.jpg.json"]
    assert files(folder) == ["a.png", "notes.txt", "sub/b.jpg", "sub/c.jpg"]  # nothing is written among the images


def test_a_second_run_only_does_what_is_missing(model, folder, tmp_path, capsys):
    out = tmp_path / "out"
    (folder / "sub" / "c.jpg").unlink()
    assert run(folder, *model, "--out", out) == 0
    before = (out / "a.png").stat().st_mtime_ns
    (out / "sub" / "b.jpg").unlink()
    capsys.readouterr()
    assert run(folder, *model, "--out", out) == 0
    assert "1 images, 0 hands, 1 images without; 1 done before" in capsys.readouterr().out
    assert (out / "a.png").stat().st_mtime_ns == before and (out / "sub" / "b.jpg").is_file()
    with pytest.raises(SystemExit) as stop:
        run(folder, *model, "--out", out, "--skeleton")
    assert stop.value.code == 2 and "results of other settings" in capsys.readouterr().err


def test_what_another_model_or_command_wrote_is_not_done(model, folder, tmp_path, capsys):
    (folder / "sub" / "c.jpg").unlink()
    assert run(folder / "a.png", *BOX, *model, "--skeleton", "--out", tmp_path / "out") == 0
    assert run(folder, *model, "--json", "--out", tmp_path / "out") == 0
    assert "2 images" in capsys.readouterr().out and (tmp_path / "out" / "a.png.json").is_file()
    with pytest.raises(SystemExit):
        run(folder / "sub" / "b.jpg", *model, "--out", tmp_path / "out")
    assert "has the results of a folder (settings.json): give another --out" in capsys.readouterr().err
    os.utime(model[1], ns=(1, 1))  # trained on
    with pytest.raises(SystemExit):
        run(folder, *model, "--json", "--out", tmp_path / "out")
    assert "results of other settings" in capsys.readouterr().err


def test_a_folder_goes_on_after_a_name_as_long_as_a_file_system_allows(model, folder, tmp_path, capsys):
    (folder / "sub" / "c.jpg").unlink()
    (folder / "a.png").rename(folder / f"{'a' * 251}.png")
    assert run(folder, *model, "--out", tmp_path / "out") == 0
    assert "2 images" in capsys.readouterr().out


def test_a_gpu_without_enough_memory_is_one_line(model, tmp_path, capsys, monkeypatch):
    def full(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    write_image(tmp_path / "a.png", IMAGE)
    monkeypatch.setattr("fasthamer.predict.HandMesh.__call__", full)
    assert run(tmp_path / "a.png", *BOX, *model, "--out", tmp_path / "out.png") == 1
    assert capsys.readouterr().err == "predict: CUDA out of memory.\n"


def test_results_inside_the_folder_are_not_images_of_it(model, folder, capsys):
    (folder / "sub" / "c.jpg").unlink()
    for done in ("2 images", "2 done before"):
        assert run(folder, *model, "--out", folder / "found") == 0
        assert done in capsys.readouterr().out
    assert not (folder / "found" / "found").exists()


def test_an_interrupt_leaves_whole_files_and_says_how_to_go_on(model, folder, tmp_path, capsys, monkeypatch):
    written = []

    def stops(path, image):
        if written:
            raise KeyboardInterrupt
        written.append(write_image(path, image))

    monkeypatch.setattr("fasthamer.files.images.write_image", stops)
    assert run(folder, *model, "--out", tmp_path / "out") == 1
    assert "predict: interrupted; the same command goes on" in capsys.readouterr().err
    assert files(tmp_path / "out") == ["a.png", "settings.json"]


def test_a_disk_without_space_is_a_failure(model, tmp_path, capsys, monkeypatch):
    def full(path, image):
        raise OSError(28, "No space left on device")

    write_image(tmp_path / "a.png", IMAGE)
    monkeypatch.setattr("fasthamer.files.images.write_image", full)
    assert run(tmp_path / "a.png", *BOX, *model, "--out", tmp_path / "out.png") == 1
    assert "No space left" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["FOLDER", "--box", "1,2,30,40"], "--box and --rotation are for one image"),
        (["FOLDER", "--out", "FOLDER"], "expected a folder other than that of the images"),
        (["FOLDER", "--out", "x.png"], "expected a folder other than that of the images"),
        (["FOLDER/empty"], "no images (.jpg"),
        (["FOLDER/a.png", "--out", "FOLDER"], "is the image itself"),
        (["FOLDER/a.png", "--out", "FOLDER/a.png"], "is the image itself"),
        (["FOLDER/none.png"], "no image"),
        (["FOLDER/notes.txt"], "no image of a known format"),
        (["FOLDER/a.png", "--box", "1,2,3"], "expected x1,y1,x2,y2"),
        (["FOLDER/a.png", "--model", "nowhere"], "no model 'nowhere'"),
        (["FOLDER/a.png", "--focal", "-5"], "focal"),
        (["FOLDER/a.png", "--focal", "nan"], "focal"),
        (["FOLDER/a.png", "--save-mesh", "stl"], "invalid choice"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(folder, capsys, arguments, message):
    (folder / "empty").mkdir()
    with pytest.raises(SystemExit) as stop:
        run(*(each.replace("FOLDER", str(folder)) for each in arguments), "--device", "cpu")
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert cv2.imread(str(folder / "a.png")).shape == IMAGE.shape
