"""HandMesh on images: boxes, left hands, the image's camera, overlays."""

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from fasthamer.camera import project, weak_to_translation
from fasthamer.hand.mano import load_hand
from fasthamer.predict import HandMesh, open_model
from fasthamer.students import build_student, save_student
from fasthamer.tools import predict as predict_command
from fasthamer.types import HandOutput, ManoParams, View

IMAGE_SIZE = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
BOX = [100.0, 60.0, 200.0, 140.0]


class Finds(nn.Module):
    """A hand in rest pose whose place follows the brightest spot of the crop, so that crops differ."""

    image_size = 64
    view = View()

    def __init__(self):
        super().__init__()
        self.hand = load_hand("embedded")
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, image):
        count = len(image)
        eye = torch.eye(3).repeat(count, 16, 1, 1)
        vertices, joints = self.hand(ManoParams(eye[:, :1], eye[:, 1:], torch.zeros(count, 10)))
        peak = image.float().sum(1).flatten(1).argmax(1)
        spot = torch.stack((peak % 64, peak // 64), -1) / 64 - 0.5  # crop units
        scale = torch.full((count,), 5.0)
        camera = torch.cat((scale[:, None], 2 * spot / scale[:, None] - joints.mean(1)[:, :2]), -1)
        return HandOutput(vertices, joints, project(joints, weak_to_translation(camera)), camera, image)


@pytest.fixture
def hands():
    return HandMesh(Finds(), device="cpu")


def dark_with_a_spot(x, y):
    image = np.zeros((240, 320, 3), np.uint8)
    cv2.circle(image, (x, y), 5, (255, 255, 255), -1)
    return cv2.GaussianBlur(image, (0, 0), 3)


def test_keypoints_land_where_the_crop_was_taken_from(hands):
    found = hands(dark_with_a_spot(160, 110), [BOX])
    assert found.vertices.shape == (1, 778, 3) and found.joints.shape == (1, 21, 3)
    assert found.keypoints_2d[0].mean(0) == pytest.approx((160, 110), abs=4)  # a crop pixel is 4 pixels here


def test_the_images_camera_puts_the_joints_on_the_same_pixels(hands):
    found = hands(dark_with_a_spot(160, 110), [BOX])
    placed = found.joints[0] + found.translation[0]
    pixels = found.focal * placed[:, :2] / placed[:, 2:] + [160, 120]
    np.testing.assert_allclose(pixels, found.keypoints_2d[0], atol=1e-6)
    near = hands(dark_with_a_spot(160, 110), [BOX], camera=400.0)
    assert near.translation[0, 2] == pytest.approx(found.translation[0, 2] * 400 / found.focal, rel=0.1)
    np.testing.assert_allclose(near.keypoints_2d, found.keypoints_2d, atol=0.05 * 60)  # perspective within the hand


def test_a_left_hand_is_the_mirror_image_of_a_right_one(hands):
    image = dark_with_a_spot(170, 110)
    width = image.shape[1]
    mirrored_box = [width - 1 - BOX[2], BOX[1], width - 1 - BOX[0], BOX[3]]
    camera = [900.0, 900.0, (width - 1) / 2, 120.0]  # in the middle of the columns, about which mirroring turns
    right = hands(np.ascontiguousarray(image[:, ::-1]), [mirrored_box], right=True, camera=camera)
    left = hands(image, [BOX], right=False, camera=camera)
    np.testing.assert_allclose(left.vertices, right.vertices * [-1, 1, 1], atol=1e-6)
    np.testing.assert_allclose(left.joints, right.joints * [-1, 1, 1], atol=1e-6)
    mirrored = right.keypoints_2d * [-1, 1] + [width - 1, 0]
    np.testing.assert_allclose(left.keypoints_2d, mirrored, atol=1e-6)
    np.testing.assert_allclose(left.translation, right.translation * [-1, 1, 1], atol=1e-6)


def test_a_model_that_looks_at_a_part_of_the_crop_gets_that_part_in_its_own_size(hands):
    hands.model.view = View(-0.25, -0.25, 0.25, 0.25)
    sizes = []
    hands.model.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape[-1]))
    hands(IMAGE_SIZE, [BOX])
    assert sizes == [128]  # half of it is what the model works on: 64


def test_several_hands_keep_their_order_and_sides(hands):
    found = hands(IMAGE_SIZE, [BOX, [10, 10, 60, 70]], right=[True, False])
    assert found.right.tolist() == [True, False]
    rest = hands(IMAGE_SIZE, [BOX]).vertices[0]
    np.testing.assert_allclose(found.vertices[0], rest, atol=1e-6)
    np.testing.assert_allclose(found.vertices[1], rest * [-1, 1, 1], atol=1e-6)


def test_the_overlay_covers_the_hand_and_leaves_the_image(hands):
    dark = dark_with_a_spot(160, 110)
    before = dark.copy()
    found = hands(dark, [BOX], right=False)
    rendered = found.draw(dark)
    np.testing.assert_array_equal(dark, before)
    touched = np.argwhere((rendered != dark).any(-1))[:, ::-1]
    low, high = found.keypoints_2d[0].min(0), found.keypoints_2d[0].max(0)
    assert (touched.min(0) > low - 25).all() and (touched.max(0) < high + 25).all()
    assert np.ptp(touched, 0) == pytest.approx(high - low, abs=40)
    inside = rendered[(rendered != dark).any(-1)]
    assert np.median(inside.max(-1)) > 110  # lit from outside: a mesh turned inside out would be dark
    assert (found.draw(dark, skeleton=True) != dark).any()


def test_no_box_is_no_hand(hands):
    found = hands(IMAGE_SIZE, [])
    assert found.vertices.shape == (0, 778, 3) and found.keypoints_2d.shape == (0, 21, 2)
    np.testing.assert_array_equal(found.draw(IMAGE_SIZE), IMAGE_SIZE)


@pytest.mark.parametrize(
    ("image", "boxes", "right", "message"),
    [
        (IMAGE_SIZE[..., 0], [BOX], True, "expected .H, W, 3. uint8"),
        (IMAGE_SIZE / 255, [BOX], True, "float64"),
        (IMAGE_SIZE, BOX, True, "x1, y1, x2, y2"),
        (IMAGE_SIZE, [BOX, [5, 5, 5, 9]], True, "box 1 is"),
        (IMAGE_SIZE, [[0, 0, np.nan, 4]], True, "box 0 is"),
        (IMAGE_SIZE, [BOX], [True, False], "1 boxes but 2 values"),
        (IMAGE_SIZE, [BOX], ["links"], "'links' is no side: a hand is right .* or left"),
        (IMAGE_SIZE, [BOX], [2], "2 is no side"),
        (IMAGE_SIZE, [BOX], [0.93], "0.93 is no side"),  # a detector's score
        (IMAGE_SIZE, [BOX], [float("nan")], "nan is no side"),
        (IMAGE_SIZE, [BOX], None, "None is no side"),
        (IMAGE_SIZE, [BOX], [[True]], r"right has shape \(1, 1\)"),
    ],
)
def test_input_of_another_form_is_explained(hands, image, boxes, right, message):
    with pytest.raises(ValueError, match=message):
        hands(image, boxes, right)


@pytest.mark.parametrize("left", ["left", "Left", " LEFT ", "false", "0", False, 0, 0.0, np.False_, np.float32(0)])
def test_each_way_to_write_a_side_means_what_it_says(hands, left):
    right = {"left": "right", "Left": "Right", " LEFT ": " RIGHT ", "false": "true", "0": "1"}.get(left, 1)
    assert hands(IMAGE_SIZE, [BOX, BOX], right=[left, right]).right.tolist() == [False, True]
    assert hands(IMAGE_SIZE, [BOX, BOX], right=left).right.tolist() == [False, False]
    assert hands(IMAGE_SIZE, [BOX], right=np.array([left])).right.tolist() == [False]


def test_models_open_from_files_and_run_folders(tmp_path):
    path = tmp_path / "student.safetensors"
    save_student(path, build_student("timm:test_resnet", decoder_size="tiny", image_size=64), {})
    from_file, from_run = open_model(path), open_model(tmp_path)
    assert not from_file.training and not from_run.training
    assert HandMesh(path, device="cpu")(IMAGE_SIZE, [BOX]).vertices.shape == (1, 778, 3)
    with pytest.raises(FileNotFoundError, match=r"give mobilenetv3_l.*, embedded, hamer, wilor, a student"):
        open_model(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"student\.safetensors"):
        open_model(tmp_path.parent)


def test_the_command_writes_an_overlay(tmp_path, capsys):
    path, image, out = tmp_path / "student.safetensors", tmp_path / "image.png", tmp_path / "out.png"
    save_student(path, build_student("timm:test_resnet", decoder_size="tiny", image_size=64), {})
    cv2.imwrite(str(image), IMAGE_SIZE)
    given = [str(image), "--model", str(path), "--out", str(out), "--device", "cpu"]
    assert predict_command.main([*given, "--box", "100,60,200,140,left", "--box", "20,20,90,90"]) == 0
    assert cv2.imread(str(out)).shape == IMAGE_SIZE.shape
    assert "2 hand(s)" in capsys.readouterr().out
    lower = cv2.imread(str(out))
    assert predict_command.main([*given, "--box", "100,60,200,140, LEFT", "--box", "20,20,90,90,Right"]) == 0
    np.testing.assert_array_equal(cv2.imread(str(out)), lower)
    for wrong, message in (
        (["--box", "1,2,3"], "expected x1,y1,x2,y2"),
        (["--box", "1,2,3,4,middle"], "expected x1,y1,x2,y2"),
        (["--model", "nowhere"], "no model 'nowhere'"),
    ):
        with pytest.raises(SystemExit) as stop:
            predict_command.main([*given, *wrong])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
