"""Upright boxes: turned so that the middle knuckle is straight above the wrist, in every dataset and in HandMesh."""

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from fasthamer.camera import project_pixels
from fasthamer.config import load_config
from fasthamer.data import crop
from fasthamer.data.augment import Augmentation, Strength
from fasthamer.data.readers.boxes import Boxes
from fasthamer.data.readers.tar_record import read_record, write_record
from fasthamer.data.sample import Labels, make_item
from fasthamer.data.synthetic.cached import CachedSyntheticDataset
from fasthamer.data.synthetic.dataset import SyntheticDataset
from fasthamer.distill import scoring
from fasthamer.files.images import write_image
from fasthamer.hand.conventions import MIDDLE_KNUCKLE, WRIST
from fasthamer.hand.rotation import axis_angle_to_matrix
from fasthamer.predict import HandMesh
from fasthamer.students import build_student, load_student, save_student
from fasthamer.tools import predict as predict_command
from fasthamer.types import HandOutput, ManoParams, View

BLANK = np.zeros((240, 320, 3), np.uint8)
ONE = np.ones((21, 1))


def axis(angle, **confidence):
    """Keypoints (21, 3) of a hand whose middle knuckle lies 30 pixels from its wrist, `angle` clockwise from up."""
    points = np.random.default_rng(0).uniform(80, 160, (21, 2))
    points[WRIST] = 120, 130
    points[MIDDLE_KNUCKLE] = points[WRIST] + 30 * np.array([np.sin(np.radians(angle)), -np.cos(np.radians(angle))])
    known = np.ones(21)
    known[[WRIST, MIDDLE_KNUCKLE]] = confidence.get("wrist", 1), confidence.get("knuckle", 1)
    return np.column_stack((points, known))


def about(points, pivot, degrees):
    """(N, 2) points of an image turned clockwise as seen, x right and y down."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return (points - pivot) @ np.array([[cos, sin], [-sin, cos]]) + pivot


def knuckle_direction(keypoints_2d):
    """Degrees clockwise from up of the middle knuckle as seen from the wrist, in a crop."""
    x, y = (keypoints_2d[MIDDLE_KNUCKLE, :2] - keypoints_2d[WRIST, :2]).tolist()
    return np.degrees(np.arctan2(x, -y))


@pytest.mark.parametrize("angle", [0, 90, -90, 37.5, -160])
def test_the_rotation_of_a_hand_is_the_direction_of_its_middle_knuckle(angle):
    assert crop.upright_rotation(axis(angle)) == pytest.approx(angle)


def test_a_hand_whose_direction_is_unknown_is_not_turned():
    for unknown in (axis(50, wrist=0), axis(50, knuckle=0)):
        assert crop.upright_rotation(unknown) == 0 == crop.hand_box(unknown, "upright").rotation
    both = axis(50)
    both[MIDDLE_KNUCKLE] = both[WRIST]
    assert crop.upright_rotation(both) == 0
    assert crop.hand_box(axis(50), "square").rotation == 0 == crop.shape_rotation("upright", None)


def test_the_box_turns_with_its_hand_about_any_point():
    flat = axis(0)
    tight = crop.hand_box(flat, "upright")
    assert tight.rotation == 0 and tight.side == pytest.approx(2 * np.ptp(flat[:, :2], axis=0).max())
    turned = np.column_stack((about(flat[:, :2], (10.0, 20.0), 65), np.ones(21)))
    box = crop.hand_box(turned, "upright")
    assert box.rotation == pytest.approx(65) and box.side == pytest.approx(tight.side)
    np.testing.assert_allclose(box.centre, about(tight.centre[None], (10.0, 20.0), 65)[0])


def rotated_hand(hand, degrees, left=False):
    """Labels of a hand turned by `degrees` in the image of a camera with its principal point at (110, 118)."""
    rng = np.random.default_rng(1)
    pose = np.vstack(([[0.3, 0.2, 0.1]], rng.normal(0, 0.2, (15, 3)))).astype(np.float32)
    rotations = axis_angle_to_matrix(torch.from_numpy(pose))[None]
    rotations[:, 0] = (
        torch.from_numpy(cv2.Rodrigues(np.array([0, 0, np.radians(degrees)]))[0]).float() @ rotations[:, 0]
    )
    pose[0] = cv2.Rodrigues(rotations[0, 0].double().numpy())[0][:, 0]
    vertices, joints = hand(ManoParams(rotations[:, :1], rotations[:, 1:], torch.zeros(1, 10)))
    place = np.array([0.0, 0.0, 0.7]) - joints[0].mean(0).numpy()
    camera = np.array([[500.0, 0, 110], [0, 500.0, 118], [0, 0, 1]])
    joints, vertices = joints[0].numpy() + place, vertices[0].numpy() + place
    if left:
        joints, vertices, pose = crop.mirror_points(joints), crop.mirror_points(vertices), crop.mirror_axis_angle(pose)
    return Labels(
        np.hstack((project_pixels(joints, camera), ONE)), np.hstack((joints, ONE)), vertices, pose, np.zeros(10)
    )


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("degrees", [0, 70, -125])
def test_upright_items_are_the_same_however_the_hand_is_turned_and_augmentation_turns_them_from_there(
    embedded, degrees, left
):
    labels, still = rotated_hand(embedded, degrees, left), rotated_hand(embedded, 0)
    item = make_item(BLANK, labels, crop.hand_box(labels.keypoints, "upright"), 64, 0, left=left)
    expected = make_item(BLANK, still, crop.hand_box(still.keypoints, "upright"), 64, 0)
    assert knuckle_direction(item.keypoints_2d) == pytest.approx(0, abs=1e-3)
    for name in ("keypoints_2d", "joints", "vertices", "global_orient", "hand_pose"):
        torch.testing.assert_close(getattr(item, name), getattr(expected, name), atol=2e-6, rtol=0, msg=name)
    vertices, joints = embedded(ManoParams(item.global_orient[None], item.hand_pose[None], item.betas[None]))
    torch.testing.assert_close(item.vertices - item.joints[0, :3], vertices[0] - joints[0, 0], atol=2e-6, rtol=0)
    change = Augmentation(rotation=20.0)
    jittered = make_item(BLANK, labels, crop.hand_box(labels.keypoints, "upright"), 64, 0, change, left=left)
    assert knuckle_direction(jittered.keypoints_2d) == pytest.approx(-20, abs=1e-3)


@pytest.mark.parametrize("left", [False, True])
def test_the_upright_crop_shows_the_image_where_its_keypoints_say(left):
    keypoints = axis(110)
    x, y = keypoints[5, :2]
    image = np.zeros((240, 320, 3), np.uint8)
    cv2.circle(image, (round(x * 16), round(y * 16)), 80, (255, 255, 255), -1, cv2.LINE_AA, shift=4)
    item = make_item(image, Labels(keypoints), crop.hand_box(keypoints, "upright"), 128, 0, left=left)
    v, u = np.nonzero(item.image[0].numpy() > 127)
    shown = np.array([u.mean(), v.mean()]) / 128 - 0.5
    np.testing.assert_allclose(shown, item.keypoints_2d[5, :2].numpy(), atol=1 / 128)


def test_synthetic_hands_are_rendered_as_if_their_crop_were_turned(embedded):
    plain, upright = (SyntheticDataset(embedded, 4, 0, 64, 0.0, 0.0, shape) for shape in ("square", "upright"))
    for index in range(4):
        before, after, item = plain.hand(index), upright.hand(index), upright[(0, index)]
        pixels = np.hstack((before.joints[:, :2] / before.joints[:, 2:] * 1000.0, ONE))
        box = crop.hand_box(pixels, "upright")
        affine = crop.crop_affine(box.centre, box.side, 64, box.rotation)
        expected = crop.to_crop_units(crop.transform(affine, pixels[:, :2]), 64)
        np.testing.assert_allclose(item.keypoints_2d[:, :2], expected, atol=1e-4)
        assert knuckle_direction(item.keypoints_2d) == pytest.approx(0, abs=1e-2)
        vertices, joints = upright.poser(np.concatenate([item.global_orient, item.hand_pose]), item.betas.numpy())
        np.testing.assert_allclose(item.vertices - item.joints[0, :3], vertices - joints[0], atol=2e-6)
        np.testing.assert_allclose(after.vertices[:, 2], before.vertices[:, 2], atol=1e-6)  # depths stay


def test_synthetic_hands_are_jittered_around_upright_by_augmentations_rotation(embedded, tmp_path):
    strength = Strength(0.0, 30.0, 1.0, 0.0, 0.0)
    rendered = SyntheticDataset(embedded, 1, 0, 64, 0.0, 0.0, "upright", 30.0, 1.0)
    kept = CachedSyntheticDataset(SyntheticDataset(embedded, 1, 0, 64, 0.0, 0.0, "upright"), tmp_path, strength)
    for dataset in (rendered, kept):
        items = [dataset[(epoch, 0)] for epoch in range(6)]
        found = np.array([knuckle_direction(item.keypoints_2d) for item in items])
        assert np.ptp(found) > 5 and np.abs(found).max() <= 60.1, dataset  # two standard deviations
        between = torch.from_numpy(crop.turn_matrix(found[0] - found[1])[:2, :2]).float()
        one, other = (item.keypoints_2d[:, :2] for item in items[:2])
        torch.testing.assert_close(one @ between.mT, other, atol=1e-5, rtol=0)  # about the middle, which stays


class Traced(nn.Module):
    """A flat hand whose pose is a fixed function of the crop, with joints that its camera projects exactly."""

    image_size, view, box_shape = 64, View(), "upright"

    def __init__(self, hand):
        super().__init__()
        self.hand, self.weight = hand, nn.Parameter(torch.zeros(1))
        rng = np.random.default_rng(3)
        self.vertices = torch.from_numpy(rng.normal(0, 0.05, (778, 3)) * [1, 1, 0]).float()

    def forward(self, image):
        bright = image.float().mean(1)
        grid = torch.arange(64.0) / 64 - 0.5
        total = bright.sum((1, 2))
        spot = torch.stack((bright.sum(1) @ grid, bright.sum(2) @ grid), -1) / total[:, None]
        vertices = self.vertices.repeat(len(image), 1, 1)
        joints = vertices[:, :21]
        scale = 4 + 1e-3 * total[:, None] / 64**2
        camera = torch.cat((scale, 2 * spot / scale), -1)
        return HandOutput(vertices, joints, (joints[..., :2] + camera[:, None, 1:]) * scale[:, None] / 2, camera, image)


def spots(width=320, height=240):
    image = np.zeros((height, width, 3), np.uint8)
    for x, y, radius in ((150, 110, 9), (175, 95, 5), (165, 130, 3)):
        cv2.circle(image, (x, y), radius, (255, 255, 255), -1)
    return cv2.GaussianBlur(image, (0, 0), 2)


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("rotation", [0.0, 35.0, -140.0])
def test_the_returned_translation_projects_the_joints_onto_the_keypoints(embedded, rotation, right):
    hands = HandMesh(Traced(embedded), device="cpu")
    found = hands(spots(), [[120, 70, 200, 150]], right, rotation=rotation)
    placed = found.joints[0] + found.translation[0]
    pixels = found.focal * placed[:, :2] / placed[:, 2:] + [160, 120]
    np.testing.assert_allclose(pixels, found.keypoints_2d[0], atol=1e-3)


def turned_quarter(image, box):
    """An image and a box in it, turned clockwise by a quarter; exact to the pixel."""
    x1, y1, x2, y2 = box
    last = image.shape[0] - 1
    return np.ascontiguousarray(np.rot90(image, -1)), [last - y2, x1, last - y1, x2]


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("rotation", [0.0, 50.0])
def test_turning_the_image_and_saying_so_turns_a_students_answer(embedded, rotation, right):
    torch.manual_seed(0)
    model = build_student("timm:test_resnet", "mano", "tiny", 64, hand=embedded, box_shape="upright").eval()
    hands, box = HandMesh(model, device="cpu"), [120, 70, 200, 150]
    image = np.random.default_rng(1).integers(0, 256, (240, 320, 3), np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 4)
    before = hands(image, [box], right, rotation=rotation)
    image, box = turned_quarter(image, box)
    after = hands(image, [box], right, rotation=rotation + 90)
    quarter = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])  # x to y: clockwise, since y is down
    for name in ("vertices", "joints"):  # about the wrist, as MANO's parameters turn a hand
        here, there = (getattr(found, name) - found.joints[:, :1] for found in (before, after))
        np.testing.assert_allclose(there, here @ quarter.T, atol=1e-3)
    np.testing.assert_allclose(after.joints[:, 0], before.joints[:, 0], atol=1e-3)
    keypoints = before.keypoints_2d[0]
    np.testing.assert_allclose(after.keypoints_2d[0], np.stack((239 - keypoints[:, 1], keypoints[:, 0]), 1), atol=0.5)
    assert np.abs(hands(image, [box], right).vertices - after.vertices).max() > 1e-3  # the crop did turn


@pytest.mark.parametrize(("rotation", "message"), [([1.0, 2.0], "1 boxes"), (np.nan, "degrees"), ([[1.0]], "degrees")])
def test_rotations_of_another_form_are_refused(embedded, rotation, message):
    with pytest.raises(ValueError, match=message):
        HandMesh(Traced(embedded), device="cpu")(spots(), [[120, 70, 200, 150]], rotation=rotation)


def test_a_model_whose_boxes_do_not_turn_refuses_rotations(embedded):
    model = Traced(embedded)
    model.box_shape = "square"
    hands = HandMesh(model, device="cpu")
    with pytest.raises(ValueError, match=r"boxes are square and do not turn"):
        hands(spots(), [[120, 70, 200, 150]], rotation=10.0)
    assert len(hands(spots(), [[120, 70, 200, 150]], rotation=0.0).vertices) == 1


def record(keypoints):
    """A hand as HaMeR's tars hold it, with a stored box of 100 pixels around (140, 120)."""
    return write_record(Labels(keypoints), crop.Box(np.array([140.0, 120.0]), 100.0), False, "x")


def test_tars_have_the_keypoints_box_where_all_are_known_and_else_turn_the_stored_one():
    (whole,) = read_record(record(axis(40)), "x", None, "upright")
    expected = crop.hand_box(axis(40), "upright")
    assert whole.box.rotation == pytest.approx(40, abs=1e-4) and whole.box.side == pytest.approx(expected.side)
    np.testing.assert_allclose(whole.box.centre, expected.centre, atol=1e-4)
    partial = axis(40)
    partial[3, 2] = 0
    (turned,) = read_record(record(partial), "x", None, "upright")
    assert turned.box.centre.tolist() == [140, 120] and turned.box.side == pytest.approx(100)
    assert turned.box.rotation == pytest.approx(40, abs=1e-4)
    (unknown,) = read_record(record(axis(40, wrist=0)), "x", None, "upright")
    assert unknown.box.rotation == 0 == read_record(record(axis(40)), "x", None, "square")[0].box.rotation


def test_listed_boxes_and_whole_images_turn_where_the_keypoints_are_known(tmp_path):
    image = tmp_path / "a.png"
    write_image(image, BLANK)
    np.savez(tmp_path / "list.npz", imgname=["a"], center=[[50.0, 60.0]], scale=[[30.0, 40.0]])
    for choice, side in (("image", 320), (str(tmp_path / "list.npz"), 40)):
        boxes = Boxes(choice, "upright")
        assert boxes(image, "a", None).rotation == 0
        box = boxes(image, "a", axis(40))
        assert box.rotation == pytest.approx(40) and box.side == side
    corners = np.array([[10.0, 20.0], [60.0, 50.0]])
    box = Boxes("keypoints", "upright")(image, "a", axis(40), corners)
    assert box.centre.tolist() == [35, 35] and box.side == 100 and box.rotation == pytest.approx(40)


def test_a_student_of_upright_boxes_is_evaluated_and_exported_with_them(embedded, tmp_path):
    student = build_student("timm:test_resnet", "mano", "tiny", 64, hand=embedded, box_shape="upright").eval()
    save_student(tmp_path / "student.safetensors", student, {})
    assert load_student(tmp_path / "student.safetensors").deploy().box_shape == "upright"
    keys = ["DATA.SYNTHETIC_EVAL_SIZE", "1", "DEVICE", "cpu", "IMAGE_SIZE", "64"]
    cfg = load_config(None, keys)
    model = scoring.open_for_scoring(cfg, str(tmp_path / "student.safetensors"), None)
    evaluation = scoring.prepare(cfg, model, "mine", "auto", "auto")
    assert knuckle_direction(evaluation.dataset[(0, 0)].keypoints_2d) == pytest.approx(0, abs=1e-2)


def test_the_command_takes_a_rotation_for_each_box(embedded, tmp_path, capsys):
    student = build_student("timm:test_resnet", "mano", "tiny", 64, hand=embedded, box_shape="upright").eval()
    save_student(tmp_path / "student.safetensors", student, {})
    write_image(tmp_path / "a.png", spots())
    out = tmp_path / "out.png"
    options = [str(tmp_path / "a.png"), "--model", str(tmp_path), "--device", "cpu", "--out", str(out)]
    assert predict_command.main([*options, "--box", "120,70,200,150", "--rotation", "-30"]) == 0 and out.is_file()
    with pytest.raises(SystemExit):
        predict_command.main([*options, "--box", "120,70,200,150", "--rotation", "1", "--rotation", "2"])
    assert "rotation is [1.0, 2.0] for 1 boxes" in capsys.readouterr().err
