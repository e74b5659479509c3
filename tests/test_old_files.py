"""Files written before the restructuring still open, train on and give the same numbers (tests/data/before_redraw)."""

from __future__ import annotations

import json
import logging
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from fasthamer.config import load_config
from fasthamer.hand.mano import load_hand
from fasthamer.predict import HandMesh
from fasthamer.students.files import student_metadata
from fasthamer.students.tokenhand.files import load_tokenizer, tokenizer_metadata
from fasthamer.tools import distill, train_tokenizer

ARCHIVE = Path(__file__).parent / "data" / "before_redraw" / "files.tar.xz"
EXACT = 1e-3  # relative; on the machine that wrote the files the numbers are the same bit by bit
METRE = 2e-5  # of predicted points; another processor's rounding moved a token decoder's by 7e-6
PIXEL = 0.5  # the old keypoints are the network's own, without the perspective of the image's camera
BOXES = [[8, 8, 56, 56], [0, 0, 40, 60]]
RIGHT = [True, False]
RUN = [  # the settings of every training in expected.json
    *("--student", "timm:test_efficientnet", "--decoder", "flat", "--decoder-size", "tiny", "--kd", "hybrid"),
    *("--teacher", "teacher.safetensors", "--init", "student_flat.safetensors", "IMAGE_SIZE", "64"),
    *("STUDENT.IMAGE_SIZE", "32", "STUDENT.PRETRAINED", "False", "STUDENT.FREEZE", "4", "DATA.SYNTHETIC_SIZE", "4"),
    *("DATA.SYNTHETIC_EVAL_SIZE", "2", "DATA.SYNTHETIC_FOLDER", "drawn", "DATA.WORKERS", "0", "DEVICE", "cpu"),
    *("TRAIN.BATCH", "2", "TRAIN.LR", "1e-3", "TRAIN.LOG_EVERY", "1", "TRAIN.CHECKPOINT_EVERY", "2"),
    *("KD.WEIGHT", "0.3", "KD.FEATURES", "6.0", "KD.DIRECTION", "teacher_to_student"),  # the defaults of that time
]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def old(unpacked, tmp_path, monkeypatch):
    """A copy of the old files, which is the working directory: their settings hold relative paths."""
    shutil.copytree(unpacked, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path / "old"


@pytest.fixture(scope="module")
def expected(unpacked):
    return json.loads((unpacked / "expected.json").read_text())


@pytest.fixture(scope="module")
def arrays(unpacked):
    with np.load(unpacked / "expected.npz") as found:
        return dict(found)


def same_numbers(run: Path, wanted: dict) -> None:
    """A run's log lines and scores are those of the old code; a column may be new, none may be missing."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    scores = json.loads((run / "eval" / "scores.json").read_text())
    for found, before in zip([*lines, scores], [*wanted["metrics"], wanted["scores"]], strict=True):
        for name, value in before.items():
            assert found[name] == (pytest.approx(value, rel=EXACT) if isinstance(value, float | list) else value), name


@pytest.mark.parametrize("decoder", ["mano", "flat", "token"])
def test_a_student_predicts_the_same(unpacked, arrays, decoder):
    path = unpacked / f"student_{decoder}.safetensors"
    assert student_metadata(path)["metadata"] == {"note": "tests"}
    found = HandMesh(path, device="cpu")(arrays["image"], BOXES, RIGHT)
    np.testing.assert_allclose(found.vertices[:, ::40], arrays[f"{decoder}_vertices"], atol=METRE)
    np.testing.assert_allclose(found.joints, arrays[f"{decoder}_joints"], atol=METRE)
    if decoder != "token":  # which predicts keypoints beside the joints; the result has the joints' projections
        np.testing.assert_allclose(found.keypoints_2d, arrays[f"{decoder}_keypoints_2d"], atol=PIXEL)


@pytest.mark.parametrize(("suffix", "package"), [("onnx", "onnxruntime"), ("xml", "openvino"), ("pt2", "torch")])
def test_an_exported_file_predicts_the_same(unpacked, arrays, suffix, package):
    pytest.importorskip(package)
    found = HandMesh(unpacked / f"parameters.{suffix}", hand="embedded")(arrays["image"], BOXES, RIGHT)
    np.testing.assert_allclose(found.vertices[:, ::40], arrays["flat_vertices"], atol=METRE)
    np.testing.assert_allclose(found.keypoints_2d, arrays["flat_keypoints_2d"], atol=PIXEL)


def test_a_tokenizer_gives_the_same_codes_and_meshes(unpacked, arrays, expected):
    path = unpacked / "tokenizer.safetensors"
    tokenizer = load_tokenizer(path, load_hand("embedded"))
    assert tokenizer.digest == expected["tokenizer_digest"]
    assert tokenizer_metadata(path)["metadata"] == {"note": "tests"}
    with torch.no_grad():
        _, found, quantised = tokenizer(torch.from_numpy(arrays["tokenizer_mesh"]))
    assert quantised.indices.tolist() == arrays["tokenizer_indices"].tolist()
    np.testing.assert_allclose(found.numpy(), arrays["tokenizer_vertices"], atol=METRE)


def test_a_run_is_resumed_with_its_own_data_and_ends_with_the_same_numbers(old, expected, caplog):
    with caplog.at_level(logging.WARNING):
        assert distill.main(["--resume", "--out", "run", "--steps", "4"]) == 0
    assert "goes on with data that differ" not in caplog.text
    same_numbers(old / "run", expected["resumed"])
    assert not (old / "run" / "checkpoints" / "step_3").exists()


def test_a_runs_config_is_read_with_its_old_key(unpacked):
    assert "PICTURE_EVERY: 7" in (unpacked / "run" / "config.yaml").read_text()
    assert load_config(unpacked / "run" / "config.yaml").TRAIN.IMAGE_EVERY == 7


def test_a_tokenizers_run_is_resumed_and_ends_with_the_same_numbers(old, expected, caplog):
    with caplog.at_level(logging.WARNING):
        assert train_tokenizer.main(["--resume", "--out", "tokenizer_run", "--steps", "4"]) == 0
    assert "goes on with data that differ" not in caplog.text
    same_numbers(old / "tokenizer_run", expected["tokenizer_resumed"])


@pytest.mark.parametrize(
    ("folder", "more"),
    [
        ("cache", ["TEACHER.CACHE_VIEWS", "1"]),  # with feature maps
        ("cache_outputs", ["--kd", "output", "AUGMENT.COLOUR", "0.1"]),
    ],
)
def test_a_teacher_cache_and_a_cached_synthetic_dataset_are_used_as_they_are(old, expected, capsys, folder, more):
    def content() -> dict[Path, tuple[int, bytes]]:
        files = [path for name in (folder, "drawn") for path in (old / name).iterdir()]
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    before, run = content(), folder.replace("cache", "cached")
    assert distill.main([*RUN, *more, "--teacher-cache", folder, "--steps", "2", "--out", run]) == 0
    assert f"teacher cache {folder}: complete" in capsys.readouterr().out
    assert content().items() >= before.items()  # labels.npy is new
    same_numbers(old / run, expected[run])


def test_packed_shards_train_as_before(old, expected):
    # Before DATA.BLUR was a setting, every dataset blurred.
    data = ["--data", "tars", "--data-root", "shards", "DATA.EVAL_NAME", "synthetic", "DATA.BLUR", "true"]
    assert distill.main([*RUN, *data, "--steps", "2", "--out", "packed"]) == 0
    same_numbers(old / "packed", expected["packed"])


def test_a_checkpoint_holds_the_same_tensors(old):
    """With all that has a state: projection, moving average, discriminator, optimizers."""
    more = ["TRAIN.EMA", "0.9", "LOSS.ADVERSARIAL", "0.0005", "--steps", "1", "--out", "adversarial"]
    assert distill.main([*RUN, *more]) == 0
    wanted = json.loads((old / "checkpoint_layout.json").read_text())
    assert _layout(old / "adversarial" / "checkpoints" / "step_1") == wanted


def _layout(checkpoint: Path) -> dict:
    """The names and shapes of a checkpoint's tensors; an optimizer's, in the order of its parameters."""
    found: dict = {}
    for path in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            found[path.name] = {name: file.get_slice(name).get_shape() for name in sorted(file.keys())}
    saved = torch.load(checkpoint / "optimizers.pt", weights_only=True)
    found["optimizers.pt"] = {
        name: [list(moments["exp_avg"].shape) for _, moments in sorted(state["state"].items())]
        for name, state in saved.items()
        if "state" in state
    }
    found["state.json"] = sorted(json.loads((checkpoint / "state.json").read_text()).keys() - {"processes"})  # is new
    return found
