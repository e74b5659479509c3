"""WiLoR's checkpoint format: every published tensor is read strictly, and no code in the file ever runs."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from tiny_wilor import checkpoint, published_state, tiny_wilor

from fasthamer.predict import open_model
from fasthamer.teachers import build_teacher
from fasthamer.teachers.hamer_checkpoint import load_hamer
from fasthamer.teachers.wilor import hollow_wilor
from fasthamer.teachers.wilor_checkpoint import load_wilor, published_shapes


@pytest.fixture
def state(embedded):
    return published_state(tiny_wilor(embedded))


@pytest.fixture
def small_is_published(monkeypatch):
    """The loader takes a small WiLoR for the published size."""
    monkeypatch.setattr("fasthamer.teachers.wilor_checkpoint.hollow_wilor", tiny_wilor)


def load(path, hand):
    return load_wilor(path, hand, tiny_wilor(hand))


def test_the_published_architecture_has_430_tensors_of_639_million_numbers(embedded):
    shapes = published_shapes(hollow_wilor(embedded))
    assert len(shapes) == 430
    count = {  # buffers included
        part: sum(torch.Size(shape).numel() for name, shape in shapes.items() if name.startswith(part))
        for part in ("backbone.", "refine_net.")
    }
    assert count == {"backbone.": 630_964_608, "refine_net.": 8_318_032}
    assert shapes["backbone.pos_embed"] == (1, 193, 1280)
    assert shapes["backbone.pose_emb.weight"] == (1280, 6)
    assert shapes["backbone.blocks.31.mlp.fc1.weight"] == (5120, 1280)
    assert shapes["refine_net.deconv.deconv.1.3.weight"] == (320, 160, 4, 4)
    assert shapes["refine_net.dec_pose.weight"] == (96, 1120)


def test_every_tensor_of_the_network_reaches_ours(state, embedded, tmp_path):
    model = load(checkpoint(tmp_path / "wilor_final.ckpt", state), embedded)
    assert not model.training and not any(value.is_meta for value in model.state_dict().values())
    before = model.state_dict()
    for name, value in state.items():
        changed = load(checkpoint(tmp_path / "changed.ckpt", state | {name: value + 1}), embedded).state_dict()
        moved = [ours for ours in before if not torch.equal(before[ours], changed[ours])]
        assert moved, f"{name} has no effect"
        if name.startswith("refine_net."):
            assert moved == [f"decoder.{name}"]
    assert torch.equal(before["decoder.init_cam"], state["backbone.init_cam"])


def test_a_checkpoint_of_the_published_size_loads_strictly(embedded, tmp_path):
    shapes = published_shapes(hollow_wilor(embedded))
    state = {  # each tensor is one stored number, repeated
        name: torch.tensor(i if name.endswith("num_batches_tracked") else 0.001 * i).expand(shape)
        for i, (name, shape) in enumerate(shapes.items(), start=1)
    }
    loaded = load_wilor(checkpoint(tmp_path / "wilor_final.ckpt", state), embedded).state_dict()
    assert not any(value.is_meta for value in loaded.values())
    weight = "blocks.31.mlp.fc2.weight"
    assert torch.equal(loaded[f"backbone.network.{weight}"], state[f"backbone.{weight}"])
    assert loaded["backbone.network.pos_embed"].shape == (1, 192, 1280)
    assert loaded["backbone.network.pos_embed"][0, 0, 0] == 2 * state["backbone.pos_embed"][0, 0, 0]
    mean, layer = (state[f"backbone.{name}"] for name in ("init_cam", "cam_emb.weight"))
    expected = mean[0] @ layer[0] + state["backbone.cam_emb.bias"][0]
    torch.testing.assert_close(loaded["backbone.parameter_tokens"][0, 17, 0], expected)


def test_half_precision_and_a_bare_state_dict_load_too(state, embedded, tmp_path):
    halved = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    torch.save(halved, tmp_path / "weights.pth")
    loaded = load(tmp_path / "weights.pth", embedded).state_dict()
    floats = {value.dtype for value in loaded.values() if value.is_floating_point()}
    assert floats == {torch.float32}
    assert loaded["decoder.refine_net.deconv.deconv.0.1.num_batches_tracked"] == 1000


def test_the_hand_model_is_the_checkpoints(state, embedded, tmp_path, small_is_published, caplog):
    path = checkpoint(tmp_path / "wilor_final.ckpt", state)
    teacher = build_teacher("wilor", str(path), precision="fp32")
    assert teacher.hand.name == "wilor_final" and teacher.hand.fingerprint == embedded.fingerprint
    assert not caplog.text
    build_teacher("wilor", str(path), embedded, "fp32")
    assert "WiLoR predicts MANO's parameters but the hand is the embedded one" in caplog.text


def test_a_checkpoint_without_the_hand_model_asks_for_mano(state, mano, tmp_path, small_is_published):
    path = str(checkpoint(tmp_path / "wilor_final.ckpt", state, mano=False))
    with pytest.raises(ValueError, match=r"a checkpoint without MANO.*give MANO_RIGHT\.pkl"):
        open_model("wilor", checkpoint=path)
    assert build_teacher("wilor", path, mano, "fp32").hand is mano


def test_every_missing_unexpected_and_misshapen_tensor_is_named_in_one_error(state, embedded, tmp_path):
    del state["refine_net.dec_cam.bias"], state["backbone.cam_emb.weight"]
    state["backbone.cls_token"] = torch.zeros(1, 1, 16)
    state["backbone.pos_embed"] = torch.zeros(1, 197, 16)
    with pytest.raises(
        ValueError, match=r"wilor_final\.ckpt is not WiLoR's checkpoint: 4 of \d+ tensors diff"
    ) as error:
        load(checkpoint(tmp_path / "wilor_final.ckpt", state), embedded)
    for part in (
        "missing refine_net.dec_cam.bias",
        "missing backbone.cam_emb.weight",
        "unexpected backbone.cls_token",
        "backbone.pos_embed is (1, 197, 16), not (1, 193, 16)",
    ):
        assert part in str(error.value)


def test_tensors_beside_the_network_are_named_not_refused(state, embedded, tmp_path, caplog):
    load(checkpoint(tmp_path / "wilor_final.ckpt", state), embedded)
    assert not caplog.text
    load(checkpoint(tmp_path / "more.ckpt", state | {"criterion.weight": torch.zeros(1)}), embedded)
    assert "not part of WiLoR and not used: criterion.weight" in caplog.text


def test_another_models_checkpoint_is_refused(state, embedded, tmp_path):
    torch.save({"state_dict": {"fc.weight": torch.zeros(3, 3)}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"other\.ckpt is not WiLoR's checkpoint: 430 of 430 tensors differ"):
        load_wilor(tmp_path / "other.ckpt", embedded)
    torch.save({"mano_head.deccam.bias": torch.zeros(3)}, tmp_path / "hamer.ckpt")
    with pytest.raises(ValueError, match=r"not WiLoR's checkpoint but HaMeR's .*ask for hamer"):
        load_wilor(tmp_path / "hamer.ckpt", embedded)
    with pytest.raises(ValueError, match=r"not HaMeR's checkpoint but WiLoR's .*ask for wilor"):
        load_hamer(checkpoint(tmp_path / "wilor_final.ckpt", state), embedded)
    with pytest.raises(ValueError, match=r"430 tensors differ"):  # of another depth and width
        load_wilor(tmp_path / "wilor_final.ckpt", embedded)


class Attack:
    """Pickled, it would create a file when read."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def test_code_in_a_checkpoint_is_refused_and_never_runs(state, embedded, tmp_path):
    target = tmp_path / "executed"
    torch.save({"state_dict": state, "hyper_parameters": Attack(target)}, tmp_path / "bad.ckpt")
    with pytest.raises(ValueError, match=r"refused.*system"):
        load(tmp_path / "bad.ckpt", embedded)
    (tmp_path / "old.ckpt").write_bytes(pickle.dumps(Attack(target)))
    with pytest.raises(ValueError, match=r"old\.ckpt"):
        load(tmp_path / "old.ckpt", embedded)
    assert not target.exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_file_cut_short_is_a_value_error_that_names_it(share, state, embedded, tmp_path):
    path = checkpoint(tmp_path / "wilor_final.ckpt", state)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"wilor_final\.ckpt"):
        load(path, embedded)
