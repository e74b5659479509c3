"""A hand to tokens and back: encoder, mesh decoder, the frames."""

import json

import numpy as np
import pytest
import torch
from tiny_tokenizers import SPEC, meshes, tiny_tokenizer
from torch import nn

from fasthamer.config import load_config
from fasthamer.hand.mano import load_hand
from fasthamer.hand.rotation import random_rotations
from fasthamer.students.tokenhand.blocks import MetaFormerBlock, NeighbourAttention, farthest_points
from fasthamer.students.tokenhand.encoder import MeshEncoder
from fasthamer.students.tokenhand.mesh_decoder import MeshDecoder
from fasthamer.students.tokenhand.tokenizer import Tokenizer, spec_of


@pytest.fixture(scope="module")
def hand():
    return load_hand("embedded")


@pytest.fixture(scope="module")
def posed(hand):
    return meshes(hand, 8)[0]


@pytest.fixture(scope="module")
def palm(hand):
    return tiny_tokenizer(hand)


@pytest.fixture(scope="module")
def camera(hand):
    return tiny_tokenizer(hand, frame="camera")


def random_weights(module: nn.Module) -> nn.Module:
    """Biases and norms too, which would otherwise hide what is done with them."""
    torch.manual_seed(3)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.double()


# --- encoder


@torch.no_grad()
def test_neighbour_attention_is_point_transformers_equations_in_a_plain_loop():
    """Eq. 2 and 3 of Zhao et al. 2021: y_i = sum_j softmax_j(gamma(q_i - k_j + d_ij)) * (v_j + d_ij)."""
    centres, neighbours = torch.tensor([4, 0, 2]), torch.tensor([[4, 1], [0, 3], [2, 0]])
    layer = random_weights(NeighbourAttention(5, 16, centres, neighbours))
    points, places = torch.randn(6, 2, 5).double(), torch.randn(6, 2, 3).double()
    found, left = layer(points, places)
    assert torch.equal(left, places[centres])
    assert layer.groups == 2
    query, key, value = (part.weight for part in (layer.query, layer.key, layer.value))
    for sample in range(2):
        normed = [layer.norm(points[number, sample]) for number in range(6)]
        for row, (centre, near) in enumerate(zip(centres, neighbours, strict=True)):
            codes = [(layer.place.weight @ (places[centre, sample] - places[j, sample])).clamp(min=0) for j in near]
            scores = torch.stack(
                [
                    query @ normed[centre] + layer.query.bias - key @ normed[j] + layer.place_key.weight @ code
                    for j, code in zip(near, codes, strict=True)
                ]
            )  # (neighbours, groups)
            weights = scores.exp() / scores.exp().sum(0)
            seen = torch.zeros(16).double()
            for j, code, weight in zip(near, codes, weights, strict=True):
                each = weight.repeat_interleave(8)  # a group has 8 channels
                spread = torch.cat([weight[group] * code for group in range(2)])
                seen += each * (value @ normed[j] + layer.value.bias) + layer.place_value.weight @ spread
            kept = layer.keep(points[centre, sample]) + layer.out(seen)
            torch.testing.assert_close(found[row, sample], kept + layer.mlp(kept))


@torch.no_grad()
def test_the_metaformer_block_is_attention_then_an_mlp():
    block = random_weights(MetaFormerBlock(64))
    tokens = torch.randn(2, 7, 64).double()
    attention = nn.MultiheadAttention(64, 2, batch_first=True).double()  # torch's own
    attention.in_proj_weight.copy_(block.qkv.weight)
    attention.in_proj_bias.copy_(block.qkv.bias)
    attention.out_proj.load_state_dict(block.out.state_dict())
    normed = block.norm1(tokens)
    mixed = tokens + attention(normed, normed, normed)[0]
    torch.testing.assert_close(block(tokens), mixed + block.mlp(block.norm2(mixed)))


def test_farthest_points_are_those_of_the_definition(hand):
    places = hand.layer.v_template.double()
    found = farthest_points(places, 20).tolist()
    points = places.numpy()
    expected = [int(np.linalg.norm(points - points.mean(0), axis=1).argmin())]
    for _ in range(19):
        apart = [min(np.linalg.norm(point - points[each]) for each in expected) for point in points]
        expected.append(int(np.argmax(apart)))
    assert found == expected
    assert len(set(farthest_points(places, 778).tolist())) == 778


def test_neighbourhoods_are_the_templates_and_pool_down_to_m(hand):
    encoder = MeshEncoder(hand.layer.v_template, [24, 6], [8, 16], 4, 8, 1)
    template = hand.layer.v_template.double().numpy()
    first = farthest_points(hand.layer.v_template.double(), 24)
    second = farthest_points(hand.layer.v_template.double()[first], 6)
    assert [torch.equal(layer.centres, each) for layer, each in zip(encoder.layers[::2], (first, second), strict=True)]
    places = template
    for layer in encoder.layers:
        for centre, near in zip(layer.centres, layer.neighbours, strict=True):
            apart = np.linalg.norm(places - places[centre], axis=1)
            np.testing.assert_allclose(apart[near], np.sort(apart)[:4])
            assert near[0] == centre
        places = places[layer.centres]
    assert len(places) == 6


@torch.no_grad()
def test_tokens_are_normalised_and_each_sample_is_alone(palm, posed):
    tokens = palm.encode(posed).tokens
    assert tokens.shape == (8, 6, 8)
    torch.testing.assert_close(tokens.mean(2), torch.zeros(8, 6), atol=1e-5, rtol=0)
    torch.testing.assert_close(tokens.var(2, unbiased=False), torch.ones(8, 6), atol=1e-2, rtol=0)
    torch.testing.assert_close(palm.encode(posed[3:4]).tokens[0], tokens[3], atol=1e-4, rtol=0)
    assert (tokens[0] - tokens[1]).abs().max() > 0.1


# --- mesh decoder


@pytest.mark.parametrize(
    ("tokens", "widths", "blocks"),
    [([48, 97, 194, 389], [256, 128, 64, 32], 1), ([48], [256], 1), ([24, 100], [64, 40], 2)],
)
def test_each_layer_has_its_tokens_and_its_width(hand, tokens, widths, blocks):
    decoder = MeshDecoder(32, tokens, widths, blocks, hand.layer.v_template)
    seen = []
    for layer in decoder.layers:
        assert len(layer.blocks) == blocks
        layer.blocks.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0].shape, output.shape)))
        layer.register_forward_hook(lambda _, inputs, output: seen.append(output.shape))
    assert decoder(torch.randn(2, tokens[0], 32)).shape == (2, 778, 3)
    expected = []
    for number, more, width in zip(tokens, [*tokens[1:], 778], widths, strict=True):
        expected += [((2, number, width), (2, number, width)), (2, more, width)]
    assert seen == expected


@torch.no_grad()
def test_the_papers_mesh_decoder_starts_near_the_mean_hand(palm, hand, posed):
    mean = palm.align(hand.layer.v_template[None])[0]
    assert torch.equal(palm.decoder.mean, mean)
    assert 1000 * (palm.decoder(torch.zeros(1, 6, 8))[0] - mean).norm(dim=1).mean() < 200
    assert palm.decoder.mean is not mean


# --- frames


@torch.no_grad()
def test_in_the_palms_frame_tokens_do_not_depend_on_the_rotation(palm, camera, posed):
    turns = random_rotations(8, torch.Generator().manual_seed(7))
    moved = posed @ turns.mT + torch.tensor([0.3, -0.1, 0.9])
    here, there = palm.encode(posed), palm.encode(moved)
    torch.testing.assert_close(there.tokens, here.tokens, atol=2e-3, rtol=0)
    assert torch.equal(palm.labels(moved), palm.labels(posed))
    torch.testing.assert_close(there.rotation, turns @ here.rotation, atol=1e-4, rtol=0)
    torch.testing.assert_close(
        palm.decode(there.tokens, there.rotation),
        palm.decode(here.tokens, here.rotation) @ turns.mT,
        atol=1e-4,
        rtol=0,
    )

    encoded = camera.encode(moved)
    assert (camera.labels(moved) != camera.labels(posed)).any()
    assert torch.equal(encoded.rotation, torch.eye(3).expand(8, 3, 3))
    shifted = camera.encode(posed + torch.tensor([0.3, -0.1, 0.9])).tokens  # where it is does not matter
    torch.testing.assert_close(shifted, camera.encode(posed).tokens, atol=2e-3, rtol=0)


@torch.no_grad()
def test_the_reconstruction_is_that_of_the_tokens(palm, posed):
    placed, found, quantised = palm(posed)
    assert torch.equal(placed, palm.align(posed))
    assert torch.equal(quantised.indices, palm.labels(posed))
    torch.testing.assert_close(found, palm.decode(palm.codebook.codes[quantised.indices]))
    turned = palm.decode(palm.encode(posed).tokens, palm.encode(posed).rotation)
    assert turned.shape == (8, 778, 3)


@torch.no_grad()
def test_half_precision_never_touches_where_a_hand_is(hand, posed):
    for frame in ("palm", "camera"):
        tokenizer = tiny_tokenizer(hand, frame=frame)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            placed, found, _ = tokenizer(posed)
        assert torch.equal(placed, tokenizer.align(posed))
        assert found.dtype == torch.float32


def test_the_gradient_reaches_the_encoder_through_the_codes(hand, posed):
    tokenizer = tiny_tokenizer(hand).train()
    placed, found, _ = tokenizer(posed)
    (found - placed).abs().mean().backward()
    still = [name for name, each in tokenizer.encoder.named_parameters() if not each.grad.abs().max() > 0]
    # A relative position knows no origin, so the bias of both ends cancels.
    assert not [name for name in still if not name.endswith("place.bias")]
    assert not list(tokenizer.codebook.parameters())


def test_the_commitment_moves_the_encoder_alone(hand, posed):
    tokenizer = tiny_tokenizer(hand).train()
    tokenizer(posed)[2].commitment.sum().backward()
    assert all(each.grad is None for each in tokenizer.decoder.parameters())
    assert any(each.grad.abs().max() > 0 for each in tokenizer.encoder.parameters())


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frame": "plam"}, "did you mean 'palm'"),
        ({"codes": 0}, "codes is of whole numbers of at least 1, not 0"),
        ({"tokens": [0, 12]}, r"tokens is of whole numbers of at least 1, not \[0, 12\]"),
        ({"tokens": [6.5, 12]}, r"tokens is of whole numbers of at least 1, not \[6.5, 12\]"),
        ({"code_width": -1}, "code_width is of whole numbers"),
        ({"neighbours": 0}, "neighbours is of whole numbers"),
        ({"blocks": 0}, "blocks is of whole numbers"),
        ({"encoder_blocks": -1}, "encoder_blocks is of whole numbers of at least 0"),
        ({"tokens": [6]}, r"as many token counts as widths, not \[6\] and \[16, 8\]"),
        ({"tokens": [], "widths": []}, "as many token counts as widths"),
        ({"points": []}, r"\[\] points take 1 widths, not \[8, 16\]"),
        ({"points": [5]}, r"points get fewer: \[778, 5, 6\] do not"),
        ({"points": [779]}, r"points get fewer: \[778, 779, 6\] do not"),
        ({"widths": [16, 100]}, "100 channels cannot be split among 3 heads: take a multiple of 32"),
        ({"point_widths": [19, 16]}, "19 channels cannot be split among 2 heads: take a multiple of 8"),
    ],
)
def test_numbers_that_make_no_tokenizer_are_refused_with_a_reason(hand, changes, message):
    with pytest.raises((ValueError, KeyError), match=message):
        Tokenizer(SPEC._replace(**changes), hand)


def test_a_mesh_that_is_none_is_named(palm, posed):
    broken = posed.clone()
    broken[5, 300, 1] = float("nan")
    broken[6, 0, 0] = float("inf")
    for way in (palm.encode, palm.labels):
        with pytest.raises(ValueError, match=r"mesh of sample 5 is not finite \(2 of 8"):
            way(broken)
    with pytest.raises(ValueError, match=r"\(8, 777, 3\); expected \(B, 778, 3\)"):
        palm.encode(posed[:, 1:])


def test_every_setting_of_the_config_is_a_field_and_reaches_it(hand):
    node = load_config(None, ["TOKENIZER.CODES", "384", "TOKENIZER.FRAME", "camera"]).TOKENIZER
    spec = spec_of(node)
    assert (spec.codes, spec.frame, spec.tokens, spec.widths) == (384, "camera", [48, 97, 194, 389], [256, 128, 64, 32])
    assert isinstance(spec.tokens, list)
    json.dumps(spec._asdict())
