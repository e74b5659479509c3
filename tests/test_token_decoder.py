"""The token decoder: where it samples, what it predicts, which parts stay frozen."""

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares
from tiny_tokenizers import tiny_tokenizer
from torch import nn

from fasthamer.config import defaults
from fasthamer.hand.mano import Hand, load_hand
from fasthamer.hand.mano_files import read_hand_arrays
from fasthamer.hand.posed_joints import joints_of_vertices
from fasthamer.students import build_student, load_student, save_student
from fasthamer.students.files import student_metadata
from fasthamer.students.tokenhand.files import save_tokenizer
from fasthamer.students.tokenhand.token_classifier import GENERATORS, WIDTH
from fasthamer.students.tokenhand.token_decoder import TokenDecoder
from fasthamer.students.tokenhand.tokenizer import Tokenizer, spec_of

BACKBONE = "timm:test_resnet"


@pytest.fixture(scope="module")
def hand():
    return load_hand("embedded")


@pytest.fixture(scope="module")
def tokenizer(hand):
    return tiny_tokenizer(hand)


@pytest.fixture(scope="module")
def student(hand, tokenizer):
    torch.manual_seed(0)
    student = build_student(BACKBONE, "token", image_size=64, hand=hand, tokenizer=tokenizer)
    student.train()(images(4))  # batch statistics of its own
    return student.eval()


def images(number: int, size: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(number)
    return torch.randint(0, 256, (number, 3, size, size), dtype=torch.uint8, generator=generator)


def looking(hand, tokenizer, generator: str = "map", view: float = 1.0) -> tuple[TokenDecoder, list[torch.Tensor]]:
    """A decoder whose tokens are nothing but the map where the joints are, and a list of what they have been."""
    decoder = TokenDecoder(WIDTH, tokenizer, hand, generator, view).eval()
    for parameter in (*decoder.summary[2].parameters(), *decoder.place.parameters(), decoder.keypoints.weight):
        nn.init.zeros_(parameter)
    decoder.narrow, seen = nn.Identity(), []
    decoder.across.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].transpose(1, 2)))
    return decoder, seen


def positions(rows: int, columns: int, view: float) -> torch.Tensor:
    """(1, WIDTH, rows, columns): each cell holds its centre in crop units, x and y."""
    x, y = (view * ((torch.arange(number) + 0.5) / number - 0.5) for number in (columns, rows))
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"))
    return torch.cat((grid, torch.zeros(WIDTH - 2, rows, columns)))[None]


# --- shapes


@torch.no_grad()
@pytest.mark.parametrize(("name", "size"), [("test_resnet", 96), ("test_convnext", 64), ("test_vit", 64)])
@pytest.mark.parametrize("generator", GENERATORS)
def test_every_backbone_and_size_gives_a_hand(hand, tokenizer, name, size, generator):
    student = build_student(
        f"timm:{name}", "token", image_size=size, hand=hand, tokenizer=tokenizer, generator=generator
    ).eval()
    found = student(images(2, 80))
    assert found.vertices.shape == (2, 778, 3) and found.joints.shape == (2, 21, 3)
    assert found.keypoints_2d.shape == (2, 21, 2) and found.camera.shape == (2, 3)
    assert found.logits.shape == (2, 6, 16) and found.mano is None
    assert found.features.shape[1] == student.feature_channels
    assert all(each.isfinite().all() for each in found if each is not None)


@torch.no_grad()
def test_a_hand_is_the_mean_of_the_codes_by_probability_decoded_and_turned(student, tokenizer):
    found = student(images(2))
    _, logits, rotation = student.decoder.classify(student.backbone(student.normalise(images(2)))[1])
    mean = torch.einsum("bmk,kd->bmd", torch.softmax(logits, -1), tokenizer.codebook.codes)
    torch.testing.assert_close(found.logits, logits)
    torch.testing.assert_close(found.vertices, tokenizer.decode(mean, rotation), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.joints, joints_of_vertices(student.hand) @ found.vertices, atol=1e-6, rtol=0)


@torch.no_grad()
def test_tokens_of_the_cameras_frame_say_the_rotation_themselves(hand):
    tokenizer = tiny_tokenizer(hand, frame="camera")
    student = build_student(BACKBONE, "token", image_size=64, hand=hand, tokenizer=tokenizer).eval()
    found = student(images(2))
    assert student.decoder.rotation is None
    mean = found.logits.softmax(-1) @ tokenizer.codebook.codes
    torch.testing.assert_close(found.vertices, tokenizer.decoder(mean), atol=1e-6, rtol=0)


def test_with_the_papers_sizes_the_decoder_has_at_most_three_million_parameters(hand):
    tokenizer = Tokenizer(spec_of(defaults().TOKENIZER), hand)
    for channels in (960, 1216, 2048):  # MobileNetV3-L, FastViT-MA36, the widest of all
        decoder = TokenDecoder(channels, tokenizer, hand)
        assert 2.5e6 < sum(each.numel() for each in decoder.parameters()) < 3.0e6  # codes and mesh decoder too


# --- where it looks


@torch.no_grad()
@pytest.mark.parametrize("view", [1.0, 0.75])
@pytest.mark.parametrize("generator", ["map", "upsampled"])
def test_features_are_those_of_the_predicted_joints(hand, tokenizer, generator, view):
    decoder, seen = looking(hand, tokenizer, generator, view)
    if generator == "upsampled":  # as it does, without the convolutions
        decoder.finer = nn.Upsample(scale_factor=4, mode="bilinear", align_corners=False)
    keypoints, _, _ = decoder.classify(positions(12, 10, view))
    assert keypoints.abs().max() > 0.15
    torch.testing.assert_close(seen[0][..., :2], keypoints, atol=1e-6, rtol=0)
    assert not seen[0][..., 2:].any()


@torch.no_grad()
def test_outside_the_map_it_is_the_border_that_is_seen(hand, tokenizer):
    decoder, seen = looking(hand, tokenizer)
    decoder.keypoints.bias.mul_(10)
    decoder.classify(positions(5, 5, 1.0))
    assert seen[0][..., :2].abs().max() == pytest.approx(0.4)


def test_a_map_four_times_finer_is_read(hand, tokenizer):
    sides = {}
    for generator in GENERATORS:
        decoder = TokenDecoder(20, tokenizer, hand, generator).eval()
        decoder.finer.register_forward_hook(lambda _, __, output, name=generator: sides.update({name: output.shape}))
        decoder.classify(torch.randn(1, 20, 7, 7))
    assert sides == {"map": (1, WIDTH, 7, 7), "upsampled": (1, WIDTH, 28, 28)}  # TokenHand's 7x7, its D; A reads none


def test_the_maps_gradient_comes_from_joints_that_no_gradient_moves(hand, tokenizer):
    decoder, _ = looking(hand, tokenizer)
    features = positions(6, 6, 1.0).requires_grad_()
    decoder.classify(features)[1].sum().backward()
    assert features.grad.abs().max() > 0
    assert not decoder.keypoints.bias.grad.any()  # `place`, through which it would come too, has weights of 0 here


# --- hard and soft


@torch.no_grad()
def test_with_confident_logits_soft_inference_is_hard_inference(hand, tokenizer):
    decoder = TokenDecoder(8, tokenizer, hand).eval()
    codes = torch.randint(16, (3, 6), generator=torch.Generator().manual_seed(0))
    unsure = torch.nn.functional.one_hot(codes, 16).float()
    soft, between = decoder.mesh_of(60 * unsure), decoder.mesh_of(unsure)
    decoder.hard = True
    hard = decoder.mesh_of(60 * unsure)
    torch.testing.assert_close(hard, tokenizer.decode(tokenizer.codebook.codes[codes]))
    torch.testing.assert_close(soft, hard, atol=1e-6, rtol=0)
    assert torch.equal(decoder.mesh_of(unsure), hard)
    assert 1000 * (between - hard).norm(dim=2).max() > 1


def test_only_soft_inference_lets_the_gradient_through(hand, tokenizer):
    decoder = TokenDecoder(8, tokenizer, hand).eval()
    logits = torch.randn(2, 6, 16, requires_grad=True)
    decoder.mesh_of(logits).square().sum().backward()
    assert logits.grad.abs().min() > 0
    decoder.hard = True
    assert not decoder.mesh_of(logits).requires_grad


# --- what stays


def test_training_moves_all_but_codes_and_mesh_decoder(hand, tokenizer):
    torch.manual_seed(1)
    student = build_student(BACKBONE, "token", image_size=64, hand=hand, tokenizer=tokenizer).train()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    moving = [each for each in student.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(moving, lr=1e-3, weight_decay=0.1)
    for _ in range(3):  # BatchNorms that start at 0 pass no gradient at first
        found = student(images(4))
        loss = sum(each.square().mean() for each in (found.vertices, found.keypoints_2d, found.logits))
        optimizer.zero_grad()
        (loss + (found.vertices * torch.linspace(0, 1, 778)[:, None]).mean()).backward()
        optimizer.step()
    after = student.state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    frozen = {f"decoder.mesh.{name}" for name in tokenizer.decoder.state_dict()} | {"decoder.codes"}
    assert same == frozen
    for name, value in tokenizer.decoder.state_dict().items():
        assert torch.equal(after[f"decoder.mesh.{name}"], value)


def test_the_tokenizer_is_copied_and_not_shared(student, tokenizer):
    assert student.decoder.codes.data_ptr() != tokenizer.codebook.codes.data_ptr()
    shared = {each.data_ptr() for each in tokenizer.parameters()} & {each.data_ptr() for each in student.parameters()}
    assert not shared


@torch.no_grad()
def test_in_eval_mode_an_image_gives_the_same_hand_every_time(student):
    once, again, alone = student(images(3)), student(images(3)), student(images(3)[1:2])
    for first, second, single in zip(once[:5], again[:5], alone[:5], strict=True):
        assert torch.equal(first, second)
        torch.testing.assert_close(single[0], first[1], atol=1e-4, rtol=1e-4)


# --- the camera


@torch.no_grad()
def test_the_camera_puts_the_joints_where_least_squares_would(student):
    found = student(images(3))
    for joints, keypoints, camera in zip(found.joints, found.keypoints_2d, found.camera, strict=True):
        points, target = joints[:, :2].double().numpy(), keypoints.double().numpy()

        def error(guess, points=points, target=target):
            return (guess[0] / 2 * (points + guess[1:]) - target).ravel()

        best = least_squares(error, [5.0, 0.0, 0.0], x_scale=[1, 0.01, 0.01], xtol=1e-12, ftol=1e-12, gtol=1e-12)
        assert np.square(error(camera.double().numpy())).sum() <= best.cost * 2 * (1 + 1e-4) + 1e-9
        np.testing.assert_allclose(camera, best.x, rtol=1e-2, atol=1e-3)


# --- files and mistakes


@torch.no_grad()
def test_a_students_file_needs_no_tokenizers_file(hand, tokenizer, tmp_path):
    tokenizer_file, path = tmp_path / "tokenizer.safetensors", tmp_path / "student.safetensors"
    save_tokenizer(tokenizer_file, tokenizer, {})
    torch.manual_seed(2)
    student = build_student(
        BACKBONE, "token", image_size=64, view=0.8, hand=hand, tokenizer=tokenizer_file, generator="map"
    ).eval()
    save_student(path, student, {})
    tokenizer_file.unlink()
    loaded = load_student(path, hand)
    assert not loaded.training and loaded.spec == student.spec
    assert (loaded.decoder.generator, loaded.decoder.view) == ("map", 0.8)
    assert not any(each.requires_grad for each in loaded.decoder.mesh.parameters())
    for found, expected in zip(loaded(images(2)), student(images(2)), strict=True):
        assert (found is None and expected is None) or torch.allclose(found, expected, atol=1e-5)
    description = student_metadata(path)["student"]
    assert description["tokenizer"] == tokenizer.spec._asdict() and description["generator"] == "map"


@torch.no_grad()
def test_half_precision_keeps_a_token_student(student, tmp_path, hand):
    save_student(tmp_path / "half.safetensors", student, {}, "fp16")
    loaded = load_student(tmp_path / "half.safetensors", hand)
    assert 1000 * (loaded(images(3)).vertices - student(images(3)).vertices).norm(dim=2).max() < 2


def test_a_students_file_with_another_hand_is_refused(student, tmp_path):
    save_student(tmp_path / "student.safetensors", student, {})
    arrays = read_hand_arrays("embedded")
    arrays["v_template"] = arrays["v_template"] * np.float64(1.01)
    with pytest.raises(ValueError, match="trained with the hand 'embedded'"):
        load_student(tmp_path / "student.safetensors", Hand(arrays, "MANO_RIGHT"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"generator": "upsampeld"}, "no token generator named 'upsampeld'.*did you mean 'upsampled'"),
        ({"decoder_size": "tiny"}, "the decoder token comes in one size, full, not tiny"),
        ({"decoder": "tokens"}, "did you mean 'token'"),
        ({"tokenizer": "/nowhere/t.safetensors"}, "tokenizer file /nowhere/t.safetensors: no such file"),
    ],
)
def test_a_mistake_is_answered_with_what_fits(hand, tokenizer, options, message):
    with pytest.raises((KeyError, ValueError, FileNotFoundError), match=message):
        build_student(
            **{"name": BACKBONE, "decoder": "token", "image_size": 64, "hand": hand, "tokenizer": tokenizer, **options}
        )
