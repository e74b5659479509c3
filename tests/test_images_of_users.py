"""The forms in which users give images and boxes to HandMesh and the command."""

import io

import cv2
import numpy as np
import pytest
import torch
from encoded_images import RNG, brand, encoded, written
from PIL import Image, ImageOps
from test_predict import BOX, Finds

from fasthamer.data.crop import box_problem
from fasthamer.files.images import read_image
from fasthamer.predict import HandMesh, model
from fasthamer.runtime.calibration import image_crops
from fasthamer.tools import predict as predict_command


@pytest.fixture
def hands(monkeypatch):
    monkeypatch.setattr(model, "open_model", lambda *names: Finds())
    return HandMesh("stand-in", device="cpu")


def test_hand_mesh_takes_paths_pillow_images_arrays_and_tensors(tmp_path, hands):
    image = RNG.integers(0, 255, (240, 320, 3), dtype=np.uint8)
    path = written(tmp_path / "a.png", image, "PNG")
    truth, drawn = hands(image, [BOX]), hands(image, [BOX]).draw(image)
    tensor = torch.from_numpy(image)
    for form in (path, str(path), Image.open(path), Image.fromarray(image), tensor, tensor.permute(2, 0, 1)):
        found = hands(form, [BOX])
        np.testing.assert_array_equal(found.keypoints_2d, truth.keypoints_2d)
        np.testing.assert_array_equal(found.draw(form), drawn)


@pytest.mark.parametrize("mark", range(2, 9))
def test_hand_mesh_and_the_command_see_a_marked_image_as_viewers_do(tmp_path, hands, mark):
    upright = np.zeros((240, 320, 3), np.uint8)
    cv2.circle(upright, (160, 110), 5, (255, 255, 255), -1)
    upright = cv2.GaussianBlur(upright, (0, 0), 3)
    inverse = {6: 8, 8: 6}.get(mark, mark)
    file = io.BytesIO(encoded(upright, "PNG", inverse))
    stored = np.asarray(ImageOps.exif_transpose(Image.open(file)))
    path = written(tmp_path / "a.jpg", stored, "JPEG", mark)
    found = hands(path, [BOX])
    assert found.keypoints_2d[0].mean(0) == pytest.approx((160, 110), abs=4)
    assert predict_command.main([str(path), "--box", "100,60,200,140", "--out", str(tmp_path / "out.png")]) == 0
    shown = read_image(tmp_path / "out.png")
    assert shown.shape == upright.shape
    assert (np.abs(shown.astype(int) - upright) > 40).any(-1).sum() > 100  # the mesh
    rows, columns = np.nonzero((np.abs(shown.astype(int) - upright) > 40).any(-1))
    assert columns.mean() == pytest.approx(160, abs=25) and rows.mean() == pytest.approx(110, abs=25)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (5, "of type int; expected .H, W, 3. uint8"),
        (None, "of type NoneType"),
        (b"\xff\xd8", "of type bytes"),
        (np.zeros((0, 5, 3), np.uint8), r"\(0, 5, 3\) uint8"),
        (np.zeros((4, 5, 4), np.uint8), r"\(4, 5, 4\) uint8; expected"),
        (np.zeros((4, 5, 3), np.float32), "float32"),
        (torch.zeros(3, 4, 5), r"\(4, 5, 3\) float32"),
        (Image.new("RGB", (0, 5)), r"\(5, 0, 3\) uint8"),
        (Image.new("F", (4, 5)), "32-bit float pixels"),
    ],
)
def test_any_other_form_is_one_clear_error(hands, image, message):
    with pytest.raises(ValueError, match=f"^the image .*{message}"):
        hands(image, [BOX])


# ------------------------------------------------------------------------------------------------------------- boxes


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([0.2, 0.3, 0.8, 0.9], "0.6 pixels large: is it normalised to 0..1"),
        ([-0.1, 0, 1, 1.2], "normalised"),
        ([400, 10, 500, 90], "outside of the 320x240 image"),
        ([-90, 10, 0, 90], "outside of the 320x240 image"),
        ([10, 240, 90, 300], "outside of the 320x240 image"),
        ([10, -50, 90, -1], "outside of the 320x240 image"),
    ],
)
def test_boxes_that_do_not_fit_the_image_are_refused(tmp_path, hands, capsys, box, message):
    image = np.zeros((240, 320, 3), np.uint8)
    with pytest.raises(ValueError, match=f"^box 1, .*{message}"):
        hands(image, [BOX, box])
    path = written(tmp_path / "a.png", image, "PNG")
    with pytest.raises(SystemExit) as stop:
        predict_command.main([str(path), f"--box={','.join(map(str, box))}", "--out", str(tmp_path / "out.png")])
    assert stop.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize("box", [[-40, -40, 60, 60], [300, 200, 900, 900], [-50, -50, 400, 300], [319, 239, 330, 250]])
def test_boxes_partly_outside_stay_allowed(hands, box):
    assert hands(np.zeros((240, 320, 3), np.uint8), [box]).vertices.shape == (1, 778, 3)
    assert box_problem(np.array(box[:2]), np.array(box[2:]), 320, 240) is None


@pytest.mark.parametrize("name", ["an MP4 video", "expected a folder", "no image"])
def test_the_command_says_what_it_was_given(tmp_path, capsys, name):
    path = tmp_path / "a"
    if name == "an MP4 video":
        path.write_bytes(brand(b"isom"))
    elif name == "expected a folder":  # one of images, to one image file
        path.mkdir()
    with pytest.raises(SystemExit) as stop:
        predict_command.main([str(path), "--out", str(tmp_path / "out.png")])
    assert stop.value.code == 2
    found = capsys.readouterr().err.strip().splitlines()[-1]
    assert name in found and "damaged" not in found


def test_images_of_one_pixel_pass_through_everything(tmp_path, hands):
    pixel = np.array([[[9, 99, 199]]], np.uint8)
    path = written(tmp_path / "one.png", pixel, "PNG", 6)
    np.testing.assert_array_equal(read_image(path), pixel)
    assert image_crops(tmp_path, 16).shape == (1, 3, 16, 16)
    assert hands(path, [[0, 0, 1, 1]], factor=1.0).vertices.shape == (1, 778, 3)


# ------------------------------------------------------------------------------------------- kinds of files and pixels


def smooth():
    """An image that survives JPEG, with its brightest spot in the box."""
    image = np.full((240, 320, 3), 60, np.uint8)
    cv2.circle(image, (160, 110), 12, (230, 230, 230), -1)
    return cv2.GaussianBlur(image, (0, 0), 4)


@pytest.mark.parametrize("kind", ["grey", "16-bit", "16-bit grey", "CMYK", "alpha", "grey with alpha", "palette"])
def test_files_of_every_kind_of_pixels_give_the_same_hand(tmp_path, hands, kind):
    image = smooth()
    pillow, deep = Image.fromarray(image), image.astype(np.uint16) * 257
    path = tmp_path / ("a.tif" if kind == "CMYK" else "a.png")
    if kind == "16-bit":
        cv2.imwrite(str(path), deep)
    elif kind == "16-bit grey":
        cv2.imwrite(str(path), deep[..., 0])
    elif kind == "palette":
        pillow.quantize(64).save(path)
    else:
        pillow.convert({"grey": "L", "CMYK": "CMYK", "alpha": "RGBA", "grey with alpha": "LA"}[kind]).save(path)
    found, truth = hands(path, [BOX]), hands(image, [BOX])
    np.testing.assert_allclose(found.keypoints_2d, truth.keypoints_2d, atol=13)  # the spot is flat: three crop pixels


def test_a_20_megapixel_image_with_an_orientation_is_read(tmp_path, hands):
    image = np.zeros((3648, 5472, 3), np.uint8)
    cv2.circle(image, (4000, 1500), 40, (255, 255, 255), -1)
    path = written(tmp_path / "a.jpg", image, "JPEG", 3)  # half a turn
    found = hands(path, [[1271, 1947, 1671, 2347]])
    assert np.abs(found.keypoints_2d[0].mean(0) - (5471 - 4000, 3647 - 1500)).max() < 40
    assert found.camera[2:4] == (2736, 1824)


@pytest.mark.parametrize(("form", "name"), [("JPEG", "a.jpg"), ("PNG", "a.png"), ("WEBP", "a.webp")])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5])
def test_truncated_files_are_one_clear_error(tmp_path, hands, form, name, share):
    content = encoded(RNG.integers(0, 255, (240, 320, 3), dtype=np.uint8), form)
    (tmp_path / name).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=rf"{name}: damaged image .* copy or download it again"):
        hands(tmp_path / name, [BOX])


@pytest.mark.parametrize(
    "image",
    [
        *(np.zeros((0, 0, 3), np.uint8), np.zeros((240, 320), np.uint8), np.zeros((240, 320, 1), np.uint8)),
        *(np.zeros((240, 320, 4), np.uint8), np.zeros((240, 320, 3), np.uint16), np.zeros((240, 320, 3), bool)),
        *(torch.zeros(1, 240, 320, dtype=torch.uint8), torch.zeros(3, 0, 320, dtype=torch.uint8)),
    ],
)
def test_arrays_of_other_channels_depths_or_without_pixels_are_one_clear_error(hands, image):
    with pytest.raises(ValueError, match=r"^the image is \(.*\) \w+; expected \(H, W, 3\) uint8, RGB"):
        hands(image, [BOX])


def test_a_camera_that_is_not_a_number_is_one_clear_error_for_a_file(tmp_path, hands):
    path = written(tmp_path / "a.png", smooth(), "PNG")
    with pytest.raises(ValueError, match=r"^camera is \[nan, nan, 160.0, 120.0\].*above 0"):
        hands(path, [BOX], camera=float("nan"))
