"""HaMeR's checkpoint format: every published tensor is read strictly, and no code in the file ever runs."""

import argparse
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from counting import RandomNumbers
from yacs.config import CfgNode

from fasthamer.files.safe_checkpoint import read_state_dict
from fasthamer.hand.mano import load_hand
from fasthamer.teachers import build_teacher
from fasthamer.teachers.hamer import hollow_hamer
from fasthamer.teachers.hamer_checkpoint import load_hamer, published_shapes

DATA = Path(os.environ.get("FASTHAMER_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
KEYS = DATA / "hamer" / "hamer_state_dict_keys.txt"


@pytest.fixture(scope="module")
def hand():
    return load_hand("embedded")


@pytest.fixture(scope="module")
def official() -> dict[str, tuple[int, ...]]:
    """Names and shapes as read from the published file."""
    if not KEYS.is_file():
        pytest.skip(f"needs {KEYS.name}, the list of HaMeR's tensors, in FASTHAMER_TEST_DATA/hamer")
    shapes = {}
    for line in KEYS.read_text().splitlines():
        name, shape, _ = line.split("\t")
        shapes[name] = tuple(int(n) for n in re.findall(r"\d+", shape))
    return shapes


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Tensors of these shapes that take no trainer: each is one stored number, seen everywhere; all different."""
    return {name: torch.tensor(0.001 * i).expand(shape) for i, (name, shape) in enumerate(shapes.items(), start=1)}


def lightning(path: Path, state: dict[str, torch.Tensor]) -> Path:
    """A file with all that Lightning writes around HaMeR's weights."""
    config = CfgNode({"MODEL": CfgNode({"IMAGE_SIZE": 256, "IMAGE_MEAN": [0.485, 0.456, 0.406]}), "EXTRA": None})
    beside = {
        "discriminator.D_conv1.weight": torch.zeros(32, 9, 1, 1),
        "mano.v_template": torch.zeros(778, 3),
        "initialized": torch.tensor(True),
    }
    torch.save(
        {
            "epoch": 7,
            "global_step": 420000,
            "pytorch-lightning_version": "2.0.3",
            "state_dict": {**state, **beside},
            "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"current": {"ready": 8}}}},
            "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(1.0)}},
            "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-5}]}],
            "lr_schedulers": [],
            "hparams_name": "kwargs",
            "hyper_parameters": {"cfg": config},
        },
        path,
    )
    return path


def test_numpy_values_and_a_namespace_beside_the_weights_are_read_as_inert_data(tmp_path):
    beside = {
        "hyper_parameters": argparse.Namespace(lr=1e-3, steps=3),
        "best": [np.float64(3.5), np.float32(1), np.int64(3), np.bool_(True), np.dtype("float32"), np.arange(3.0)],
        "random": np.random.get_state(),
    }
    torch.save({"state_dict": {"a": torch.ones(2)}, **beside}, tmp_path / "x.ckpt")
    assert read_state_dict(tmp_path / "x.ckpt")["a"].tolist() == [1, 1]
    torch.save({"state_dict": {"a": torch.ones(2)}, "bad": np.array([len], dtype=object)}, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match=r"refused, since it \w+ \S* ?\S*len"):
        read_state_dict(tmp_path / "x.ckpt")


def test_our_names_and_shapes_are_the_published_ones(official, hand):
    assert len(official) == 503
    assert published_shapes(hollow_hamer(hand)) == official


def test_a_checkpoint_with_all_503_published_tensors_loads_strictly(official, hand, tmp_path):
    state = weights(official)
    with RandomNumbers() as random:
        model = load_hamer(lightning(tmp_path / "hamer.ckpt", state), hand)
    assert random.drawn == 0  # no initial weights, which would take a minute
    loaded = model.state_dict()
    assert len(loaded) == 503 and not any(value.is_meta for value in model.state_dict().values())
    assert not model.training
    for name, value in state.items():
        if name == "backbone.pos_embed":
            continue
        ours = name.replace("backbone.", "backbone.network.").replace("last_norm", "norm")
        assert loaded[ours].flatten()[0] == value.flatten()[0], name
        assert loaded[ours].shape == value.shape
    positions = loaded["backbone.network.pos_embed"]
    assert positions.shape == (1, 192, 1280)
    assert positions[0, 0, 0] == 2 * state["backbone.pos_embed"][0, 0, 0]


def test_a_bare_state_dict_loads_too_and_the_zoo_warns_of_the_embedded_hand(official, hand, tmp_path, caplog):
    torch.save(weights(official), tmp_path / "weights.pth")
    teacher = build_teacher("hamer", str(tmp_path / "weights.pth"), hand, "fp32")
    assert teacher.feature_channels == 1280
    assert "HaMeR predicts MANO" in caplog.text


def test_every_missing_unexpected_and_misshapen_tensor_is_named_in_one_error(official, hand, tmp_path):
    state = weights(official)
    del state["mano_head.deccam.bias"], state["backbone.blocks.31.norm2.weight"]
    state["backbone.cls_token"] = torch.zeros(1, 1, 1280)
    state["backbone.pos_embed"] = torch.zeros(1, 197, 1280)
    with pytest.raises(ValueError, match="not HaMeR's checkpoint: 4 of 503 tensors differ") as caught:
        load_hamer(lightning(tmp_path / "hamer.ckpt", state), hand)
    for part in (
        "missing mano_head.deccam.bias",
        "missing backbone.blocks.31.norm2.weight",
        "unexpected backbone.cls_token",
        "backbone.pos_embed is (1, 197, 1280), not (1, 193, 1280)",
    ):
        assert part in str(caught.value)


def test_another_models_checkpoint_is_refused(hand, tmp_path):
    torch.save({"state_dict": {"fc.weight": torch.zeros(3, 3)}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="not HaMeR's checkpoint: 503 of 503"):
        load_hamer(tmp_path / "other.ckpt", hand)


class Attack:
    """Pickled, it would create a file when read."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def test_code_in_a_checkpoint_is_refused_and_never_runs(hand, tmp_path):
    target = tmp_path / "executed"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "hyper_parameters": Attack(target)}, tmp_path / "bad.ckpt")
    with pytest.raises(ValueError, match=r"refused.*system"):
        load_hamer(tmp_path / "bad.ckpt", hand)
    (tmp_path / "old.ckpt").write_bytes(pickle.dumps(Attack(target)))
    with pytest.raises(ValueError, match=r"old\.ckpt"):
        load_hamer(tmp_path / "old.ckpt", hand)
    assert not target.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"version https://git-lfs.github.com/spec/v1\n"])
def test_a_damaged_file_is_a_value_error_that_names_it(content, hand, tmp_path):
    path = tmp_path / "hamer.ckpt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"hamer\.ckpt"):
        load_hamer(path, hand)
