"""Fast-HaMeR's students: their backbones equal torchvision's, and their checkpoints open strictly and run no code."""

import os
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from fasthamer.config import load_config
from fasthamer.distill.preparation import prepare
from fasthamer.hand.mano import load_hand
from fasthamer.hand.mano_files import read_hand_arrays
from fasthamer.predict import HandMesh, open_model
from fasthamer.students import build_student, load_student, save_student
from fasthamer.students.fast_hamer_checkpoint import (
    HEADS,
    MARKS,
    checkpoint_names,
    hollow_student,
    load_fast_hamer,
)
from fasthamer.teachers import build_teacher, hand_for

DATA = Path(os.environ.get("FASTHAMER_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
FACTS = DATA / "fast_hamer"
FILES = {"wide_resnet50": "wide_resnet50_2", "wide_resnet101": "wide_resnet101_2"}  # of the lists of names
MEAN = {"init_hand_pose": "pose", "init_betas": "shape", "init_cam": "cam"}


@pytest.fixture(scope="module")
def hand():
    return load_hand("embedded")


@pytest.fixture(scope="module")
def student():
    torch.manual_seed(0)
    return build_student("fast_hamer:mobilenetv3_l", "hamer").eval()


@pytest.fixture(scope="module")
def state(student):
    """The student's tensors under the checkpoint's names."""
    ours = student.state_dict()
    return {theirs: ours[name] for name, theirs in checkpoint_names(student).items()}


@pytest.fixture(scope="module")
def checkpoint(state, tmp_path_factory):
    return lightning(tmp_path_factory.mktemp("fast_hamer") / "student.ckpt", state)


def lightning(path: Path, state: dict[str, torch.Tensor]) -> Path:
    """A checkpoint with everything that training by distillation saves beside the student."""
    beside = {
        "discriminator.D_conv1.weight": torch.zeros(32, 9, 1, 1),
        "channel_projection.weight": torch.zeros(960, 1280, 1, 1),
        "channel_projection.bias": torch.zeros(960),
        "teacher.backbone.pos_embed": torch.zeros(1, 193, 8),
        "teacher.mano_head.deccam.bias": torch.ones(3),
        "teacher.initialized": torch.tensor(True),
        "initialized": torch.tensor(True),
    }
    torch.save({"epoch": 1, "state_dict": {**state, **beside}, "optimizer_states": []}, path)
    return path


def mano_buffers() -> dict[str, torch.Tensor]:
    """The embedded hand as smplx's buffers."""
    arrays = read_hand_arrays("embedded")
    names = {
        "v_template": "v_template",
        "J_regressor": "J_regressor",
        "shapedirs": "shapedirs",
        "lbs_weights": "weights",
    }
    buffers = {f"mano.{new}": torch.from_numpy(arrays[old]) for new, old in names.items()}
    return buffers | {
        "mano.posedirs": torch.from_numpy(arrays["posedirs"].reshape(-1, 135).T.copy()),
        "mano.parents": torch.from_numpy(arrays["kintree_table"][0]),
        "mano.faces_tensor": torch.from_numpy(arrays["f"]),
        "mano.hand_mean": torch.from_numpy(arrays["hands_mean"]),
        "mano.joint_map": torch.arange(21),
    }


# --- checkpoints


def test_a_checkpoint_opens_as_model_student_teacher_and_start_of_a_run(checkpoint, student, tmp_path, caplog):
    image = torch.randint(0, 256, (1, 3, 256, 256), dtype=torch.uint8)
    with torch.no_grad():
        expected = student(image).vertices
        assert torch.equal(open_model(checkpoint)(image).vertices, expected)
        assert "the hand is the embedded one" in caplog.text
        teacher = build_teacher(str(checkpoint), precision="fp32")
        assert torch.equal(teacher(image).vertices, expected)
        opened = load_student(checkpoint)
        torch.testing.assert_close(opened.deploy()(image).vertices, expected, atol=1e-5, rtol=0)
    assert not any(value.is_meta for value in opened.state_dict().values())
    save_student(tmp_path / "student.safetensors", opened, {})
    with torch.no_grad():
        assert torch.equal(load_student(tmp_path / "student.safetensors")(image).vertices, expected)
    found = HandMesh(checkpoint)(np.zeros((300, 200, 3), np.uint8), [[50, 50, 120, 150]])
    assert found.vertices.shape == (1, 778, 3)
    settings = ["DEVICE", "cpu", "KD.MODE", "none", "STUDENT.PRETRAINED", "False", "STUDENT.INIT", str(checkpoint)]
    settings += ["DATA.SYNTHETIC_SIZE", "4", "DATA.SYNTHETIC_EVAL_SIZE", "2"]
    same = [*settings, "STUDENT.NAME", "fast_hamer:mobilenetv3_l", "STUDENT.DECODER", "hamer"]
    begun = prepare(load_config(None, same), tmp_path / "run").trainer.learner.student
    for name, value in student.state_dict().items():
        assert torch.equal(begun.state_dict()[name], value), name
    with pytest.raises(ValueError, match=r"It needs STUDENT\.NAME fast_hamer:mobilenetv3_l, STUDENT\.DECODER hamer"):
        prepare(load_config(None, settings), tmp_path / "other")


def test_the_hand_inside_a_checkpoint_is_used(state, tmp_path, hand):
    path = lightning(tmp_path / "student.ckpt", {**state, **mano_buffers()})
    opened = open_model(path)
    assert opened.hand.name == "student" and opened.hand.fingerprint == hand.fingerprint
    assert hand_for(str(path)) == str(path)


def test_missing_unexpected_and_misshapen_tensors_are_named_as_in_the_file(state, tmp_path):
    faulty = dict(state)
    del faulty["backbone.4.block.2.fc1.weight"]
    faulty["backbone.17.weight"] = torch.zeros(3)
    faulty["mano_head.deccam.bias"] = torch.zeros(4)
    with pytest.raises(ValueError, match="not Fast-HaMeR's mobilenetv3_l: 3 of 422 tensors differ") as caught:
        load_fast_hamer(lightning(tmp_path / "faulty.ckpt", faulty))
    for part in (
        "missing backbone.4.block.2.fc1.weight",
        "unexpected backbone.17.weight",
        "mano_head.deccam.bias is (4,), not (3,)",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"refine_net.weight": torch.zeros(1)}, r"no Fast-HaMeR student: it also holds refine_net\.weight$"),
        ({"backbone.patch_embed.proj.weight": torch.zeros(1)}, "has a ViT .* name the model hamer"),
        ({"backbone.0.0.weight": torch.zeros(8, 3, 3, 3)}, "its backbone is none of convnext_l, .*mobilevit_s"),
        (
            {"mano_head.transformer.transformer.layers.0.2.fn.net.0.weight": torch.zeros(7, 1024)},
            r"is \(7, 1024\), expected \(1024 or 768 or 512, 1024\)",
        ),
    ],
)
def test_another_models_checkpoint_is_refused_in_one_line(extra, message, state, tmp_path):
    small = {name: value for name, value in state.items() if value.numel() < 2e6}
    with pytest.raises(ValueError, match=message) as caught:
        load_fast_hamer(lightning(tmp_path / "other.ckpt", small | extra))
    assert "\n" not in str(caught.value)


def test_a_checkpoint_without_a_student_or_with_code_is_refused(tmp_path):
    torch.save({"state_dict": {"fc.weight": torch.zeros(2)}}, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match=r"no Fast-HaMeR student: it also holds fc\.weight"):
        open_model(tmp_path / "x.ckpt")
    torch.save({"state_dict": {"a": torch.zeros(2)}, "hyper_parameters": Attack(tmp_path / "ran")}, tmp_path / "y.ckpt")
    with pytest.raises(ValueError, match=r"refused.*system"):
        open_model(tmp_path / "y.ckpt")
    assert not (tmp_path / "ran").exists()


class Attack:
    """Pickled, it would create a file when read."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize(("width", "size"), HEADS.items())
def test_the_width_of_the_heads_mlp_is_read_from_the_file(width, size, hand, tmp_path):
    shapes = {name: value.shape for name, value in names_and_values("mobilenetv3_l", size, hand).items()}
    tensors = {name: torch.zeros((), dtype=torch.float32).expand(shape) for name, shape in shapes.items()}
    torch.save({"state_dict": tensors}, tmp_path / "x.ckpt")
    opened = load_fast_hamer(tmp_path / "x.ckpt", hand)
    assert opened.spec["decoder_size"] == size
    assert opened.decoder.state_dict()["transformer.transformer.layers.5.2.fn.net.3.weight"].shape == (1024, width)


def names_and_values(name, size, hand):
    hollow = hollow_student(name, size, hand)
    ours = hollow.state_dict()
    return {theirs: ours[key] for key, theirs in checkpoint_names(hollow).items()}


# --- against the official module's names and outputs


def listed(file: str) -> dict[str, tuple[tuple[int, ...], str]]:
    """Name -> shape and dtype."""
    path = FACTS / file
    if not path.is_file():
        pytest.skip(f"needs {file}, a list of Fast-HaMeR's tensors, in FASTHAMER_TEST_DATA/fast_hamer")
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    return {name: (tuple(int(n) for n in re.findall(r"\d+", shape)), kind) for name, shape, kind in rows}


@pytest.mark.parametrize("name", MARKS)
def test_names_and_shapes_are_the_official_ones(name, hand, tmp_path):
    official = {key: shape for key, (shape, _) in listed(f"{FILES.get(name, name)}_keys.txt").items()}
    ours = names_and_values(name, "full", hand)
    squeezed = {
        key: tuple(n for i, n in enumerate(shape) if i == 0 or "layer_scale" not in key)
        for key, shape in official.items()
    }
    assert {key: tuple(value.shape) for key, value in ours.items()} == squeezed
    tensors = {key: torch.zeros(()).expand(shape) for key, shape in official.items()}
    others = {key: torch.zeros(()).expand(shape) for key, (shape, _) in listed("other_keys.txt").items()}
    torch.save({"state_dict": {**tensors, **others}}, tmp_path / "x.ckpt")
    assert load_fast_hamer(tmp_path / "x.ckpt", hand).spec["name"] == f"fast_hamer:{name}"


@pytest.mark.parametrize("name", ["mobilenetv3_l", "mobilevit_s", "resnet50", "convnext_l"])
def test_outputs_on_seeded_weights_are_the_official_ones(name, hand, tmp_path):
    golden_file, means = FACTS / f"{name}_seed0.npz", DATA / "hamer" / "mano_mean_params.npz"
    for path in (golden_file, means):
        if not path.is_file():
            pytest.skip(f"needs {path.name} in FASTHAMER_TEST_DATA/{path.parent.name}")
    golden, mean = np.load(golden_file), np.load(means)
    tensors = {
        key: seeded(key, shape, kind, float(golden["conv_gain"]), mean)
        for key, (shape, kind) in listed(f"{name}_keys.txt").items()
    }
    torch.save({"state_dict": tensors}, tmp_path / "x.ckpt")
    student = load_fast_hamer(tmp_path / "x.ckpt", hand)
    image = torch.from_numpy(np.random.default_rng(7).standard_normal((2, 3, 256, 256), dtype=np.float32))
    with torch.no_grad():
        features = student.backbone(image)[1]
        output = student.decoder(features, hand)
    sample = features[:, :: int(golden["feat_channel_step"]), ::2, ::2]
    np.testing.assert_allclose(sample, golden["feat_sample"], atol=1e-4 * np.abs(golden["feat_sample"]).max(), rtol=0)
    found = {
        **output.mano._asdict(),
        "cam": output.camera,
        "keypoints_3d": output.joints,
        "keypoints_2d": output.keypoints_2d,
    }
    for key, value in found.items():
        np.testing.assert_allclose(value, golden[key], atol=1e-4, rtol=0, err_msg=key)


def seeded(key, shape, kind, conv_gain, mean) -> torch.Tensor:
    """The official outputs' weights, by the rule in the facts that come with them."""
    if "int" in kind:
        return torch.zeros(shape, dtype=torch.int64)
    if ".init_" in key:
        return torch.from_numpy(mean[MEAN[key.split(".")[1]]].astype(np.float32).reshape(shape))
    x = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape, dtype=np.float32)
    if key.endswith(".running_mean"):
        x = 0.02 * x
    elif key.endswith(".running_var"):
        x = 1 + 0.1 * np.abs(x)
    elif len(shape) == 1 and key.endswith(".weight"):
        x = 1 + 0.1 * x
    elif key.endswith(".layer_scale"):
        x = 0.3 * x
    elif len(shape) in (1, 3):
        x = 0.02 * x
    else:
        x = x / np.sqrt(np.prod(shape[1:])) * (conv_gain if len(shape) == 4 and key.startswith("backbone.") else 1)
    return torch.from_numpy(np.asarray(x, np.float32))
