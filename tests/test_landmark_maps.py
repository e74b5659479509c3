"""MediaPipe's landmark network as a backbone."""

import pytest
import torch

from fasthamer.detect.networks import load_landmark_network
from fasthamer.students import build_student
from fasthamer.students.landmark_maps import LandmarkMaps


@pytest.mark.parametrize(("kind", "channels"), [("lite", [16, 24, 64, 672]), ("full", [24, 40, 112, 1152])])
def test_the_maps_are_the_network_s_and_halve_from_one_to_the_next(kind, channels):
    image = torch.rand(1, 3, 64, 64)
    maps = LandmarkMaps(kind, trained=True)(image)
    assert [tuple(each.shape[1:]) for each in maps] == [(c, 16 >> i, 16 >> i) for i, c in enumerate(channels)]
    assert torch.equal(maps[-1], load_landmark_network(kind).features(image))


def test_a_student_s_maps_may_be_any_of_the_four():
    student = build_student("mediapipe:lite", "flat", "tiny", 64, feature_layer="blocks.3")
    assert student(torch.zeros(1, 3, 64, 64)).features.shape == (1, 24, 8, 8)
    with pytest.raises(
        ValueError, match=r"no layer 'blocks.2': choose last or one of blocks.1, blocks.3, blocks.9, last"
    ):
        build_student("mediapipe:lite", "flat", "tiny", 64, feature_layer="blocks.2")


def test_stages_are_frozen_from_the_first():
    backbone = build_student("mediapipe:lite", "flat", "tiny", 64).backbone
    backbone.freeze(2)
    trained = {
        name.split(".")[2] for name, each in backbone.named_parameters() if each.requires_grad and "blocks" in name
    }
    assert trained == {str(index) for index in range(4, 14)}
    assert not backbone.network.stem[0].weight.requires_grad


def test_an_untrained_network_is_random_and_a_foreign_file_is_refused(tmp_path):
    torch.manual_seed(0)
    assert not torch.equal(LandmarkMaps("lite", False).stem[0].weight, LandmarkMaps("lite", True).stem[0].weight)
    with pytest.raises(ValueError, match="starts from the weights in the package or a student's file"):
        build_student("mediapipe:lite", "flat", "tiny", 64, backbone_file=tmp_path / "x.safetensors")


def test_an_unknown_kind_names_the_nearest():
    with pytest.raises(KeyError, match="no landmark network named 'ful'; did you mean 'full'"):
        build_student("mediapipe:ful")


def test_the_graph_for_inference_is_the_student():
    student = build_student("mediapipe:lite", "flat", "tiny", 64, pretrained=True).eval()
    image = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(student.deploy()(image).vertices, student(image).vertices, atol=1e-6, rtol=0)
