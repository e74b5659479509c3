"""Training on the stored maps of frozen stages: the same student, without images."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from miniatures_images import ImageDataset

from fasthamer.config import load_config
from fasthamer.data.stored import StoredSamples
from fasthamer.distill.frozen_backbone import FrozenBackbone
from fasthamer.distill.preparation import prepare
from fasthamer.distill.run import execute
from fasthamer.nn.normalise import Normalise
from fasthamer.students import Student, build_student, load_student
from fasthamer.students.backbone import Backbone
from fasthamer.students.split_backbone import FrozenStages, TrainedStages
from fasthamer.teachers.cache.manifest import cache_key
from fasthamer.teachers.teacher import Teacher

SETTINGS = {
    "STUDENT.NAME": "timm:test_resnet",
    "STUDENT.BACKBONE_FILE": "",
    "STUDENT.FREEZE": "5",
    "STUDENT.DECODER_SIZE": "tiny",
    "STUDENT.IMAGE_SIZE": "64",
    "IMAGE_SIZE": "64",
    "DATA.SYNTHETIC_SIZE": "6",
    "DATA.SYNTHETIC_EVAL_SIZE": "2",
    "DATA.LABELLED": "0.5",
    "DATA.WORKERS": "0",
    "TEACHER.CACHE_VIEWS": "2",
    "TRAIN.STEPS": "6",
    "TRAIN.BATCH": "4",
    "TRAIN.WARMUP": "0",
    "TRAIN.LOG_EVERY": "1",
}


def config(tmp_path, mode: str, **changes: str):
    own = {"KD.MODE": mode, "DATA.SYNTHETIC_FOLDER": str(tmp_path / "images")}
    if mode != "none":
        own["TEACHER.CACHE"] = str(tmp_path / "teacher")
    settings = SETTINGS | own | {key.replace("__", "."): value for key, value in changes.items()}
    return load_config("quickstart", [each for pair in settings.items() for each in pair])


def losses(run) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["total"] for line in lines if line["phase"] == "train"]


@pytest.mark.parametrize(("mode", "stages"), [("output", "5"), ("hybrid", "3")])
def test_with_a_teacher_the_stored_maps_train_the_same_student_as_the_images(tmp_path, mode, stages):
    maps = str(tmp_path / "maps")
    execute(prepare(config(tmp_path, mode, STUDENT__FREEZE=stages), tmp_path / "images_run"), shown=1)
    execute(
        prepare(config(tmp_path, mode, STUDENT__FREEZE=stages, STUDENT__CACHE=maps), tmp_path / "maps_run"), shown=1
    )
    assert losses(tmp_path / "maps_run") == pytest.approx(losses(tmp_path / "images_run"), rel=5e-3)  # maps in fp16
    images, stored = (load_student(tmp_path / run / "student.safetensors") for run in ("images_run", "maps_run"))
    for (name, one), other in zip(images.state_dict().items(), stored.state_dict().values(), strict=True):
        if name.startswith("backbone.") and stages == "5":
            assert torch.equal(one, other), name
        elif one.is_floating_point() and "running_" not in name:
            torch.testing.assert_close(one, other, atol=0.02, rtol=0.02, msg=name)


def test_without_a_teacher_each_labelled_crop_gets_its_own_map_from_the_cache_of_all(tmp_path):
    maps = str(tmp_path / "maps")
    prepared = prepare(config(tmp_path, "none", STUDENT__CACHE=maps), tmp_path / "run")
    assert len(prepared.feed.images) == 2 * 3  # views of the labelled half
    student = prepared.trainer.learner.student.eval()
    execute(prepared, shown=1)
    batch = next(prepared.feed.batches())
    assert batch.image.max() == 0, "no image is read"
    plain = {int(number): place for place, number in enumerate(prepared.feed.images.numbers)}
    images = torch.stack([prepared.images[divmod(plain[int(index)], 3)].image for index in batch.index])
    with torch.no_grad():
        expected = student.backbone(student.normalise(images))[1]
    torch.testing.assert_close(prepared.trainer.frozen.recall_maps(batch), expected, rtol=2e-3, atol=2e-3)


def test_labels_are_read_once_and_images_never_again(tmp_path):
    whole = prepare(config(tmp_path, "none", DATA__LABELLED="1.0"), tmp_path / "run").images
    reads = []

    class Counted(type(whole)):
        def __getitem__(self, key):
            reads.append(key)
            return super().__getitem__(key)

    counted = object.__new__(Counted)
    counted.__dict__ = whole.__dict__
    path = tmp_path / "labels.npy"
    first = StoredSamples(counted, path)[(0, 1)]
    again = StoredSamples(counted, path)[(7, 1)]
    assert reads == [(0, 1)]
    for name, value in whole[(0, 1)]._asdict().items():
        for found in (first, again):
            got = getattr(found, name)
            assert got.shape == value.shape and got.dtype == value.dtype, name
            assert torch.equal(got, value) == (name != "image"), name
    assert path.stat().st_blocks * 512 >= path.stat().st_size, "a full disk would be a bus error"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"labels\.npy: damaged"):
        StoredSamples(counted, path)[(0, 1)]


@pytest.mark.parametrize(
    ("mode", "changes", "message"),
    [
        ("output", {"STUDENT__FREEZE": "0"}, r"set STUDENT\.FREEZE and TEACHER\.CACHE_VIEWS"),
        ("output", {"TEACHER__CACHE_VIEWS": "0"}, r"set STUDENT\.FREEZE and TEACHER\.CACHE_VIEWS"),
        ("hybrid", {}, r"KD\.MODE hybrid teaches layer last, and STUDENT\.FREEZE 5 keeps it"),
        ("output", {"TEACHER__CACHE": ""}, r"set TEACHER\.CACHE, too"),
    ],
)
def test_a_run_that_cannot_use_stored_maps_is_refused_with_the_reason(tmp_path, mode, changes, message):
    with pytest.raises(ValueError, match=message):
        prepare(config(tmp_path, mode, STUDENT__CACHE=str(tmp_path / "maps"), **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_features_of_a_frozen_layer_are_not_taught_without_stored_maps_either(tmp_path):
    with pytest.raises(ValueError, match=r"STUDENT\.FREEZE 5 keeps it as it is: use KD\.MODE output, or freeze less"):
        prepare(config(tmp_path, "hybrid"), tmp_path / "run")


@pytest.mark.parametrize("name", ["mobilenetv3_large_100", "resnet18", "convnext_atto", "fastvit_t8", "mobilevit_xxs"])
@pytest.mark.parametrize("stages", [1, 3])
def test_frozen_and_trained_stages_make_up_the_backbone(name, stages):
    torch.manual_seed(0)
    backbone = Backbone(name, 64)
    backbone.freeze(min(stages, len(backbone.layers)))
    image = torch.rand(2, 3, 64, 64)
    rest, first = TrainedStages(backbone, 64), FrozenStages(backbone)
    assert not any(each.requires_grad for each in first.parameters())
    backbone.eval()
    with torch.no_grad():
        torch.testing.assert_close(rest(first(image)), backbone(image), rtol=1e-4, atol=1e-5)
    rest(first(image))[1].sum().backward()
    assert all((each.grad is not None) == each.requires_grad for each in backbone.parameters())


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("test_vit", 1),  # timm wraps it: its blocks have other names
        ("levit_128s", 2),
        ("hrnet_w18_small", 1),  # its stages are no modules
        ("hrnet_w18_small", 5),  # its maps pass through modules that are registered behind its stages
    ],
)
def test_a_network_whose_stages_cannot_be_frozen_is_refused(name, stages):
    backbone = Backbone(name, 160 if name == "test_vit" else 224)
    with pytest.raises(ValueError, match=f"^{name}'s stages cannot be frozen: set STUDENT.FREEZE 0$"):
        backbone.freeze(stages)


@pytest.mark.parametrize("name", ["test_resnet", "tiny_vit_5m_224"])
@pytest.mark.parametrize("mode", [True, False])
def test_freezing_leaves_mode_statistics_and_random_numbers_alone(name, mode):
    backbone = Backbone(name, 224).train(mode)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    state = torch.get_rng_state()
    backbone.freeze(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert backbone.training == mode and backbone.network.training == mode
    torch.testing.assert_close(backbone.state_dict(), before, rtol=0, atol=0)
    copy.deepcopy(backbone)  # no graph is left in it


def frozen_key(student: Student, stages: int = 2) -> str:
    student.backbone.freeze(stages)
    return cache_key(Teacher(FrozenBackbone(student), "fp32"), ImageDataset(2)).teacher


def test_maps_that_differ_for_another_reason_than_weights_have_another_key():
    def student(name: str = "timm:test_resnet", layer: str = "last") -> Student:
        torch.manual_seed(0)
        return build_student(name, "flat", "tiny", 64, feature_layer=layer)

    coloured, other_eps, other_network = student(), student(), student()
    coloured.normalise = Normalise(64, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    other_eps.backbone.network.bn1.eps = 1e-3
    other_network.backbone.name = "tf_test_resnet"  # such a pair differs in its padding alone
    keys = [frozen_key(each) for each in (student(), coloured, other_eps, other_network)]
    keys.append(frozen_key(student(), 3))
    assert len(set(keys)) == len(keys)
    assert frozen_key(student("timm:test_resnet.r160_in1k")) == keys[0], "a tag of weights"
    assert frozen_key(student(layer="layer3")) == keys[0], "the frozen map is the same, whichever is taught"
