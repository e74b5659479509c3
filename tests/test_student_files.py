"""student.safetensors: small, complete, loadable in one line, and refused with reasons when it does not fit."""

import json
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from full_disk import full_disk
from safetensors import safe_open
from safetensors.torch import save_file

import fasthamer.students.files as files
from fasthamer.hand.mano import Hand, load_hand
from fasthamer.hand.mano_files import read_hand_arrays
from fasthamer.students import build_student, load_student, save_student


@pytest.fixture(scope="module")
def hand():
    return load_hand("embedded")


@pytest.fixture(scope="module")
def student(hand):
    torch.manual_seed(0)
    student = build_student(
        "timm:test_resnet", decoder_size="tiny", image_size=64, hand=hand, view=0.75, feature_layer="layer3"
    )
    student.train()(torch.randint(0, 256, (4, 3, 64, 64)))  # batch statistics that differ from the initial ones
    return student.eval()


@pytest.fixture(scope="module")
def image():
    return torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@contextmanager
def network_events():
    """Lists Python's audit events of sockets inside the block: name look-ups and connections."""
    events, listening = [], [True]
    # An audit hook cannot be removed: afterwards it returns at once.
    sys.addaudithook(lambda name, _: events.append(name) if listening and name.startswith("socket.") else None)
    yield events
    listening.clear()


@torch.no_grad()
def test_a_saved_student_comes_back_the_same_without_the_network(student, image, tmp_path, caplog):
    path = tmp_path / "new" / "student.safetensors"
    save_student(path, student, {"metrics": {"pa_mpjpe_mm": 7.5}})
    with network_events() as events:
        loaded = load_student(path)
    assert not events and "ImageNet" not in caplog.text
    assert not loaded.training
    assert loaded.spec == student.spec and loaded.view == student.view
    for found, expected in zip(loaded(image)[:5], student(image)[:5], strict=True):
        assert torch.equal(found, expected)


@torch.no_grad()
def test_half_precision_halves_the_file_and_keeps_the_hand(student, image, tmp_path):
    save_student(tmp_path / "full.safetensors", student, {})
    save_student(tmp_path / "half.safetensors", student, {}, "fp16")
    full, half = ((tmp_path / f"{name}.safetensors").stat().st_size for name in ("full", "half"))
    assert half < 0.6 * full
    loaded = load_student(tmp_path / "half.safetensors")
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}
    assert (loaded(image).vertices - student(image).vertices).abs().max() < 1e-3  # a millimetre
    with pytest.raises(ValueError, match="fp32 or fp16, not 'int8'"):
        save_student(tmp_path / "x.safetensors", student, {}, "int8")


@torch.no_grad()
def test_a_batch_variance_too_large_for_half_precision_survives(hand, tmp_path):
    student = build_student("timm:test_resnet", decoder_size="tiny", image_size=64, hand=hand)
    student.backbone.network.bn1.running_var.fill_(1e6)
    save_student(tmp_path / "half.safetensors", student, {}, "fp16")
    assert (load_student(tmp_path / "half.safetensors").backbone.network.bn1.running_var == 1e6).all()


def test_the_header_describes_the_student_and_the_file_holds_no_hand(student, hand, tmp_path):
    path = tmp_path / "student.safetensors"
    save_student(path, student, {"config": "SEED: 0", "metrics": {"n": 3}})
    header = files.student_metadata(path)
    assert header["metadata"] == {"config": "SEED: 0", "metrics": {"n": 3}}
    assert header["student"]["name"] == "timm:test_resnet"
    assert header["student"]["hand"] == hand.fingerprint
    with safe_open(path, "pt") as file:
        keys = list(file.keys())
    assert {key.split(".")[0] for key in keys} == {"backbone", "decoder"}
    weights = sum(value.numel() for value in student.parameters())
    assert path.stat().st_size < 4 * weights * 1.2  # MANO's arrays alone would add 1.3 MB


def test_another_hand_is_refused_by_name(student, tmp_path):
    path = tmp_path / "student.safetensors"
    save_student(path, student, {})
    arrays = read_hand_arrays("embedded")
    arrays["v_template"] = arrays["v_template"] * np.float64(1.01)
    other = Hand(arrays, "MANO_RIGHT")
    with pytest.raises(ValueError, match=r"trained with the hand 'embedded' \(\w+\), not with 'MANO_RIGHT'"):
        load_student(path, other)


def test_a_save_on_a_full_disk_leaves_the_old_file_and_nothing_else(student, tmp_path):
    path = tmp_path / "student.safetensors"
    save_student(path, student, {"step": 1})
    before = path.read_bytes()

    with full_disk(), pytest.raises(OSError, match=r"cannot write .*student\.safetensors"):
        save_student(path, student, {"step": 2})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_process_that_reads_the_old_file_is_not_disturbed_by_a_new_one(student, tmp_path):
    path = tmp_path / "student.safetensors"
    save_student(path, student, {"step": 1})
    before = path.read_bytes()
    with path.open("rb") as reader:
        save_student(path, student, {"step": 2})
        assert reader.read() == before
    assert files.student_metadata(path)["metadata"] == {"step": 2}


def rewritten(student, path, change):
    """A student's file whose header and tensors went through `change(header, tensors)`."""
    save_student(path, student, {})
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["fasthamer"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    change(header, tensors)
    save_file(tensors, path, {"fasthamer": json.dumps(header)})
    return path


def test_other_files_are_refused_with_reasons(student, tmp_path):
    path = tmp_path / "student.safetensors"
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_student(path)
    save_student(path, student, {})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged"):
        load_student(path)
    path.write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(ValueError, match="not a student's file"):
        load_student(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="no fasthamer header"):
        load_student(path)
    save_file({"a": torch.zeros(1)}, path, {"fasthamer": '{"student": 3'})
    with pytest.raises(ValueError, match="damaged fasthamer header"):
        load_student(path)


def test_errors_of_files_that_do_not_fit_name_what_differs(student, tmp_path):
    path = tmp_path / "student.safetensors"
    rewritten(student, path, lambda header, _: header.update(format="fasthamer-student-9"))
    with pytest.raises(ValueError, match=r"no student that this version.*fasthamer-student-9"):
        load_student(path)
    rewritten(student, path, lambda header, _: header["student"].pop("view"))
    with pytest.raises(ValueError, match="another version"):
        load_student(path)
    rewritten(student, path, lambda header, _: header["student"].update(name="timm:gone"))
    with pytest.raises(ValueError, match="gone"):
        load_student(path)
    rewritten(student, path, lambda _, tensors: tensors.pop("decoder.deccam.bias"))
    with pytest.raises(
        ValueError, match=r"do not fit timm:test_resnet: 1 of \d+ tensors differ: missing decoder.deccam"
    ):
        load_student(path)
