"""Any timm network as a backbone: what it gives is measured, not read from timm's tables."""

import pytest
import torch

from fasthamer.students import build_student
from fasthamer.students.backbone import Backbone


@pytest.mark.parametrize(
    ("name", "image_size", "grid"),
    [
        ("inception_v3", 256, (6, 6)),  # convolutions without padding: timm's reduction of 32 promises 8
        ("eva02_tiny_patch14_224", 256, (18, 18)),  # 256 / 14 is 18.3, what is left over is not looked at
        ("test_resnet", 240, (8, 8)),  # rounded up
    ],
)
def test_the_grid_is_that_of_the_networks_real_map(name, image_size, grid):
    backbone = Backbone(name, image_size).eval()
    with torch.no_grad():
        _, last = backbone(torch.zeros(1, 3, image_size, image_size))
    assert backbone.grid == grid == tuple(last.shape[2:])
    assert backbone.channels == last.shape[1]


@pytest.mark.parametrize(("name", "native"), [("efficientformer_l1", 224), ("crossvit_tiny_240", 240)])
def test_a_network_that_does_not_take_the_size_is_refused_when_built_with_the_size_that_works(name, native):
    with pytest.raises(ValueError, match=rf"'{name}' does not run .* 256 pixels .*: STUDENT.IMAGE_SIZE {native}"):
        build_student(f"timm:{name}", decoder="flat", decoder_size="tiny")
    assert Backbone(name, native).channels > 0


def test_measuring_a_network_leaves_its_mode_and_its_batch_statistics_alone():
    backbone = Backbone("test_resnet", 64)
    assert all(module.training for module in backbone.modules())
    counts = [module.num_batches_tracked for module in backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert counts and not any(counts)


@pytest.mark.parametrize("name", ["levit_128s", "repvit_m1", "mobileone_s0"])
def test_networks_with_branches_to_merge_deploy_to_the_same_hands(name):
    torch.manual_seed(0)
    student = build_student(f"timm:{name}", decoder="flat", decoder_size="tiny", pretrained=False).eval()
    image = torch.randint(0, 256, (2, 3, 256, 256), dtype=torch.uint8)
    with torch.no_grad():
        expected, found = student(image), student.deploy()(image)
    assert (expected.vertices - found.vertices).norm(dim=-1).max() < 1e-6  # metres
    assert torch.get_default_dtype() == torch.float32
