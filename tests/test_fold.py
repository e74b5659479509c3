"""Folded decoders, backbones and skinning compute what the unfolded ones do."""

import pytest
import timm
import torch
from torch import nn

from fasthamer.hand.mano import load_hand
from fasthamer.hand.rotation import rot6d_to_matrix
from fasthamer.hand.skinning import Skinning
from fasthamer.nn.mano_head import SIZES, FlatHead, HeadSize, ManoHead
from fasthamer.runtime.fold import FoldedHead, fold_backbone
from fasthamer.types import ManoParams

ODD = HeadSize(width=24, depth=2, heads=3, head_width=5, mlp_width=20)


@pytest.fixture(scope="module")
def hand():
    return load_hand("embedded")


def scrambled(module: nn.Module, seed: int = 0) -> nn.Module:
    """No tensor without effect: no zeros, no ones; batch variances stay positive."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.01, 2.0, generator=generator)  # small ones show a forgotten epsilon
            elif tensor.is_floating_point():
                tensor.normal_(0, 0.3 if tensor.ndim < 2 else tensor[0].numel() ** -0.5, generator=generator)
    return module.eval()


def random_mano(batch: int) -> ManoParams:
    generator = torch.Generator().manual_seed(batch)
    rotations = rot6d_to_matrix(torch.randn(batch, 16, 6, generator=generator))
    return ManoParams(rotations[:, :1], rotations[:, 1:], torch.randn(batch, 10, generator=generator))


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("size", [ODD, SIZES["tiny"], SIZES["medium"]])
@pytest.mark.parametrize("placed", [True, False])
@pytest.mark.parametrize("batch", [1, 5, 9])
def test_the_single_query_needs_no_keys_and_values(size, placed, batch):
    head = scrambled(ManoHead(40, size, (4, 3) if placed else None))
    folded = FoldedHead(head)
    features = torch.randn(batch, 40, 4, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert relative(folded.summary(features), head.summarise(features)) < 1e-5
        (mano, camera), (expected, expected_camera) = folded(features), head.regress(features)
    for found, wanted in zip((*mano, camera), (*expected, expected_camera), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_hamers_own_size_folds_within_a_hundred_thousandth():
    head = scrambled(ManoHead(1280, SIZES["full"]))
    features = torch.randn(1, 1280, 16, 12, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert relative(FoldedHead(head).summary(features), head.summarise(features)) < 1e-5


def test_the_flat_decoder_folds():
    head = scrambled(FlatHead(12, SIZES["tiny"], (3, 2)))
    features = torch.randn(4, 12, 3, 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        (mano, camera), (expected, expected_camera) = FoldedHead(head)(features), head.regress(features)
    for found, wanted in zip((*mano, camera), (*expected, expected_camera), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_folding_leaves_the_decoder_as_it_was():
    head = scrambled(ManoHead(8, SIZES["tiny"], (2, 2)))
    before = {name: value.clone() for name, value in head.state_dict().items()}
    FoldedHead(head)
    assert all(torch.equal(before[name], value) for name, value in head.state_dict().items())
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in head.parameters())


def test_a_decoder_that_cannot_be_folded_says_so():
    with pytest.raises(ValueError, match=r"no inference graph is known for a Linear.*mano, flat and token"):
        FoldedHead(nn.Linear(2, 2))


@pytest.mark.parametrize(
    "name",
    [
        "mobilenetv3_small_100",
        "mobilevit_s",
        "fastvit_t8",
        "mobileone_s0",
        "resnet18",
        "tf_efficientnetv2_b0",
        "test_convnext",
        "test_vit",
    ],
)
def test_backbones_fold_their_batch_norms_and_branches(name):
    network = timm.create_model(name, features_only=True, **({"img_size": 64} if name == "test_vit" else {}))
    network = scrambled(network)
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    folded = fold_backbone(network, image[:1])
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
    with torch.no_grad():
        for found, expected in zip(folded(image), network(image), strict=True):
            assert relative(found, expected) < 2e-5
    if name in ("fastvit_t8", "mobileone_s0"):
        convolutions = [sum(isinstance(part, nn.Conv2d) for part in each.modules()) for each in (network, folded)]
        assert convolutions[1] < convolutions[0], "no branch was merged"


class Forked(nn.Module):
    """A convolution whose result also goes past the norm, one used twice, and one pair that may be folded."""

    def __init__(self):
        super().__init__()
        self.forked, self.repeated, self.plain = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(4))

    def forward(self, image):
        forked = self.forked(image)
        image = forked + self.norms[0](forked)
        image = self.norms[1](self.repeated(image)) + self.norms[2](self.repeated(-image))
        return self.norms[3](self.plain(image))


def test_only_norms_that_alone_take_a_convolutions_result_are_folded():
    network = scrambled(Forked())
    image = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    folded = fold_backbone(network, image)
    assert [isinstance(norm, nn.Identity) for norm in folded.norms] == [False, False, False, True]
    with torch.no_grad():
        torch.testing.assert_close(folded(image), network(image), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("batch", [1, 3])
def test_skinning_is_the_hand_layer_to_a_ten_thousandth_of_a_millimetre(hand, batch):
    mano = random_mano(batch)
    vertices, joints = Skinning(hand)(mano)
    expected_vertices, expected_joints = hand(mano)
    assert (vertices - expected_vertices).norm(dim=-1).max() < 1e-7  # metres
    assert (joints - expected_joints).norm(dim=-1).max() < 1e-7


def test_skinning_keeps_the_hands_arrays_out_of_state_dicts(hand):
    assert not Skinning(hand).state_dict()
