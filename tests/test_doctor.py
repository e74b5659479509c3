"""`fasthamer doctor`: what is sound, and each thing that is not, with its remedy."""

import base64
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from test_mano_files import checkpoint

import fasthamer
from fasthamer.hand.mano_files import read_hand_arrays
from fasthamer.tools import doctor

ASSETS = Path(fasthamer.__file__).parent / "assets"


@pytest.fixture
def copy(tmp_path):
    """The shipped files as links, so that one can be replaced."""
    for path in ASSETS.rglob("*"):
        if path.is_file():
            target = tmp_path / path.relative_to(ASSETS)
            target.parent.mkdir(exist_ok=True)
            target.symlink_to(path)
    return tmp_path


@pytest.fixture
def no_variables(monkeypatch):
    monkeypatch.delenv("FASTHAMER_HAMER_CKPT", raising=False)
    monkeypatch.delenv("FASTHAMER_WILOR_CKPT", raising=False)


def levels(findings):
    return [each.level for each in findings]


def test_this_installation_has_no_errors(capsys, no_variables):
    assert doctor.main([]) == 0
    printed = capsys.readouterr().out
    for subject in ("python", "torch", "device", "threads", "torchvision", "onnxruntime", "trimesh", "files", "disk"):
        assert f" {subject} " in printed
    assert printed.endswith("0 errors\n")


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("embedded_teacher.safetensors", lambda path: path.write_bytes(path.read_bytes()[:5000]), "cannot be read"),
        ("mediapipe/palm_lite.onnx", lambda path: path.write_bytes(b"\0" * 5000), "cannot be read"),
        ("procedural_hand.npz", lambda path: path.write_bytes(b"PK no archive"), "cannot be read"),
        ("mobilenetv3_l.safetensors", lambda path: path.unlink(), "missing"),
    ],
)
def test_a_damaged_shipped_file_is_named(copy, name, damage, message):
    whole = (copy / name).read_bytes()
    (copy / name).unlink()
    (copy / name).write_bytes(whole)
    damage(copy / name)
    found = list(doctor.assets(copy))
    assert levels(found) == ["error", "ok"]
    assert f"{copy / name}: {message}" in found[0].text and "pip install --force-reinstall" in found[0].text


def test_a_changed_file_does_not_fit_its_checksum(tmp_path):
    path = tmp_path / "hand.npz"
    path.write_bytes((ASSETS / "procedural_hand.npz").read_bytes())
    sha256 = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).rstrip(b"=").decode()  # as in RECORD
    assert doctor.asset_problem(path, sha256) is None
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert "checksum differs" in doctor.asset_problem(path, sha256)


def test_a_mano_file_is_read_and_identified(tmp_path):
    path = ASSETS / "procedural_hand.npz"  # MANO's arrays under MANO's names
    (good,) = doctor.mano(path)
    assert good.level == "ok" and hashlib.sha256(path.read_bytes()).hexdigest() in good.text
    np.savez(tmp_path / "wrong.npz", v_template=np.zeros((5, 3)))
    (tmp_path / "code.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    for name in ("wrong.npz", "code.pkl", "none.pkl"):
        (bad,) = doctor.mano(tmp_path / name)
        assert bad.level == "error" and name in bad.text


def test_checkpoints_are_looked_for_where_the_teachers_do(tmp_path, no_variables, monkeypatch):
    assert levels(doctor.checkpoints(None)) == ["ok"]
    monkeypatch.setenv("FASTHAMER_WILOR_CKPT", str(tmp_path / "none.ckpt"))
    (missing,) = doctor.checkpoints(None)
    assert missing[:2] == ("error", "FASTHAMER_WILOR_CKPT") and "get wilor_final.ckpt" in missing.text
    (tmp_path / "cut.ckpt").write_bytes(b"PK\3\4 cut short")
    torch.save({"state_dict": {"weight": torch.ones(2)}}, tmp_path / "other.ckpt")
    for name in ("cut.ckpt", "other.ckpt"):
        given, _ = doctor.checkpoints(tmp_path / name)
        assert given.level == "error" and name in given.text


def test_a_checkpoint_is_identified(tmp_path, no_variables):
    path = tmp_path / "hamer.ckpt"
    torch.save(checkpoint(read_hand_arrays("embedded")), path)
    (found,) = doctor.checkpoints(path)
    assert found.level == "ok" and "HaMeR" in found.text
    assert hashlib.sha256(path.read_bytes()).hexdigest() in found.text


def test_an_error_is_exit_code_1(tmp_path, capsys, no_variables):
    assert doctor.main(["--mano", str(tmp_path / "none.pkl")]) == 1
    assert "1 error\n" in capsys.readouterr().out
