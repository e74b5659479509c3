"""Mixes of datasets: their files, what is refused, and a training on one that is interrupted and goes on."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
import torch
import yaml
from miniatures_capture import write_dexycb, write_freihand, write_ho3d
from miniatures_tars import header_offsets, write_shards
from safetensors.torch import load_file

from fasthamer.config import load_config
from fasthamer.data.build import build_dataset, build_training_set, dataset_name
from fasthamer.data.streams import Mix
from fasthamer.hand.mano import load_hand
from fasthamer.tools.distill import main

SMALL = [
    *("--student", "timm:test_resnet", "--decoder-size", "tiny", "--kd", "none"),
    *("IMAGE_SIZE", "64", "STUDENT.IMAGE_SIZE", "64", "STUDENT.PRETRAINED", "False", "DEVICE", "cpu"),
    *("DATA.WORKERS", "0", "DATA.SYNTHETIC_EVAL_SIZE", "2", "TRAIN.BATCH", "2", "TRAIN.IMAGE_EVERY", "0"),
]


@pytest.fixture(scope="module")
def hand():
    return load_hand("embedded")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Tars of which one sample is damaged, and FreiHAND, in one folder."""
    root = tmp_path_factory.mktemp("sets")
    (keys, _) = write_shards(root / "tars", shards=2, samples=4)
    path = root / "tars" / "000000.tar"
    content = bytearray(path.read_bytes())
    begin = header_offsets(path)[f"{keys[1]}.data.pyd"] + 512
    content[begin : begin + 20] = b"\x80" * 20
    path.write_bytes(content)
    write_freihand(root / "freihand", count=2, evaluation=2)
    return root


def write_mix(path: Path, *entries: dict, **more) -> str:
    path.write_text(yaml.safe_dump({"DATA": {"NAME": "mix", "MIX": list(entries), **more}}))
    return str(path)


TARS = {"data": "tars", "root": "tars", "weight": 3}
FREIHAND = {"data": "freihand", "root": "freihand", "split": "training", "weight": 1.0}


def test_hamers_mix_has_its_ten_sets_and_weights():
    cfg = load_config(None, ["DATA.NAME", "hamer_mix"])
    weights = {Path(entry["root"]).name.removesuffix("-train"): entry["weight"] for entry in cfg.DATA.MIX}
    assert weights == {
        **{"freihand": 0.25, "interhand26m": 0.25, "mtc": 0.1, "cocow": 0.1, "rhd": 0.05, "halpe": 0.05},
        **{"mpiinzsl": 0.05, "ho3d": 0.05, "h2o3d": 0.05, "dex": 0.05},
    }
    assert load_config("data/hamer_mix") == cfg  # as a recipe it is the same


def test_a_training_on_hamers_mix_and_the_error_for_a_part_that_is_missing(tmp_path, hand):
    cfg = load_config(None, ["DATA.NAME", "hamer_mix", "DATA.ROOT", str(tmp_path)])
    write_shards(tmp_path / "one", shards=1, samples=2)
    for entry in cfg.DATA.MIX:
        folder = tmp_path / entry["root"]
        folder.mkdir(parents=True)
        for number in range(entry["shards"]):
            (folder / f"{number:06d}.tar").hardlink_to(tmp_path / "one/000000.tar")
    options = ["--data", "hamer_mix", "--data-root", str(tmp_path), "--steps", "2", "--out", str(tmp_path / "run")]
    assert main([*SMALL, *options, "TRAIN.BATCH", "8"]) == 0
    assert (tmp_path / "run/student.safetensors").is_file() and not (tmp_path / "run/skipped.txt").exists()
    mix = build_training_set(cfg, hand)
    assert isinstance(mix, Mix) and len(mix.parts) == 10
    assert mix.summary.startswith("131 shards in ") and "(0.25)" in mix.summary
    (tmp_path / "dataset_tars/rhd-train/000007.tar").unlink()
    with pytest.raises(ValueError, match=r"MIX\[3\]: .*rhd-train holds 41 shards, the set has 42"):
        build_training_set(cfg, hand)


def test_a_mix_file_takes_any_dataset(root, tmp_path, hand):
    file = write_mix(tmp_path / "mine.yaml", TARS, FREIHAND, {"data": "synthetic", "weight": 0.5})
    cfg = load_config(None, ["DATA.NAME", file, "DATA.ROOT", str(root), "DATA.SYNTHETIC_SIZE", "4"])
    assert cfg.DATA.NAME == "mix" and cfg.DATA.MIX[0] == TARS  # the run's config holds the mix itself
    mix = build_training_set(cfg, hand)
    assert mix.shares.tolist() == pytest.approx([3 / 4.5, 1 / 4.5, 0.5 / 4.5])
    items = [item for item, _ in islice(mix.walk(0, 1, None, []), 12)]
    assert all(item.image.shape == (3, 256, 256) for item in items)


def test_a_mix_is_evaluated_on_what_is_named_or_on_synthetic_hands(root, tmp_path, hand):
    options = ["DATA.NAME", write_mix(tmp_path / "mine.yaml", TARS), "DATA.ROOT", str(root)]
    cfg = load_config(None, options)
    assert dataset_name(cfg) == "mix" and dataset_name(cfg, train=False) == "synthetic"
    named = load_config(None, [*options, "DATA.EVAL_NAME", "freihand", "DATA.EVAL_ROOT", str(root / "freihand")])
    assert len(build_dataset(named, hand, train=False)) == 2


def test_synthetic_hands_join_a_stream(root, hand):
    cfg = load_config(None, ["DATA.NAME", "tars", "DATA.ROOT", str(root / "tars"), "DATA.MIX_SYNTHETIC", "0.25"])
    assert build_training_set(cfg, hand).shares.tolist() == [0.75, 0.25]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"data": "freihnad", "root": "x", "weight": 1}, "did you mean 'freihand'"),
        ({"data": "tars", "root": "tars", "wieght": 1}, r"MIX\[0\]: .*did you mean 'weight'"),
        ({"data": "tars", "root": "tars"}, "weight is None"),
        ({"data": "tars", "root": "tars", "weight": "much"}, "weight is 'much'"),
        ({"data": "tars", "root": "tars", "weight": -1}, "positive weight"),
        ({"data": "tars", "root": "nowhere", "weight": 1}, r"MIX\[0\]: no folder .*nowhere.*relative to DATA\.ROOT"),
        ({"data": "mix", "weight": 1}, "a mix within a mix"),
        ("tars", "expected a mapping"),
    ],
)
def test_an_entry_that_cannot_be_says_which_and_why(root, tmp_path, hand, entry, message):
    cfg = load_config(None, ["DATA.NAME", write_mix(tmp_path / "mine.yaml", entry), "DATA.ROOT", str(root)])
    with pytest.raises((ValueError, KeyError, FileNotFoundError), match=message):
        build_training_set(cfg, hand)


def test_a_file_that_is_no_mix_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no mix .*none\.yaml"):
        load_config(None, ["DATA.NAME", str(tmp_path / "none.yaml")])
    (tmp_path / "recipe.yaml").write_text("TRAIN: {STEPS: 3}")
    with pytest.raises(ValueError, match=r"TRAIN\.STEPS belongs in a recipe"):
        load_config(None, ["DATA.NAME", str(tmp_path / "recipe.yaml")])
    (tmp_path / "empty.yaml").write_text("DATA: {NAME: mix}")
    with pytest.raises(ValueError, match=r"expected a list DATA\.MIX"):
        load_config(None, ["DATA.NAME", str(tmp_path / "empty.yaml")])
    (tmp_path / "evil.yaml").write_text("DATA: !!python/object/apply:os.system [exit]")
    with pytest.raises(ValueError, match="not plain YAML"):
        load_config(None, ["DATA.NAME", str(tmp_path / "evil.yaml")])


def test_a_training_on_a_mix_that_is_resumed_ends_in_the_same_weights(root, tmp_path, capsys):
    file = write_mix(tmp_path / "mine.yaml", TARS, FREIHAND)
    options = [*SMALL, "--data", file, "--data-root", str(root), "TRAIN.LR", "1e-3"]
    assert main([*options, "--steps", "6", "--out", str(tmp_path / "straight")]) == 0
    output = capsys.readouterr()
    assert "2 shards in " in output.out and "2 to evaluate on" in output.out
    assert main([*options, "--steps", "2", "--out", str(tmp_path / "parts")]) == 0
    facts = json.loads((tmp_path / "parts/checkpoints/step_2/state.json").read_text())
    assert facts["step"] == 2 and facts["lanes"][0][0][0] == 4  # four samples drawn
    assert main(["--resume", "--out", str(tmp_path / "parts"), "--steps", "6"]) == 0
    weights = [load_file(tmp_path / run / "student.safetensors") for run in ("straight", "parts")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    for run in ("straight", "parts"):
        listed = (tmp_path / run / "skipped.txt").read_text().splitlines()
        assert len(listed) == 1 and "000000.tar" in listed[0] and "not a readable pickle" in listed[0]
    with pytest.raises(SystemExit):
        main(["--resume", "--out", str(tmp_path / "parts"), "--steps", "8", "DATA.WORKERS", "3"])
    assert "resume it so (DATA.WORKERS 1)" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "write"), [("dexycb", write_dexycb), ("ho3d", write_ho3d), ("tars", write_shards)])
def test_every_kind_of_set_trains_alone(name, write, tmp_path):
    write(tmp_path / name)
    options = ["--data", name, "--data-root", str(tmp_path / name), "--steps", "1", "--out", str(tmp_path / "run")]
    evaluation = ["DATA.EVAL_NAME", "synthetic"]
    assert main([*SMALL, *options, *evaluation]) == 0
    assert (tmp_path / "run/student.safetensors").is_file()
