"""`tools/distill.py --decoder token`: a student that predicts tokens, from the first step to its file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_tokenizers import SPEC, tiny_tokenizer

from fasthamer.config import load_config
from fasthamer.distill.preparation import prepare
from fasthamer.distill.run import execute
from fasthamer.hand.mano import Hand, load_hand
from fasthamer.hand.mano_files import read_hand_arrays
from fasthamer.students import build_student, load_student, save_student
from fasthamer.students.files import student_metadata
from fasthamer.students.tokenhand.files import load_tokenizer, save_tokenizer
from fasthamer.tools.distill import main

SMALL = [
    *("STUDENT.NAME", "timm:test_resnet", "STUDENT.DECODER", "token", "DEVICE", "cpu", "DATA.WORKERS", "0"),
    *("IMAGE_SIZE", "64", "STUDENT.IMAGE_SIZE", "64", "STUDENT.PRETRAINED", "False", "TRAIN.BATCH", "2"),
    *("DATA.SYNTHETIC_SIZE", "4", "DATA.SYNTHETIC_EVAL_SIZE", "2", "TRAIN.LOG_EVERY", "1", "TRAIN.LR", "1e-3"),
    *("TRAIN.STEPS", "2"),
]


@pytest.fixture(scope="module")
def hand():
    return load_hand("embedded")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, hand):
    """`tokenizer.safetensors`, `other_tokenizer.safetensors`, `teacher.safetensors`."""
    folder = tmp_path_factory.mktemp("files")
    save_tokenizer(folder / "tokenizer.safetensors", tiny_tokenizer(hand), {})
    save_tokenizer(folder / "other_tokenizer.safetensors", tiny_tokenizer(hand, seed=5), {})
    torch.manual_seed(5)
    save_student(folder / "teacher.safetensors", build_student("timm:test_resnet", "mano", "tiny", 64, hand=hand), {})
    return folder


@pytest.fixture(scope="module")
def small(folder):
    """The settings of every run; its four images are rendered once."""
    return [*SMALL, "DATA.SYNTHETIC_FOLDER", str(folder / "images")]


@pytest.fixture(scope="module")
def options(folder, small):
    files = ("STUDENT.TOKENIZER", "tokenizer.safetensors"), ("TEACHER.NAME", "teacher.safetensors")
    return [*small, *(each for key, name in files for each in (key, str(folder / name)))]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, options):
    run = tmp_path_factory.mktemp("run") / "run"
    assert main([*options, "--kd", "hybrid", "--out", str(run)]) == 0
    return run


def train(run: Path, settings: list[str], resume: bool = False) -> None:
    """A run without the command, and with one sample in its image, which takes most of the time of so short a run."""
    cfg = load_config(run / "config.yaml" if resume else None, settings)
    execute(prepare(cfg, run, resume), shown=1)


def complaint(capsys, arguments: list[str]) -> str:
    """The one line that a user's mistake prints."""
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    message = capsys.readouterr().err.strip().splitlines()
    assert "Traceback" not in "".join(message)
    return message[-1]


def training(run) -> list[dict]:
    read = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in read if line["phase"] == "train"]


def test_a_token_student_learns_from_labels_and_from_a_teacher_without_tokens(finished, hand, folder):
    terms = {name for name in training(finished)[-1] if name == "tokens" or name.startswith("kd_")}
    assert terms == {"tokens", *("kd_tokens", "kd_token_soft", "kd_keypoints_2d", "kd_joints", "kd_features")}
    scores = json.loads((finished / "eval/scores.json").read_text())
    assert scores["n"] == 2 and scores["pa_mpvpe_mm"] > 0
    assert (finished / "pictures" / "final.png").is_file()
    tokenizer = load_tokenizer(folder / "tokenizer.safetensors", hand)
    assert json.loads((finished / "provenance.json").read_text())["tokenizer"] == tokenizer.digest

    header = student_metadata(finished / "student.safetensors")
    assert header["student"]["tokenizer"] == SPEC._asdict()
    assert header["metadata"]["metrics"] == scores
    student = load_student(finished / "student.safetensors")
    found = student(torch.zeros(1, 3, 64, 64))
    assert found.vertices.shape == (1, 778, 3) and found.logits.shape == (1, 6, 16)
    assert torch.equal(student.decoder.codes, tokenizer.codebook.codes)
    assert all(map(torch.equal, student.decoder.mesh.state_dict().values(), tokenizer.decoder.state_dict().values()))


def test_a_resumed_run_ends_in_the_same_bits(tmp_path, options, finished):
    long, part = tmp_path / "long", tmp_path / "part"
    train(long, [*options, "KD.MODE", "hybrid", "TRAIN.STEPS", "3"])
    shutil.copytree(finished, part)
    train(part, ["TRAIN.STEPS", "3"], resume=True)
    one, other = (load_student(run / "student.safetensors").state_dict() for run in (long, part))
    assert not [name for name in one if not torch.equal(one[name], other[name])]


def test_a_run_goes_on_with_the_tokenizer_it_began_with(capsys, tmp_path, finished):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    origin = json.loads((run / "provenance.json").read_text())
    (run / "provenance.json").write_text(json.dumps({**origin, "tokenizer": "0123"}))
    message = complaint(capsys, ["--resume", "--out", str(run), "--steps", "3"])
    assert "began with another tokenizer (0123, now" in message and "--tokenizer" in message


def test_a_student_starts_only_from_one_with_the_same_tokenizer(capsys, tmp_path, finished, folder, options, small):
    first = str(finished / "student.safetensors")
    cfg = load_config(None, [*options, "KD.MODE", "none", "STUDENT.INIT", first])
    before, after = load_student(first).state_dict(), prepare(cfg, tmp_path / "more").trainer.model.state_dict()
    assert all(map(torch.equal, before.values(), after.values()))
    arguments = [*small, "--kd", "none", "--init", first, "--out", str(tmp_path / "run")]
    message = complaint(capsys, [*arguments, "--tokenizer", str(folder / "other_tokenizer.safetensors")])
    assert "predicts tokens of another tokenizer" in message
    teacher = str(folder / "teacher.safetensors")
    message = complaint(capsys, [*options, "--init", teacher, "--out", str(tmp_path / "run")])
    assert "decoder is 'mano'; this run has 'token'" in message
    assert "generator is 'upsampled'" in complaint(
        capsys, [*options, "--init", first, "--out", str(tmp_path / "run"), "STUDENT.GENERATOR", "map"]
    )


def test_a_token_student_may_be_the_teacher(tmp_path, finished, options):
    teacher = str(finished / "student.safetensors")
    train(tmp_path / "run", [*options, "KD.MODE", "output", "TEACHER.NAME", teacher, "TRAIN.STEPS", "1"])
    assert training(tmp_path / "run")[-1]["kd_tokens"] > 0


def test_a_tokenizer_of_another_hand_is_refused(capsys, tmp_path, options):
    arrays = read_hand_arrays("embedded")
    arrays["v_template"] = arrays["v_template"] * np.float64(1.01)
    path = tmp_path / "mano.safetensors"
    save_tokenizer(path, tiny_tokenizer(Hand(arrays, "MANO_RIGHT")), {})
    message = complaint(capsys, [*options, "--tokenizer", str(path), "--out", str(tmp_path / "run")])
    assert "made for the hand 'MANO_RIGHT'" in message and "not for 'embedded'" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["LOSS.ADVERSARIAL", "0.0005"], "LOSS.ADVERSARIAL needs MANO parameters"),
        (["--decoder-size", "tiny"], "comes in one size, full, not tiny"),
        (["STUDENT.GENERATOR", "upsampeld"], "did you mean 'upsampled'"),
        (["--decoder", "tokens"], "did you mean 'token'"),
        (
            ["--tokenizer", "/nowhere/tokenizer.safetensors"],
            "tokenizer file /nowhere/tokenizer.safetensors: no such file",
        ),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_2(capsys, tmp_path, options, arguments, expected):
    assert expected in complaint(capsys, [*options, *arguments, "--out", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_predicts_nan_ends_the_run_with_one_line(capsys, tmp_path, options, folder, hand):
    teacher = build_student("timm:test_resnet", "mano", "tiny", 64, hand=hand)
    teacher.decoder.decshape.bias.data[0] = float("nan")
    save_student(tmp_path / "teacher.safetensors", teacher, {})
    arguments = [*options, "--kd", "output", "--teacher", str(tmp_path / "teacher.safetensors")]
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "steps in a row were skipped" in message and "teacher vertices is not finite in sample" in message
