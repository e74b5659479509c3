"""A tokenizer's file: it comes back the same, and what is none, or of another hand, is refused."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tiny_tokenizers import meshes, tiny_tokenizer

from fasthamer.hand.mano import Hand, load_hand
from fasthamer.hand.mano_files import read_hand_arrays
from fasthamer.students import build_student, load_student, save_student
from fasthamer.students.tokenhand.files import load_tokenizer, save_tokenizer, tokenizer_metadata
from fasthamer.students.tokenhand.tokenizer import TokenizerSpec


@pytest.fixture(scope="module")
def hand():
    return load_hand("embedded")


@pytest.fixture(scope="module")
def other_hand():
    arrays = read_hand_arrays("embedded")
    arrays["v_template"] = arrays["v_template"] * np.float64(1.01)
    return Hand(arrays, "MANO_RIGHT")


@pytest.fixture(scope="module")
def posed(hand):
    return meshes(hand, 8)[0]


@pytest.fixture(scope="module")
def palm(hand):
    return tiny_tokenizer(hand)


@torch.no_grad()
@pytest.mark.parametrize("frame", ["palm", "camera"])
def test_a_saved_tokenizer_comes_back_the_same_and_frozen(hand, posed, tmp_path, frame):
    tokenizer = tiny_tokenizer(hand, frame=frame)
    path = tmp_path / "new" / "tokenizer.safetensors"
    save_tokenizer(path, tokenizer, {"metrics": {"pa_mpvpe_mm": 2.5}})
    loaded = load_tokenizer(path, hand)
    assert loaded.spec == tokenizer.spec and isinstance(loaded.spec, TokenizerSpec)
    assert not loaded.training and not any(each.requires_grad for each in loaded.parameters())
    assert all(map(torch.equal, loaded.state_dict().values(), tokenizer.state_dict().values()))
    assert torch.equal(loaded.labels(posed), tokenizer.labels(posed))
    torch.testing.assert_close(loaded(posed)[1], tokenizer(posed)[1], atol=1e-6, rtol=0)
    assert loaded.digest == tokenizer.digest != tiny_tokenizer(hand, seed=1).digest
    header = tokenizer_metadata(path)
    assert header["metadata"] == {"metrics": {"pa_mpvpe_mm": 2.5}}
    assert header["tokenizer"]["hand"] == hand.fingerprint


@torch.no_grad()
def test_in_half_precision_the_file_is_half_and_the_hand_nearly_the_same(hand, palm, posed, tmp_path):
    save_tokenizer(tmp_path / "full.safetensors", palm, {})
    save_tokenizer(tmp_path / "half.safetensors", palm, {}, "fp16")
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("half", "full")]
    assert sizes[0] < 0.7 * sizes[1]
    loaded = load_tokenizer(tmp_path / "half.safetensors", hand)
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}
    assert loaded.codebook.steps.dtype == torch.int64
    codes = palm.labels(posed)
    assert (loaded.labels(posed) == codes).float().mean() > 0.9
    found, expected = (each.decode(each.codebook.codes[codes]) for each in (loaded, palm))
    assert 1000 * (found - expected).norm(dim=2).max() < 0.5


@torch.no_grad()
def test_no_array_of_the_hand_is_in_the_file(hand, palm, tmp_path):
    path = tmp_path / "tokenizer.safetensors"
    save_tokenizer(path, palm, {})
    arrays = (hand.layer.v_template, hand.J_regressor[:1], palm.decoder.mean, palm.frame.template)
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118
            stored = file.get_tensor(name).float()
            assert not any(stored.shape == each.shape and torch.allclose(stored, each) for each in arrays), name


def test_another_hands_tokenizer_is_refused(palm, other_hand, tmp_path):
    save_tokenizer(tmp_path / "t.safetensors", palm, {})
    with pytest.raises(
        ValueError, match=r"made for the hand 'embedded' \(\w+\), not for 'MANO_RIGHT'.*train_tokenizer"
    ):
        load_tokenizer(tmp_path / "t.safetensors", other_hand)
    with pytest.raises(ValueError, match=r"for its embedded hand only, and this is 'MANO_RIGHT'.*STUDENT\.TOKENIZER"):
        load_tokenizer("auto", other_hand)


def test_a_student_is_no_tokenizer_and_a_tokenizer_no_student(hand, palm, tmp_path):
    one, other = tmp_path / "student.safetensors", tmp_path / "tokenizer.safetensors"
    save_student(one, build_student("timm:test_resnet", decoder_size="tiny", image_size=64, hand=hand), {})
    save_tokenizer(other, palm, {})
    with pytest.raises(ValueError, match=r"student\.safetensors: no tokenizer that.*'fasthamer-student-1', not"):
        load_tokenizer(one, hand)
    with pytest.raises(ValueError, match=r"tokenizer\.safetensors: no student that.*'fasthamer-tokenizer-1', not"):
        load_student(other, hand)


def test_files_that_are_no_tokenizers_are_refused_with_reasons(hand, palm, tmp_path):
    path = tmp_path / "tokenizer.safetensors"
    with pytest.raises(FileNotFoundError, match=r"tokenizer file .* no such file"):
        load_tokenizer(path, hand)
    save_tokenizer(path, palm, {})
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="damaged"):
        load_tokenizer(path, hand)
    path.write_bytes(whole[:100])
    with pytest.raises(ValueError, match="not a tokenizer's file, or a damaged one"):
        load_tokenizer(path, hand)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="no fasthamer header"):
        load_tokenizer(path, hand)
    for text in ('{"format": 3', "[]", '{"format": "fasthamer-tokenizer-1", "tokenizer": 3}'):
        save_file({"a": torch.zeros(1)}, path, {"fasthamer": text})
        with pytest.raises(ValueError, match="damaged fasthamer header"):
            load_tokenizer(path, hand)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda spec: spec.update(codes=32),
            r"do not fit its description: \d+ of \d+ tensors differ: codebook.codes is",
        ),
        (lambda spec: spec.update(tokens=[7, 12]), r"do not fit its description.*is \(1, 6, 16\), not \(1, 7, 16\)"),
        (lambda spec: spec.update(blocks=2), "do not fit its description.*missing decoder.layers.0.blocks.1"),
        (lambda spec: spec.update(frame="crop"), "no frame of the tokens named 'crop'"),
        (lambda spec: spec.pop("codes"), "a tokenizer of another version of fasthamer"),
        (lambda spec: spec.update(colour=3), "a tokenizer of another version of fasthamer.*colour"),
    ],
)
def test_weights_of_another_description_say_what_differs(hand, palm, tmp_path, change, message):
    path = tmp_path / "tokenizer.safetensors"
    save_tokenizer(path, palm, {})
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["fasthamer"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    change(header["tokenizer"])
    save_file(tensors, path, {"fasthamer": json.dumps(header)})
    with pytest.raises((ValueError, KeyError), match=message):
        load_tokenizer(path, hand)
