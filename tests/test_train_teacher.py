"""The embedded teacher's training: the parts of the network are the network, and only one of them is trained."""

import json

import numpy as np
import pytest
import torch

from fasthamer.data.augment import Strength
from fasthamer.data.synthetic.cached import CachedSyntheticDataset
from fasthamer.data.synthetic.dataset import SyntheticDataset
from fasthamer.hand.mano import load_hand
from fasthamer.students import build_student, load_student
from fasthamer.tools.assets import train_teacher
from fasthamer.tools.assets.teacher.parts import FROZEN, FrozenPart, TrainedPart, with_part
from fasthamer.tools.assets.teacher.stored_maps import store_maps

SETTINGS = {
    "DATA.NAME": "synthetic",
    "DATA.SYNTHETIC_SIZE": "4",
    "DATA.SYNTHETIC_EVAL_SIZE": "2",
    "DATA.MIX_SYNTHETIC": "0.0",
    "DATA.WORKERS": "0",
    "IMAGE_SIZE": "64",
    "STUDENT.NAME": "mediapipe:lite",
    "STUDENT.IMAGE_SIZE": "64",
    "STUDENT.DECODER_SIZE": "tiny",
    "TRAIN.BATCH": "2",
    "TRAIN.STEPS": "2",
    "DEVICE": "cpu",
}


@pytest.fixture(scope="module")
def hand():
    return load_hand("embedded")


@pytest.fixture
def student(hand):
    torch.manual_seed(0)
    return build_student("mediapipe:lite", "flat", "tiny", 64, pretrained=True, hand=hand).eval()


@pytest.fixture
def images(hand, tmp_path):
    hands = SyntheticDataset(hand, 3, seed=2, image_size=64, scale=0.0, shift=0.0, shape="upright")
    return CachedSyntheticDataset(hands, tmp_path / "images", Strength())


def settings(folder):
    return [*(text for pair in SETTINGS.items() for text in pair), "DATA.SYNTHETIC_FOLDER", str(folder / "images")]


def test_both_parts_together_are_the_student(student):
    image = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    maps = FrozenPart(student)(image)
    assert maps.shape == (2, 112, 2, 2)
    torch.testing.assert_close(TrainedPart(student)(maps).vertices, student(image).vertices, atol=1e-6, rtol=0)


def test_a_trained_part_is_put_into_a_copy(student):
    part = TrainedPart(student)
    other = {name: value + 1 for name, value in part.state_dict().items()}
    before = student.decoder.deccam.bias.clone()
    trained = with_part(student, _Loaded(other))
    torch.testing.assert_close(trained.decoder.deccam.bias, before + 1)
    torch.testing.assert_close(student.decoder.deccam.bias, before)


class _Loaded(torch.nn.Module):
    def __init__(self, state):
        super().__init__()
        self.state = state

    def state_dict(self):
        return self.state


def test_another_backbone_is_refused(hand):
    with pytest.raises(ValueError, match="test_resnet is no landmark network"):
        FrozenPart(build_student("timm:test_resnet", "flat", "tiny", 64, hand=hand))


def test_stored_maps_are_the_frozen_part_s_for_every_view_with_their_labels(student, images, tmp_path):
    frozen = FrozenPart(student)
    stored = store_maps(tmp_path / "maps", images, 2, frozen, workers=0)
    assert len(stored) == 6
    for index in range(6):
        item, expected = stored[(7, index)], images[divmod(index, 3)]
        torch.testing.assert_close(item.image.float(), frozen(expected.image[None])[0], atol=0.02, rtol=2e-3)  # fp16
        torch.testing.assert_close(item.joints, expected.joints)
        torch.testing.assert_close(item.vertices, expected.vertices, atol=5e-4, rtol=0)


def test_storing_goes_on_where_it_stopped_and_refuses_other_images(student, images, tmp_path, hand):
    folder, frozen = tmp_path / "maps", FrozenPart(student)
    store_maps(folder, images, 1, frozen, workers=0)
    about = json.loads((folder / "about.json").read_text())
    (folder / "about.json").write_text(json.dumps({**about, "done": 2}))
    np.load(folder / "image.npy", mmap_mode="r+")[:] = 0
    again = store_maps(folder, images, 1, frozen, workers=0)
    assert not again.fields.image[:2].any() and again.fields.image[2].any()  # only what was missing is computed
    with pytest.raises(ValueError, match="maps of other images"):
        store_maps(folder, images, 2, frozen, workers=0)


def test_the_command_trains_the_last_part_only_and_writes_a_student_that_opens(tmp_path, monkeypatch, capsys, hand):
    monkeypatch.chdir(tmp_path)
    assert train_teacher.main(["--out", "run", "--views", "1", *settings(tmp_path)]) == 0
    assert "PA-MPJPE" in capsys.readouterr().out
    trained = load_student(tmp_path / "run" / "student.safetensors")
    start = build_student("mediapipe:lite", "flat", "tiny", 64, pretrained=True, hand=hand).backbone.network
    network = trained.backbone.network
    assert trained.box_shape == "upright"
    assert torch.equal(network.blocks[FROZEN - 1].project.weight, start.blocks[FROZEN - 1].project.weight)
    assert not torch.equal(network.blocks[FROZEN].project.weight, start.blocks[FROZEN].project.weight)


def test_with_whole_every_layer_is_trained(tmp_path, monkeypatch, hand):
    monkeypatch.chdir(tmp_path)
    assert train_teacher.main(["--out", "run", "--whole", *settings(tmp_path)]) == 0
    network = load_student(tmp_path / "run" / "student.safetensors").backbone.network
    start = build_student("mediapipe:lite", "flat", "tiny", 64, pretrained=True, hand=hand).backbone.network
    assert not torch.equal(network.stem[0].weight, start.stem[0].weight)


def test_a_mistyped_setting_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        train_teacher.main(["--out", "run", "TRAIN.STEP", "3"])
    assert stopped.value.code == 2 and "did you mean TRAIN.STEPS" in capsys.readouterr().err
