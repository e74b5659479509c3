"""The result of HandMesh: camera and projection, MANO's parameters, batches, one hand of several."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from encoded_images import written
from PIL import Image
from scipy.spatial.transform import Rotation
from test_predict import BOX, Finds, dark_with_a_spot

from fasthamer.camera import perspective_translation, project_pixels
from fasthamer.hand.mano import Hand
from fasthamer.hand.mano_files import read_hand_arrays
from fasthamer.predict import Camera, HandMesh
from fasthamer.students import build_student
from fasthamer.types import ManoParams

IMAGE = np.random.default_rng(2).integers(0, 255, (240, 320, 3), dtype=np.uint8)
OTHER = [200.0, 100.0, 280.0, 230.0]
K = [[700.0, 0, 120], [0, 910, 160], [0, 0, 1]]  # pixels are not square, the principal point is off the middle


@pytest.fixture(scope="module")
def curled():
    """The embedded hand whose mean pose is not zero, as MANO's is not."""
    arrays = read_hand_arrays("embedded")
    return Hand(arrays | {"hands_mean": np.random.default_rng(3).normal(0, 0.3, 45)}, "curled")


def student(hand, shape="upright", decoder="mano"):
    torch.manual_seed(1)
    return build_student("timm:test_resnet", decoder, "tiny", 64, hand=hand, box_shape=shape).eval()


@pytest.fixture(scope="module")
def hands(curled):
    return HandMesh(student(curled), device="cpu")


def projected(points, camera):
    """By the definition of a pinhole camera."""
    x, y, z = np.moveaxis(points, -1, 0)
    return np.stack((camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy), -1)


# ------------------------------------------------------------------------------------------------------------ camera


@pytest.mark.parametrize("camera", [None, 300.0, [800, 500, 300, 10], K])
@pytest.mark.parametrize("rotation", [0.0, 70.0])
def test_the_returned_camera_projects_the_joints_onto_the_keypoints(hands, camera, rotation):
    found = hands(IMAGE, [BOX, OTHER], [True, False], camera=camera, rotation=rotation)
    np.testing.assert_allclose(projected(found.joints_camera, found.camera), found.keypoints_2d, atol=1e-6)
    assert found.vertices_camera[..., 2].min() > 0
    np.testing.assert_array_equal(found.camera.matrix[:2, :2], np.diag([found.camera.fx, found.camera.fy]))
    for hand, own in zip(found, (BOX, OTHER), strict=True):
        np.testing.assert_allclose(
            projected(hand.vertices_camera, hand.camera).mean(0), np.reshape(own, (2, 2)).mean(0), atol=60
        )


def test_keypoints_stay_those_of_the_network_up_to_perspective():
    found = HandMesh(Finds(), device="cpu")(dark_with_a_spot(160, 110), [BOX])
    with_k = HandMesh(Finds(), device="cpu")(dark_with_a_spot(160, 110), [BOX], camera=K)
    size = np.ptp(found.keypoints_2d[0], axis=0).max()
    assert np.abs(found.keypoints_2d[0].mean(0) - (160, 110)).max() < 4
    assert np.linalg.norm(with_k.keypoints_2d - found.keypoints_2d, axis=-1).mean() < 0.2 * size


def test_the_translation_is_exact_where_points_and_pixels_agree():
    rng = np.random.default_rng(0)
    points, place = rng.normal(0, 0.05, (4, 21, 3)), np.array([[0.1, -0.2, 0.5], [0, 0, 1], [1, 1, 4], [-3, 0, 20]])
    pixels = project_pixels(points + place[:, None], np.array(K))
    np.testing.assert_allclose(perspective_translation(points, pixels, np.array(K)), place, atol=1e-9)


def test_noise_of_the_keypoints_does_not_draw_the_hand_nearer():
    rng = np.random.default_rng(0)
    points, place = rng.normal(0, 0.05, (400, 21, 3)), np.array([0.1, -0.2, 0.5])
    pixels = project_pixels(points + place, np.array(K))
    noisy = pixels + rng.normal(0, 15, pixels.shape)  # a fifth of the hand's spread
    depths = perspective_translation(points, noisy, np.array(K))[:, 2]
    assert np.median(depths) == pytest.approx(0.5, rel=0.02)


def test_a_hand_stays_in_front_of_the_camera_whatever_the_keypoints():
    rng = np.random.default_rng(0)
    points = rng.normal(0, 0.05, (50, 21, 3))
    for pixels in (
        rng.normal(0, 1e4, (50, 21, 2)),
        np.zeros((50, 21, 2)),
        -1e3 * points[..., :2],
        1e6 * points[..., :2],
    ):
        found = perspective_translation(points, pixels, np.array(K))
        assert np.isfinite(found).all() and (points[..., 2] + found[:, 2:] > 0.04).all()


def test_a_camera_is_one_number_four_or_intrinsics_and_metric():
    hands = HandMesh(Finds(), device="cpu")
    find = lambda camera: hands(IMAGE, [BOX], camera=camera).camera  # noqa: E731
    assert find(500) == Camera(500, 500, 160, 120, True)
    assert find((700, 910, 120, 160)) == find(np.array(K)) == find(torch.tensor(K)) == Camera(700, 910, 120, 160, True)
    assumed = find(None)
    assert assumed == Camera(5000 / 256 * 320, 5000 / 256 * 320, 160, 120, False)
    assert find(assumed) == assumed
    assert hands(IMAGE, [BOX], camera=500)[0].metric and not hands(IMAGE, [BOX])[0].metric
    assert hands(IMAGE, [BOX], camera=500).focal == 500


@pytest.mark.parametrize(
    "camera",
    [
        *(
            float("nan"),
            0,
            -500.0,
            float("inf"),
            "wide",
            [500, 500],
            [500, 500, np.nan, 3],
            [500, 0, 1, 1],
            [[1, 2], [3]],
        ),
        *(np.eye(4), np.full((3, 3), np.nan), [[500, 3, 160], [0, 500, 120], [0, 0, 1]], np.diag([500, 500, 2.0])),
        Camera(np.nan, 1, 1, 1, True),
    ],
)
def test_any_other_camera_is_one_clear_error(camera):
    with pytest.raises(ValueError, match=r"^camera (is|has shape) .*expected .*"):
        HandMesh(Finds(), device="cpu")(IMAGE, [BOX], camera=camera)


@pytest.mark.parametrize(("form", "mark"), [("JPEG", 1), ("JPEG", 6), ("PNG", 1), ("WEBP", 1)])
def test_a_focal_length_in_the_exif_data_makes_the_result_metric(tmp_path, form, mark):
    hands = HandMesh(Finds(), device="cpu")
    exif = Image.Exif()
    exif[0x0112] = mark
    exif.get_ifd(0x8769)[0xA405] = 26  # mm
    path = written(tmp_path / "a", IMAGE, form, exif=exif)
    for image in (path, str(path), Image.open(path)):
        found = hands(image, [[60, 60, 130, 130]])
        # The angle of view over the diagonal is that of 26 mm on 36 x 24 mm film; the image's is 400 pixels long.
        assert found.camera.fx == found.camera.fy == pytest.approx(26 / np.hypot(36, 24) * 400, rel=1e-3)
        assert found.camera.metric and found.camera.cx == (120 if mark == 6 else 160)
        assert hands(image, [[60, 60, 130, 130]], camera=900.0).camera.fx == 900


@pytest.mark.parametrize("value", [0, None])
def test_an_exif_focal_length_that_is_unknown_is_not_metric(tmp_path, value):
    exif = Image.Exif()
    exif[0x0112] = 1
    if value is not None:
        exif.get_ifd(0x8769)[0xA405] = value
    path = written(tmp_path / "a.jpg", IMAGE, "JPEG", exif=exif)
    assert not HandMesh(Finds(), device="cpu")(path, [BOX]).camera.metric


# -------------------------------------------------------------------------------------------------------------- MANO


def posed(hand, mano, right):
    """The mesh of MANO's parameters; a left hand as the mirror image of the right one with mirrored rotations."""
    flip = np.diag([1.0 if right else -1.0, 1, 1]).astype(np.float32)
    rotations = [torch.from_numpy(flip @ each @ flip)[None] for each in (mano.global_orient[None], mano.hand_pose)]
    vertices, _ = hand(ManoParams(*rotations, torch.from_numpy(mano.betas)[None]))
    return vertices[0].detach().numpy() @ flip


@pytest.mark.parametrize("rotation", [0.0, -110.0])
def test_the_parameters_give_the_vertices_for_both_sides_and_turned_crops(hands, curled, rotation):
    found = hands(IMAGE, [BOX, OTHER], [True, False], rotation=rotation)
    for hand in found:
        np.testing.assert_allclose(posed(curled, hand.mano, hand.right), hand.vertices, atol=1e-5)
    assert found.mano.axis_angle.shape == found.mano.mean_relative.shape == (2, 48)


def test_axis_angle_vectors_are_those_of_the_matrices_absolute_and_relative_to_the_mean(hands, curled):
    for hand in hands(IMAGE, [BOX, OTHER], [True, False], rotation=0.0):
        matrices = np.concatenate((hand.mano.global_orient[None], hand.mano.hand_pose))
        np.testing.assert_allclose(
            Rotation.from_rotvec(hand.mano.axis_angle.reshape(16, 3)).as_matrix(), matrices, atol=1e-5
        )
        mean = curled.hands_mean.reshape(15, 3) * ([1, 1, 1] if hand.right else [1, -1, -1])
        np.testing.assert_array_equal(hand.mano.mean_relative[:3], hand.mano.axis_angle[:3])
        np.testing.assert_allclose(hand.mano.mean_relative[3:] + mean.ravel(), hand.mano.axis_angle[3:], atol=1e-6)


def test_models_without_a_mano_readout_have_no_parameters():
    found = HandMesh(Finds(), device="cpu")(IMAGE, [BOX])
    assert found.mano is None and found[0].mano is None


# ----------------------------------------------------------------------------------------------------- several hands


def test_each_hand_is_a_result_with_its_side_and_outward_faces(hands):
    found = hands(IMAGE, [BOX, OTHER], [True, False], rotation=0.0)
    right, left = found
    assert (len(found), right.side, left.side, left.right, left.score) == (2, "right", "left", False, 1.0)
    np.testing.assert_array_equal(left.vertices_camera, found.vertices[1] + found.translation[1])
    np.testing.assert_array_equal(left.box, OTHER)
    np.testing.assert_array_equal(left.mano.betas, found.mano.betas[1])
    np.testing.assert_array_equal(found[-1].vertices, left.vertices)
    np.testing.assert_array_equal(found[1:].keypoints_2d, left.keypoints_2d[None])
    assert "left, score 1.00" in repr(found) and "right" in repr(found)
    for hand in found:  # the wrist is open: the signed volume of the rest is still that of the hand
        a, b, c = (hand.vertices - hand.vertices.mean(0))[hand.faces].swapaxes(0, 1)
        assert 5e-5 < (a * np.cross(b, c)).sum() / 6 < 1e-3  # cubic metres
    with pytest.raises(IndexError):
        found[2]


@pytest.mark.parametrize(
    "form", [list, tuple, np.stack, lambda images: torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)]
)
def test_a_batch_gives_what_its_images_give_one_by_one(hands, form):
    images = [np.roll(IMAGE, 40 * number, 1) for number in range(3)]
    boxes, right, rotation = [[BOX] * 9, [], [OTHER, BOX]], ["left", True, [True, False]], [0.0, 0.0, [30.0, 60.0]]
    batch = hands(form(images), boxes, right, rotation=rotation, camera=K)
    assert [len(each) for each in batch] == [9, 0, 2]
    for found, *each in zip(batch, images, boxes, right, rotation, strict=True):
        alone = hands(*each[:3], rotation=each[3], camera=K)
        np.testing.assert_allclose(found.vertices, alone.vertices, atol=1e-6)
        np.testing.assert_allclose(found.keypoints_2d, alone.keypoints_2d, atol=1e-2)
        np.testing.assert_array_equal(found.right, alone.right)


def test_the_crops_of_a_batch_go_through_the_model_together():
    model, sizes = Finds(), []
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    HandMesh(model, device="cpu")([IMAGE] * 10, [[BOX, OTHER]] * 10)
    assert sizes == [16, 4]
    assert HandMesh(model, device="cpu")([]) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"boxes": [[BOX]]}, "boxes is given for a batch of 2 images"),
        ({"boxes": [[BOX], [BOX]], "right": False}, "right is given for a batch of 2 images"),
        ({"boxes": [[BOX], [[5, 5, 5, 9]]]}, "image 1 of the batch: box 0 is"),
        ({"boxes": [[BOX], [BOX]], "rotation": 3.0}, "rotation is given for a batch"),
        ({"boxes": [[BOX], [BOX]], "camera": np.nan}, "image 0 of the batch: camera is"),
    ],
)
def test_options_that_do_not_fit_a_batch_are_explained(hands, options, message):
    with pytest.raises(ValueError, match=message):
        hands([IMAGE, IMAGE], **options)
    with pytest.raises(FileNotFoundError, match="image 1 of the batch: no image nowhere"):
        hands([IMAGE, "nowhere.jpg"], [[], []])


def test_the_package_itself_gives_hand_mesh_and_imports_nothing_before():
    code = """
        import sys, fasthamer
        assert not {"torch", "cv2", "numpy"} & set(sys.modules)
        from fasthamer import HandMesh
        assert HandMesh is sys.modules["fasthamer.predict"].HandMesh and "torch" not in sys.modules
        try:
            fasthamer.Hand
        except AttributeError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(line[8:] for line in code.splitlines())], capture_output=True
    )
    assert b"has no attribute 'Hand'" in done.stdout, done.stderr.decode()
