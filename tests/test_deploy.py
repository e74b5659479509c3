"""`deploy()` of students and of HaMeR: the training graph's answers, and nothing of the model is changed."""

import pytest
import torch
from torch import nn

from fasthamer.hand.mano import load_hand
from fasthamer.nn.mano_head import SIZES, ManoHead
from fasthamer.runtime.deploy import crop_size, inference_graph
from fasthamer.runtime.sessions import open_session
from fasthamer.students import build_student
from fasthamer.teachers import Teacher, build_teacher
from fasthamer.teachers.hamer import HaMeR
from fasthamer.teachers.vit import PoseViT

TEN_THOUSANDTH_MM = 1e-7  # metres


@pytest.fixture(scope="module")
def hand():
    return load_hand("embedded")


def trained_looking(hand, name="timm:test_resnet", **options) -> nn.Module:
    """A student with batch statistics and read-outs as after training."""
    torch.manual_seed(0)
    student = build_student(name, **{"decoder_size": "tiny", "image_size": 64, "hand": hand, **options}).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in student.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_(0, 0.1, generator=generator)
                part.running_var.uniform_(0.5, 1.5, generator=generator)
        student.decoder.decpose.weight.mul_(20)  # starts near zero, see `ManoReadout`
        if getattr(student.decoder, "place", None) is not None:
            student.decoder.place.normal_(generator=generator)
    return student


def crops(batch: int, size: int) -> torch.Tensor:
    return torch.randint(
        0, 256, (batch, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(batch)
    )


@torch.no_grad()
def farthest(model, graph, image) -> float:
    """Metres between vertices; everything else that the two give is compared on the way."""
    expected, found = model(image), graph(image)
    torch.testing.assert_close(found.joints, expected.joints, atol=2e-7, rtol=0)
    torch.testing.assert_close(found.keypoints_2d, expected.keypoints_2d, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.camera, expected.camera, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(found.features, expected.features, atol=1e-4, rtol=1e-4)
    for part, same in zip(found.mano, expected.mano, strict=True):
        torch.testing.assert_close(part, same, atol=1e-5, rtol=0)
    return float((found.vertices - expected.vertices).norm(dim=-1).max())


@pytest.mark.parametrize("decoder", ["mano", "flat"])
@pytest.mark.parametrize("size", [64, 96])
def test_a_deployed_student_gives_the_same_mesh_at_any_batch(hand, decoder, size):
    student = trained_looking(hand, decoder=decoder)
    graph = student.deploy()
    assert (graph.view, graph.image_size, graph.feature_channels) == (
        student.view,
        student.image_size,
        student.feature_channels,
    )
    for batch in (1, 2, 7):
        assert farthest(student, graph, crops(batch, size)) < TEN_THOUSANDTH_MM


def test_the_embedded_teacher_deploys(hand):
    teacher = build_teacher("embedded", "", hand, "fp32")
    assert farthest(teacher, inference_graph(teacher), crops(3, 224)) < TEN_THOUSANDTH_MM


def test_deploying_leaves_the_student_as_it_was_and_later_training_does_not_reach_the_graph(hand):
    student = trained_looking(hand).train()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    graph = student.deploy()
    assert student.training and student.backbone.training
    assert all(torch.equal(before[name], value) for name, value in student.state_dict().items())
    assert all(parameter.requires_grad for parameter in student.parameters())
    first = graph(crops(1, 64)).vertices
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()
    assert torch.equal(graph(crops(1, 64)).vertices, first)


def test_hamer_deploys_and_shares_its_backbone(hand):
    model = HaMeR(PoseViT(16, 2, 2), ManoHead(16, SIZES["tiny"]), hand).eval()
    with torch.no_grad():
        model.mano_head.decpose.weight.mul_(20)
    graph = Teacher(model, "fp32").model.deploy()
    assert farthest(model, graph, crops(2, 256)) < TEN_THOUSANDTH_MM
    assert {id(each) for each in model.backbone.parameters()} <= {id(each) for each in graph.parameters()}


def test_another_precision_is_another_graph_whose_mesh_is_still_float32(hand):
    graph = trained_looking(hand).deploy()
    half = graph.in_precision(torch.bfloat16)
    image = crops(2, 64)
    exact, rounded = graph(image), half(image)
    assert graph.in_precision(torch.float32) is graph
    assert {each.dtype for each in graph.parameters()} == {torch.float32}
    assert next(half.backbone.parameters()).dtype == next(half.head.summary.parameters()).dtype == torch.bfloat16
    assert rounded.vertices.dtype == rounded.camera.dtype == torch.float32
    with torch.no_grad():
        vertices, _ = hand(rounded.mano)
    torch.testing.assert_close(rounded.vertices, vertices, atol=1e-7, rtol=0)
    assert 0 < (rounded.vertices - exact.vertices).norm(dim=-1).max() < 5e-3


@pytest.mark.parametrize(("size", "share"), [(64, 1.0), (128, 0.6667), (256, 0.75), (65, 0.3)])
def test_the_exported_crop_is_one_of_which_nothing_is_resized(size, share):
    graph = type("Graph", (), {"normalise": type("N", (), {"share": share}), "image_size": size})
    side = crop_size(graph)
    assert side - 2 * round(side * (1 - share) / 2) == size
    assert side == pytest.approx(size / share, abs=2)


def test_a_model_without_a_graph_says_so():
    with pytest.raises(ValueError, match=r"a Identity has no inference graph"):
        open_session(nn.Identity(), "folded")
