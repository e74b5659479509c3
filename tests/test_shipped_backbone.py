"""The MobileNetV3-L weights in the package, and the tools that make such weights."""

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from fasthamer.predict import open_model
from fasthamer.students.backbone import SHIPPED, Backbone, Hub
from fasthamer.tools.assets import copy_features, make_backbone

NAME = "mobilenetv3_large_100"


def test_shipped_weights_are_all_of_the_backbone_and_nothing_else():
    stored = load_file(SHIPPED[NAME])
    loaded = Backbone(NAME, 64, weights="shipped").network.state_dict()
    assert stored.keys() == loaded.keys()
    for key, value in loaded.items():
        torch.testing.assert_close(value, stored[key].to(value.dtype))


def test_without_a_network_mobilenetv3_starts_from_them_and_warns(tmp_path, caplog):
    network = Backbone(NAME, 64, pretrained=True, hub=Hub("http://127.0.0.1:9", tmp_path)).network
    assert "refused" in caplog.text and "starts from the shipped weights" in caplog.text
    stored = load_file(SHIPPED[NAME])["conv_stem.weight"]
    torch.testing.assert_close(network.state_dict()["conv_stem.weight"], stored.float())


def test_a_shipped_students_name_gives_its_backbone():
    loaded, student = Backbone(NAME, 64, weights="mobilenetv3_l").state_dict(), open_model("mobilenetv3_l")
    assert all(torch.equal(value, loaded[name]) for name, value in student.backbone.state_dict().items())


def test_another_network_has_none():
    with pytest.raises(ValueError, match="no weights are shipped for resnet18"):
        Backbone("resnet18", 64, weights="shipped")


def test_the_maps_compared_are_those_that_timm_hands_out():
    torch.manual_seed(0)
    for name in (make_backbone.SOURCE, make_backbone.TARGET):
        stages = make_backbone.Stages(name).eval()
        network = timm.create_model(name, features_only=True).eval()
        network.load_state_dict(make_backbone.stage_weights(stages))
        image = torch.rand(2, 3, 64, 64) * 255
        with torch.no_grad():
            wanted = network((image - stages.mean) / stages.std)
            found = stages.maps(image)
            fed = stages.maps(image, given=wanted)
        for ours, again, theirs in zip(found, fed, wanted, strict=True):
            torch.testing.assert_close(ours, theirs)
            torch.testing.assert_close(again, theirs)


def test_a_few_steps_write_weights_that_the_student_starts_from(tmp_path, capsys, monkeypatch):
    source, out = tmp_path / "source.safetensors", tmp_path / "made.safetensors"
    save_file(timm.create_model(make_backbone.SOURCE).state_dict(), source)
    paths = ["--source", source, "--out", out, "--images", tmp_path / "drawn"]
    assert make_backbone.main([*map(str, paths), "--size", "4", "--steps", "2", "--batch", "2", "--workers", "0"]) == 0
    assert "of the variance" in capsys.readouterr().out
    monkeypatch.setitem(SHIPPED, NAME, out)
    Backbone(NAME, 64, weights="shipped")


def test_a_missing_source_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        make_backbone.main(["--source", str(tmp_path / "none"), "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert "convert_lite0" in capsys.readouterr().err


def test_copied_features_are_the_sources_where_both_networks_are_one():
    torch.manual_seed(0)
    copy = copy_features.Copy(NAME, bf16=False).eval()
    copy.backbone.load_state_dict(copy.source.state_dict())
    for projection in copy.projections:
        torch.nn.init.dirac_(projection.weight)
        torch.nn.init.zeros_(projection.bias)
    image = torch.rand(2, 3, 192, 192) * 255
    with torch.no_grad():
        torch.testing.assert_close(copy(image, apart=True), torch.zeros(5))
        copy.projections[1].bias.fill_(1)
        assert copy(image, apart=True).gt(0).tolist() == [False, True, False, False, False]


def test_any_student_starts_from_copied_features(tmp_path):
    out = tmp_path / "copied.safetensors"
    sizes = ["--size", "4", "--steps", "2", "--batch", "2", "--bf16"]
    assert copy_features.main(["resnet18", "--out", str(out), "--images", str(tmp_path / "drawn"), *sizes]) == 0
    stored, loaded = load_file(out), Backbone("resnet18", 96, weights=out).state_dict()
    assert all(torch.equal(stored[f"backbone.{name}"], value) for name, value in loaded.items())
    assert not torch.equal(
        loaded["network.conv1.weight"], Backbone("resnet18", 96).state_dict()["network.conv1.weight"]
    )


def test_an_unknown_student_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        copy_features.main(["resnet81", "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert "timm has no network named 'resnet81'" in capsys.readouterr().err
