"""HaMeR's decoder against its own definition, written out with einsum."""

import pytest
import torch
from torch import nn

from fasthamer.hand.mano import load_hand
from fasthamer.hand.rotation import axis_angle_to_matrix
from fasthamer.nn.mano_head import SIZES, START_SPAN, FlatHead, HeadSize, ManoHead

ODD = HeadSize(width=24, depth=2, heads=3, head_width=5, mlp_width=20)


@pytest.fixture(scope="module")
def hand():
    return load_hand("embedded")


def scrambled(channels: int, size: HeadSize, seed: int = 0) -> ManoHead:
    """A head in which every tensor matters: no zeros, no ones."""
    head = ManoHead(channels, size).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in head.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * (0.5 if tensor.ndim < 2 else 0.2))
    return head


def layer_norm(x, weight, bias):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight + bias


def attention(query, key, value, heads):
    """Each head by itself: softmax(q k / sqrt(d)) v."""
    out = []
    width = query.shape[-1] // heads
    for h in range(heads):
        q, k, v = (x[..., h * width : (h + 1) * width] for x in (query, key, value))
        scores = torch.einsum("bqd,bkd->bqk", q, k) * width**-0.5
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        out.append(torch.einsum("bqk,bkd->bqd", weights, v))
    return torch.cat(out, -1)


def gelu(x):
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))


def reference(state: dict, features: torch.Tensor, size: HeadSize) -> tuple[torch.Tensor, ...]:
    """The published head step by step from its state dict: (B, 96) pose, (B, 10) betas, (B, 3) camera."""
    tokens = torch.stack([features[:, :, y, x] for y in range(features.shape[2]) for x in range(features.shape[3])], 1)
    t = {key.removeprefix("transformer."): value for key, value in state.items()}
    query = torch.zeros(len(features), 1, 1) * t["to_token_embedding.weight"].T + t["to_token_embedding.bias"]
    query = query + t["pos_embedding"]
    for i in range(size.depth):
        own, cross, mlp = (f"transformer.layers.{i}.{j}." for j in range(3))
        x = layer_norm(query, t[own + "norm.weight"], t[own + "norm.bias"])
        q, k, v = (x @ t[own + "fn.to_qkv.weight"].T).chunk(3, -1)
        query = query + attention(q, k, v, size.heads) @ t[own + "fn.to_out.0.weight"].T + t[own + "fn.to_out.0.bias"]
        x = layer_norm(query, t[cross + "norm.weight"], t[cross + "norm.bias"])
        k, v = (tokens @ t[cross + "fn.to_kv.weight"].T).chunk(2, -1)
        x = attention(x @ t[cross + "fn.to_q.weight"].T, k, v, size.heads)
        query = query + x @ t[cross + "fn.to_out.0.weight"].T + t[cross + "fn.to_out.0.bias"]
        x = layer_norm(query, t[mlp + "norm.weight"], t[mlp + "norm.bias"])
        x = gelu(x @ t[mlp + "fn.net.0.weight"].T + t[mlp + "fn.net.0.bias"])
        query = query + x @ t[mlp + "fn.net.3.weight"].T + t[mlp + "fn.net.3.bias"]
    query = query[:, 0]
    readouts = (("decpose", "init_hand_pose"), ("decshape", "init_betas"), ("deccam", "init_cam"))
    return tuple(query @ state[f"{n}.weight"].T + state[f"{n}.bias"] + state[start] for n, start in readouts)


def gram_schmidt(six: torch.Tensor) -> torch.Tensor:
    """(..., 6) to (..., 3, 3) with columns b1, b2, b1 x b2: HaMeR's reading of the six numbers."""
    a1, a2 = six[..., :3], six[..., 3:]
    b1 = a1 / a1.norm(dim=-1, keepdim=True)
    b2 = a2 - (b1 * a2).sum(-1, keepdim=True) * b1
    b2 = b2 / b2.norm(dim=-1, keepdim=True)
    b3 = torch.stack([b1[..., i - 2] * b2[..., i - 1] - b1[..., i - 1] * b2[..., i - 2] for i in range(3)], -1)
    return torch.stack([b1, b2, b3], -1)


@pytest.mark.parametrize(("channels", "size"), [(40, ODD), (7, SIZES["tiny"])])
def test_the_head_equals_its_published_definition(channels, size):
    head = scrambled(channels, size)
    features = torch.randn(3, channels, 4, 3, generator=torch.Generator().manual_seed(1))
    pose, betas, camera = reference(head.state_dict(), features, size)
    rotations = gram_schmidt(pose.reshape(3, 16, 6))
    with torch.no_grad():
        mano, found = head.regress(features)
    torch.testing.assert_close(mano.global_orient, rotations[:, :1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mano.hand_pose, rotations[:, 1:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mano.betas, betas, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found, camera, atol=1e-5, rtol=1e-5)


def test_the_full_head_at_hamers_width_equals_its_published_definition():
    head = scrambled(1280, SIZES["full"])
    with torch.no_grad():
        for parameter in head.parameters():
            if parameter.ndim == 2:  # keep activations of order one through six wide layers
                parameter.mul_(5 / parameter.shape[1] ** 0.5)
    features = torch.randn(1, 1280, 16, 12, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        pose, betas, camera = reference(head.state_dict(), features, SIZES["full"])
        mano, found = head.regress(features)
    torch.testing.assert_close(mano.hand_pose, gram_schmidt(pose.reshape(1, 16, 6))[:, 1:], atol=1e-5, rtol=0)
    torch.testing.assert_close(mano.betas, betas, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found, camera, atol=1e-5, rtol=1e-5)


def test_an_untrained_head_answers_the_mean_hand_across_half_the_crop(hand):
    head = ManoHead(8, SIZES["tiny"]).eval()
    head.start_from(hand)
    for readout in (head.decpose, head.decshape, head.deccam):
        nn.init.zeros_(readout.weight)
    with torch.no_grad():
        output = head(torch.randn(1, 8, 2, 2), hand)
    span = (output.keypoints_2d.amax(1) - output.keypoints_2d.amin(1)).max()
    assert span == pytest.approx(START_SPAN, rel=0.1)  # perspective within the hand is not in the formula
    assert output.mano is not None
    assert output.mano.betas.abs().max() == 0
    angles = torch.from_numpy(hand.hands_mean).reshape(15, 3).norm(dim=-1).float()
    cosine = (output.mano.hand_pose[0].diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    torch.testing.assert_close(cosine, angles.cos(), atol=1e-5, rtol=0)


def test_only_the_transformer_is_rounded_under_autocast(hand):
    head = scrambled(8, SIZES["tiny"])
    queries = []
    head.transformer.register_forward_hook(lambda _, __, query: queries.append(query))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        output = head(torch.randn(2, 8, 3, 3), hand)
    assert output.vertices.dtype == output.keypoints_2d.dtype == torch.float32
    with torch.no_grad():
        camera = queries[0].float() @ head.deccam.weight.T + head.deccam.bias + head.init_cam
        vertices, _ = hand(output.mano)
    torch.testing.assert_close(output.camera, camera, atol=1e-5, rtol=0)
    torch.testing.assert_close(output.vertices, vertices, atol=1e-6, rtol=0)


def test_every_parameter_but_the_zero_tokens_weight_gets_a_gradient(hand):
    head = scrambled(8, SIZES["tiny"]).train()
    output = head(torch.randn(2, 8, 3, 3), hand)
    (output.vertices.square().sum() + output.keypoints_2d.square().sum()).backward()
    still = [name for name, value in head.named_parameters() if value.grad is None or not value.grad.abs().max() > 0]
    own = [f"transformer.transformer.layers.{i}.0.fn.to_qkv.weight" for i in range(SIZES["tiny"].depth)]
    assert set(still) <= {"transformer.to_token_embedding.weight", *own}
    # One query attends to itself with weight 1: only the value rows of to_qkv can matter.
    inner = SIZES["tiny"].heads * SIZES["tiny"].head_width
    gradient = dict(head.named_parameters())[own[0]].grad
    assert gradient is not None and gradient[2 * inner :].abs().max() > 0


def test_a_students_attention_knows_where_features_lie_and_hamers_own_does_not():
    torch.manual_seed(0)
    features = torch.randn(1, 8, 2, 2)
    turned = features.flip(-1)  # the same cells, elsewhere
    plain, placed = ManoHead(8, SIZES["tiny"]).eval(), ManoHead(8, SIZES["tiny"], grid=(2, 2)).eval()
    torch.nn.init.normal_(placed.place)
    with torch.no_grad():
        torch.testing.assert_close(plain.summarise(features), plain.summarise(turned))
        assert (placed.summarise(features) - placed.summarise(turned)).abs().max() > 1e-3


def test_the_flat_decoder_starts_from_the_mean_hand_and_learns_from_every_cell(hand):
    head = FlatHead(8, SIZES["tiny"], grid=(2, 3))
    head.start_from(hand)
    torch.nn.init.zeros_(head.decpose.weight)
    torch.nn.init.zeros_(head.decshape.weight)
    features = torch.randn(2, 8, 2, 3, requires_grad=True)
    output = head(features, hand)
    mean = axis_angle_to_matrix(torch.from_numpy(hand.hands_mean).float().reshape(15, 3))
    torch.testing.assert_close(output.mano.hand_pose[0], mean, atol=1e-5, rtol=0)
    output.camera.sum().backward()
    assert (features.grad.abs().sum(1) > 0).all(), "a cell does not reach the read-out"


def test_training_computes_the_same_as_use_and_the_same_gradients():
    torch.manual_seed(0)
    head = ManoHead(24, SIZES["tiny"], (3, 5)).double()
    features, found = torch.randn(4, 24, 3, 5, dtype=torch.float64), {}
    for training in (False, True):
        head.train(training).zero_grad()
        summary = head.summarise(features)
        summary.square().sum().backward()
        found[training] = [summary.detach(), *(each.grad.clone() for each in head.transformer.parameters())]
    for trained, used in zip(found[True], found[False], strict=True):
        torch.testing.assert_close(trained, used, rtol=1e-9, atol=1e-12)
