"""A teacher cache of a student with another box shape: the teacher sees its own crops, its outputs are moved."""

import pytest
import torch
from miniatures_2d import write_coco
from torch import nn
from torch.utils.data import default_collate

from fasthamer.camera import fit_weak_camera
from fasthamer.config import load_config
from fasthamer.data.build import build_training_set, training_set_of, training_spec
from fasthamer.distill.teacher_cache import cached_teacher
from fasthamer.types import Batch, HandOutput, View


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coco")
    write_coco(folder)
    return folder


def config(root, folder, shape, *more):
    keys = ["DATA.NAME", "coco", "DATA.ROOT", str(root), "DATA.BOX_SHAPE", shape]
    keys += [
        "IMAGE_SIZE",
        "64",
        "DATA.WORKERS",
        "0",
        "TEACHER.CACHE",
        str(folder),
        "AUGMENT.ROTATION_PROBABILITY",
        "1.0",
    ]
    return load_config(None, [*keys, *more])


class Labelled(nn.Module):
    """Finds each image among the items of a dataset and outputs `exact` of that item; the image is its feature map."""

    image_size, view, feature_channels, precision = 64, View(), 3, "fp32"

    def __init__(self, items, hand, shape):
        super().__init__()
        self.items, self.hand, self.box_shape = items, hand, shape
        self.weight = nn.Parameter(torch.zeros(1), requires_grad=False)

    @property
    def model(self):
        return self

    def forward(self, image):
        same = [[bool(torch.equal(each, item.image)) for item in self.items] for each in image]
        assert all(any(row) for row in same), "the teacher was given a crop of another shape"
        return exact([self.items[row.index(True)] for row in same])


def exact(items):
    """The keypoints, and a flat hand through them with a palm of 10 cm: turned with the crop, of a size of its own."""
    batch = Batch(*default_collate(items))
    points = batch.keypoints_2d[..., :2]
    flat = (points - points[:, :1]) / (points[:, 9] - points[:, 0]).norm(dim=1)[:, None, None] / 10
    joints = nn.functional.pad(flat, (0, 1))
    vertices = joints.repeat(1, 38, 1)[:, :778]
    return HandOutput(vertices, joints, points, fit_weak_camera(joints, points), batch.image.float())


def opened(root, folder, hand, student, teacher):
    """The cache of a teacher of one shape for a student of another, complete; and the student's items of two epochs."""
    cfg = config(root, folder, student)
    images = build_training_set(cfg, hand)
    spec = training_spec(cfg)
    seen = training_set_of(spec._replace(strength=None, cropping=spec.cropping._replace(shape=teacher)), hand)
    items = [seen[(0, index)] for index in range(len(seen))]
    cached, images = cached_teacher(cfg, Labelled(items, hand, teacher), hand, images, keeps_maps=False)
    cached.build(batch=4, workers=0, report=lambda line: None)
    return cached, [images[(epoch, index)] for epoch in (0, 1) for index in range(len(images))]


@pytest.mark.parametrize(("student", "teacher"), [("upright", "hamer"), ("hamer", "upright"), ("square", "hamer")])
def test_a_teacher_sees_crops_of_its_own_shape_and_its_outputs_move_to_the_students(
    embedded, root, tmp_path, student, teacher
):
    cached, items = opened(root, tmp_path, embedded, student, teacher)
    assert {float(item.mirrored) for item in items} == {0.0, 1.0}
    recalled, expected = cached.recall(Batch(*default_collate(items))), exact(items)
    torch.testing.assert_close(recalled.keypoints_2d, expected.keypoints_2d, atol=2e-5, rtol=0)
    relative = recalled.joints - recalled.joints[:, :1]
    torch.testing.assert_close(relative, expected.joints, atol=1e-5, rtol=0)
    torch.testing.assert_close(recalled.camera, expected.camera, atol=1e-4, rtol=1e-4)


def test_one_cache_serves_students_of_every_shape(embedded, root, tmp_path):
    opened(root, tmp_path, embedded, "hamer", "hamer")
    files = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    for student in ("square", "upright"):
        opened(root, tmp_path, embedded, student, "hamer")
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == files


def test_feature_maps_do_not_move_so_they_are_of_the_students_crops(embedded, root, tmp_path):
    still = ("AUGMENT.SCALE", "0.0", "AUGMENT.ROTATION", "0.0", "AUGMENT.SHIFT", "0.0", "AUGMENT.COLOUR", "0.0")
    cfg = config(root, tmp_path, "upright", *still)
    images = build_training_set(cfg, embedded)
    items = [images[(0, index)] for index in range(len(images))]
    cached, _ = cached_teacher(cfg, Labelled(items, embedded, "hamer"), embedded, images, keeps_maps=True)
    cached.build(batch=4, workers=0, report=lambda line: None)
    features = cached.recall(Batch(*default_collate(items))).features
    torch.testing.assert_close(features, torch.stack([item.image for item in items]).float(), atol=0.1, rtol=0)
    with pytest.raises(ValueError, match="feature maps can be cached only for crops that are not turned"):
        cfg = config(root, tmp_path / "other", "upright")
        cached_teacher(cfg, Labelled(items, embedded, "hamer"), embedded, build_training_set(cfg, embedded), True)
