"""HaMeR as a teacher: its ViT against a definition by hand, its behaviour as a frozen model, and at full size."""

import pytest
import torch

from fasthamer.hand.mano import load_hand
from fasthamer.nn.mano_head import SIZES, ManoHead
from fasthamer.nn.normalise import IMAGENET_MEAN, IMAGENET_STD
from fasthamer.students import build_student, save_student
from fasthamer.teachers import Teacher, build_teacher, random_hamer, resolve_teacher
from fasthamer.teachers.embedded import load_embedded
from fasthamer.teachers.hamer import HaMeR
from fasthamer.teachers.hamer_checkpoint import published_shapes, to_ours
from fasthamer.teachers.vit import PoseViT
from fasthamer.teachers.zoo import HAMER_VARIABLE, hand_for
from fasthamer.types import View

WIDTH, DEPTH, HEADS = 16, 3, 2


@pytest.fixture(scope="module")
def hand():
    return load_hand("embedded")


@pytest.fixture
def no_hamer(monkeypatch):
    monkeypatch.delenv(HAMER_VARIABLE, raising=False)


def small_hamer(hand) -> HaMeR:
    return HaMeR(PoseViT(WIDTH, DEPTH, HEADS), ManoHead(WIDTH, SIZES["tiny"]), hand)


def published_state(model: HaMeR, seed: int = 0) -> dict[str, torch.Tensor]:
    """A random state dict with the published names and shapes; no tensor is without effect."""
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in published_shapes(model).items()}


def layer_norm(x, weight, bias):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight + bias


def reference_vit(state: dict, image: torch.Tensor, heads: int, depth: int) -> torch.Tensor:
    """ViTPose's backbone from the published state dict, written out: (B, 3, 256, 192) to (B, C, 16, 12)."""
    t = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    padded = torch.zeros(len(image), 3, 260, 196)
    padded[:, :, 2:-2, 2:-2] = image
    rows = []
    for y in range(16):
        for x in range(12):
            patch = padded[:, :, 16 * y : 16 * y + 16, 16 * x : 16 * x + 16]
            token = torch.einsum("bcij,ocij->bo", patch, t["patch_embed.proj.weight"]) + t["patch_embed.proj.bias"]
            rows.append(token + t["pos_embed"][0, 12 * y + x + 1] + t["pos_embed"][0, 0])
    x = torch.stack(rows, 1)
    for i in range(depth):
        p = f"blocks.{i}."
        y = layer_norm(x, t[p + "norm1.weight"], t[p + "norm1.bias"])
        qkv = torch.einsum("bnc,oc->bno", y, t[p + "attn.qkv.weight"]) + t[p + "attn.qkv.bias"]
        q, k, v = qkv.reshape(*qkv.shape[:2], 3, heads, -1).unbind(2)
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
        mixed = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v).flatten(2)
        x = x + mixed @ t[p + "attn.proj.weight"].T + t[p + "attn.proj.bias"]
        y = layer_norm(x, t[p + "norm2.weight"], t[p + "norm2.bias"])
        y = y @ t[p + "mlp.fc1.weight"].T + t[p + "mlp.fc1.bias"]
        y = 0.5 * y * (1 + torch.erf(y / 2**0.5))
        x = x + y @ t[p + "mlp.fc2.weight"].T + t[p + "mlp.fc2.bias"]
    x = layer_norm(x, t["last_norm.weight"], t["last_norm.bias"])
    return x.transpose(1, 2).reshape(len(x), -1, 16, 12)


def test_hamers_vit_equals_its_definition_written_by_hand(hand):
    model = small_hamer(hand)
    state = published_state(model)
    for name in ("pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"):
        state[f"backbone.{name}"] *= 1e-3  # so small that the first norm's epsilon matters
    model.load_state_dict(to_ours(state))
    image = torch.randint(0, 256, (2, 3, 256, 256), generator=torch.Generator().manual_seed(3))
    mean, std = torch.tensor(IMAGENET_MEAN)[:, None, None], torch.tensor(IMAGENET_STD)[:, None, None]
    seen = ((image / 255 - mean) / std)[:, :, :, 32:-32]
    expected = reference_vit(state, seen, HEADS, DEPTH)
    with torch.no_grad():
        found = model.eval()(image.to(torch.uint8)).features
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_view_is_the_middle_three_quarters_of_the_crop(hand):
    model = Teacher(small_hamer(hand), "fp32")
    assert model.view == View(-0.375, -0.5, 0.375, 0.5)
    image = torch.rand(1, 3, 256, 256) * 255
    outside = image.clone()
    outside[:, :, :, :32] = 0
    outside[:, :, :, -32:] = 0
    assert torch.equal(model(image).vertices, model(outside).vertices)
    outside[:, :, :, 32] = 0
    assert not torch.equal(model(image).features, model(outside).features)


def test_a_teacher_is_frozen_whatever_is_asked_of_it(hand):
    model = small_hamer(hand)
    for block in model.backbone.network.blocks:
        block.drop_path1.drop_prob = 0.55  # as HaMeR trained
    teacher = Teacher(model, "fp32").train()
    image = torch.randint(0, 256, (1, 3, 256, 256), dtype=torch.uint8)
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    target = teacher(image)
    assert torch.equal(target.vertices, teacher(image).vertices)
    assert not target.features.requires_grad
    weight = torch.ones(WIDTH, requires_grad=True)
    (target.features * weight[:, None, None]).sum().backward()  # an inference tensor would refuse
    assert weight.grad is not None


def test_the_teachers_precision_is_its_own(hand):
    model = small_hamer(hand)
    model.load_state_dict(to_ours(published_state(model)))
    image = torch.randint(0, 256, (1, 3, 256, 256), dtype=torch.uint8)
    full, half = Teacher(model, "fp32"), Teacher(model, "bf16")
    exact = full(image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(full(image).features, exact.features)
    rounded = half(image)
    assert rounded.features.dtype == rounded.vertices.dtype == torch.float32
    difference = (rounded.features - exact.features).abs().mean() / exact.features.abs().mean()
    assert 1e-4 < difference < 0.1
    with pytest.raises(KeyError, match="bf16"):
        Teacher(model, "fp8")


def test_full_size_hamer_sees_one_image(hand):
    teacher = Teacher(random_hamer(hand), "fp32")
    parameters = {
        part: sum(p.numel() for p in getattr(teacher.model, part).parameters()) / 1e6
        for part in ("backbone", "mano_head")
    }
    assert parameters["backbone"] == pytest.approx(630.8, rel=0.001)
    assert parameters["mano_head"] == pytest.approx(39.5, rel=0.001)
    output = teacher(torch.randint(0, 256, (1, 3, 256, 256), dtype=torch.uint8))
    assert output.features.shape == (1, teacher.feature_channels, 16, 12) == (1, 1280, 16, 12)
    assert output.vertices.shape == (1, 778, 3)
    for tensor in (output.vertices, output.joints, output.keypoints_2d, output.camera, output.features):
        assert tensor.isfinite().all()


def test_auto_is_hamer_exactly_when_a_checkpoint_is_configured(no_hamer, monkeypatch):
    name, why = resolve_teacher("auto")
    assert name == "embedded" and HAMER_VARIABLE in why
    name, why = resolve_teacher("auto", "there/hamer.ckpt")
    assert name == "hamer" and "there/hamer.ckpt" in why
    monkeypatch.setenv(HAMER_VARIABLE, "elsewhere/hamer.ckpt")
    name, why = resolve_teacher("auto")
    assert name == "hamer" and "elsewhere/hamer.ckpt" in why and HAMER_VARIABLE in why
    assert resolve_teacher("embedded", "there/hamer.ckpt")[0] == "embedded"


def test_hamer_without_a_checkpoint_explains_how_to_get_it(no_hamer, hand):
    with pytest.raises(FileNotFoundError, match=r"hamer_demo_data\.tar\.gz.*--teacher-ckpt.*non-commercial"):
        build_teacher("hamer", "", hand)
    with pytest.raises(FileNotFoundError, match=r"no HaMeR checkpoint .nowhere\.ckpt"):
        build_teacher("hamer", "nowhere.ckpt", hand)


def test_a_run_directory_stands_for_its_student_whatever_its_name(tmp_path):
    run = tmp_path / "2024 #1 ü"
    run.mkdir()
    (run / "student.safetensors").write_bytes(b"")
    assert resolve_teacher(str(run)) == (str(run / "student.safetensors"), "as given, a student's file")


def test_the_error_for_an_unknown_teacher_names_the_nearest(no_hamer):
    with pytest.raises(KeyError, match="did you mean 'hamer'"):
        resolve_teacher("hamr")


def test_a_students_file_can_teach(tmp_path, hand):
    student = build_student("timm:test_resnet", decoder_size="tiny", image_size=64, hand=hand).eval()
    path = tmp_path / "student.safetensors"
    save_student(path, student, {})
    teacher = build_teacher(str(path), "", hand, "fp32")
    image = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    assert isinstance(teacher, Teacher)
    with torch.no_grad():
        torch.testing.assert_close(teacher(image).vertices, student(image).vertices)


def test_a_student_of_hamer_uses_the_mano_in_its_checkpoint(monkeypatch):
    monkeypatch.delenv(HAMER_VARIABLE, raising=False)
    assert hand_for("hamer", "there/hamer.ckpt") == "there/hamer.ckpt"
    assert hand_for("hamer") == "embedded"
    assert hand_for("embedded", "there/hamer.ckpt") == "embedded"
    monkeypatch.setenv(HAMER_VARIABLE, "elsewhere.ckpt")
    assert hand_for("hamer") == "elsewhere.ckpt"


def test_the_embedded_teacher_is_refused_when_it_is_missing_or_given_another_hand(tmp_path, hand):
    with pytest.raises(FileNotFoundError, match="no embedded teacher"):
        load_embedded(hand, tmp_path / "gone.safetensors")
    student = build_student("timm:test_resnet", decoder_size="tiny", image_size=64, hand=hand)
    save_student(tmp_path / "here.safetensors", student, {}, "fp16")
    assert load_embedded(hand, tmp_path / "here.safetensors").image_size == 64
    stranger = load_hand("embedded")
    stranger.name = "MANO_RIGHT"
    with pytest.raises(ValueError, match=r"predicts the embedded hand's parameters, not those of 'MANO_RIGHT'"):
        build_teacher("embedded", "", stranger)
