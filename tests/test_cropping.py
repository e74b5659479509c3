"""Box shapes and blur: what the official code does where scores are compared, and as settings."""

import json

import cv2
import numpy as np
import pytest

from fasthamer.config import load_config
from fasthamer.data import crop
from fasthamer.data.augment import UNCHANGED
from fasthamer.data.build import build_dataset, training_spec
from fasthamer.data.crop import Cropping
from fasthamer.data.readers.folder import Folder
from fasthamer.data.sample import Labels, make_item
from fasthamer.data.synthetic.cached import CachedSyntheticDataset
from fasthamer.data.synthetic.dataset import SyntheticDataset
from fasthamer.distill import preparation, scoring
from fasthamer.files.images import write_image
from fasthamer.hand.mano import load_hand
from fasthamer.predict import HandMesh
from fasthamer.runtime.contract import Contract
from fasthamer.students import build_student, load_student, save_student
from fasthamer.students.files import student_metadata
from fasthamer.teachers import box_shape_for

SMALL = ["DATA.SYNTHETIC_SIZE", "4", "DATA.SYNTHETIC_EVAL_SIZE", "2", "DEVICE", "cpu"]


@pytest.fixture(scope="module")
def hand():
    return load_hand("embedded")


@pytest.fixture(scope="module")
def square(hand):
    return build_student("timm:test_resnet", "mano", "tiny", 64, hand=hand, box_shape="square").eval()


@pytest.fixture(scope="module")
def file(square, tmp_path_factory):
    path = tmp_path_factory.mktemp("square") / "student.safetensors"
    save_student(path, square, {})
    return path


@pytest.fixture
def noise(tmp_path):
    """A folder with one image of noise, 800 x 800, in which a box 400 wide and 200 high is listed."""
    image = np.random.default_rng(0).integers(0, 256, (800, 800, 3), np.uint8)
    write_image(tmp_path / "noise.png", image)
    (tmp_path / "boxes.csv").write_text("path,x,y,width,height,side\nnoise.png,200,300,400,200,right\n")
    return tmp_path, image


def test_a_square_box_has_the_larger_side_and_hamers_grows_to_three_by_four():
    wide = np.array([[0.0, 0.0], [60.0, 40.0]])  # twice as large: 120 x 80
    assert crop.keypoint_box(wide, "square")[1] == 120
    assert crop.keypoint_box(wide)[1] == 160  # 120 x 160 is 3:4
    assert crop.image_box(224, 224, "square")[1] == 224
    with pytest.raises(KeyError, match=r"box shape named 'sqare'.*square"):
        crop.box_side(np.ones(2), "sqare")


@pytest.mark.parametrize(("zoom", "differ"), [(1.0, False), (1.7, False), (0.5, False), (0.25, True)])
def test_blur_matters_only_where_the_image_shrinks_by_more_than_2_2_times(zoom, differ):
    image = np.random.default_rng(1).integers(0, 256, (256, 256, 3), np.uint8)
    affine = crop.crop_affine(np.array([128.0, 128.0]), 256 / zoom, 256)
    plain, blurred = crop.warp(image, affine, 256, blur=False), crop.warp(image, affine, 256)
    assert np.array_equal(plain, cv2.warpAffine(image, affine, (256, 256), flags=cv2.INTER_LINEAR))
    assert np.array_equal(plain, blurred) is not differ


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["DATA.NAME", "synthetic", "DATA.BOX", "detectr"], r"DATA\.BOX is 'detectr', expected keypoints, detector"),
        (["DATA.NAME", "coco", "DATA.BOX", "image"], r"DATA\.BOX image is for freihand, dexycb, ho3d; coco ignores it"),
        (["DATA.NAME", "synthetic", "DATA.BOX", "ho3d_val.npz"], "synthetic ignores it"),
    ],
)
def test_a_box_that_would_be_ignored_is_refused(embedded, settings, message):
    with pytest.raises(ValueError, match=message):
        build_dataset(load_config(None, settings), embedded, train=True)


def test_a_box_of_the_evaluation_set_alone_is_taken(tmp_path):
    evaluated = ["DATA.EVAL_NAME", "freihand", "DATA.EVAL_ROOT", str(tmp_path)]
    assert training_spec(load_config(None, ["DATA.NAME", "coco", *evaluated, "DATA.BOX", "image"])).box == "image"


def test_datasets_crop_as_hamers_training_and_evaluation_and_otherwise_as_asked(noise):
    root, image = noise
    middle = np.array([400.0, 400.0])
    for cropping, side in (
        (Cropping(), 800 * 4 / 3),
        (Cropping("square"), 800),
        (Cropping("hamer", True), 800 * 4 / 3),
    ):
        item = Folder(root, "training", 128, cropping=cropping)[(0, 0)]
        expected = crop.warp(image, crop.crop_affine(middle, side, 128), 128, cropping.blur)
        assert np.array_equal(item.image.numpy(), expected.transpose(2, 0, 1)), cropping
    assert not np.array_equal(
        make_item(image, Labels(), crop.Box(middle, 800.0), 128, 0).image,
        make_item(image, Labels(), crop.Box(middle, 800.0), 128, 0, blur=True).image,
    )


def test_the_settings_reach_every_dataset_of_images(noise, hand):
    root, _ = noise
    keys = ["DATA.NAME", "folder", "DATA.ROOT", str(root), "DATA.BOX_SHAPE", "square", "DATA.BLUR", "true"]
    dataset = build_dataset(load_config(None, keys), hand, train=False)
    assert dataset.cropping == Cropping("square", True)
    assert training_spec(load_config()).cropping == Cropping("hamer", False)
    with pytest.raises(KeyError, match=r"DATA\.BOX_SHAPE named 'oblong'"):
        training_spec(load_config(None, ["DATA.BOX_SHAPE", "oblong"]))


def test_synthetic_images_have_the_shape_too_and_a_folder_of_others_is_refused(hand, tmp_path):
    boxes = {shape: SyntheticDataset(hand, 2, 0, 64, 0.0, 0.0, shape) for shape in ("hamer", "square")}
    CachedSyntheticDataset(boxes["hamer"], tmp_path, UNCHANGED)
    assert "shape" not in json.loads((tmp_path / "about.json").read_text())  # as in older folders
    with pytest.raises(ValueError, match="holds images of another set"):
        CachedSyntheticDataset(boxes["square"], tmp_path, UNCHANGED)
    frames = [each.frame(np.random.default_rng(0), each.hand(0).joints) for each in boxes.values()]
    pixels = [frame.project(boxes["hamer"].hand(0).joints) for frame in frames]
    extents = [np.ptp(each, axis=0) for each in pixels]
    assert extents[1].max() == pytest.approx(32)  # half the crop, whichever side is larger
    assert extents[0][1] / 32 == pytest.approx(1) or extents[0][0] / 24 == pytest.approx(1)


def test_a_student_keeps_its_shape_in_its_file_and_older_files_are_hamers(file, hand, tmp_path):
    assert load_student(file).box_shape == "square" == box_shape_for(str(file))
    other = build_student("timm:test_resnet", "mano", "tiny", 64, hand=hand)
    save_student(tmp_path / "student.safetensors", other, {})
    assert "box_shape" not in student_metadata(tmp_path / "student.safetensors")["student"]
    assert load_student(tmp_path / "student.safetensors").box_shape == "hamer"
    assert [box_shape_for(name) for name in ("hamer", "embedded", "any.ckpt")] == ["hamer", "upright", "square"]


def test_hand_mesh_crops_in_the_models_shape(square, hand):
    hamers = build_student("timm:test_resnet", "mano", "tiny", 64, hand=hand).eval()
    hamers.load_state_dict(square.state_dict())
    image = np.random.default_rng(2).integers(0, 256, (300, 300, 3), np.uint8)
    box = [[100, 100, 160, 140]]
    found = HandMesh(square)(image, box, factor=2.0)  # a side of 120
    expected = HandMesh(hamers)(image, box, factor=1.5)  # 60 * 1.5 * 4 / 3 = 120
    np.testing.assert_allclose(found.vertices, expected.vertices, atol=1e-6)
    np.testing.assert_allclose(found.keypoints_2d, expected.keypoints_2d, atol=1e-3)
    assert square.deploy().box_shape == "square"


def test_an_exported_file_holds_the_shape_and_older_ones_are_hamers():
    contract = Contract(64, (0, 0, 1, 1), ("camera",), "fp32", "", "MANO", None, (0, 0, 0), (1, 1, 1), "square")
    text = contract.to_json()
    assert Contract.from_json(text, "x.onnx").box_shape == "square"
    older = {key: value for key, value in json.loads(text).items() if key != "box_shape"}
    assert Contract.from_json(json.dumps(older), "x.onnx").box_shape == "hamer"


def test_evaluation_and_training_take_the_models_shape_unless_one_is_set(file, tmp_path):
    for keys, shape in (([], "square"), (["DATA.BOX_SHAPE", "hamer"], "hamer")):
        cfg = load_config(None, [*SMALL, *keys])
        evaluation = scoring.prepare(cfg, scoring.open_for_scoring(cfg, str(file), None), "mine", "auto", "auto")
        assert evaluation.dataset.shape == shape
    student = ["STUDENT.NAME", "timm:test_resnet", "STUDENT.DECODER_SIZE", "tiny", "STUDENT.IMAGE_SIZE", "64"]
    student += ["STUDENT.PRETRAINED", "false", "KD.MODE", "none"]
    for keys, shape in (
        ([], "upright"),  # the embedded teacher's
        (["STUDENT.INIT", str(file)], "square"),
        (["TEACHER.NAME", str(file)], "square"),
        (["STUDENT.INIT", str(file), "DATA.BOX_SHAPE", "hamer"], "hamer"),
    ):
        prepared = preparation.prepare(load_config(None, [*SMALL, *student, *keys]), tmp_path / "run")
        assert prepared.images.shape == prepared.held_out.shape == prepared.cfg.DATA.BOX_SHAPE == shape
        assert prepared.trainer.learner.student.box_shape == shape
