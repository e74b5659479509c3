"""`tools/train_tokenizer.py` from the outside: the files it writes, how it resumes, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from subprocess import PIPE, STDOUT

import cv2
import numpy as np
import pytest
import torch
from tiny_tokenizers import SETTINGS, SPEC, meshes, tiny_tokenizer

from fasthamer.config import load_config
from fasthamer.data.poses import sampled_poses
from fasthamer.distill.tokenizer import prepare_tokenizer, train_tokenizer
from fasthamer.distill.tokenizer_scores import score_tokenizer
from fasthamer.distill.tokenizer_trainer import Meshes, Reconstruction, TokenizerTrainer
from fasthamer.hand.mano import load_hand
from fasthamer.hand.rotation import random_rotations
from fasthamer.students.tokenhand.files import load_tokenizer, tokenizer_metadata
from fasthamer.tools.train_tokenizer import main
from fasthamer.training.accelerator import accelerator_for
from fasthamer.training.run_dir import resumed_config
from fasthamer.types import ManoParams

SMALL = [
    *SETTINGS,
    *("DEVICE", "cpu", "DATA.WORKERS", "0", "TOKENIZER.HANDS", "40", "TOKENIZER.HELD_OUT", "4"),
    *("TRAIN.STEPS", "4", "TRAIN.BATCH", "4", "TRAIN.WARMUP", "1", "TRAIN.LOG_EVERY", "1"),
    *("TRAIN.EVAL_EVERY", "2", "TRAIN.CHECKPOINT_EVERY", "2"),
]


@pytest.fixture(scope="module")
def hand():
    return load_hand("embedded")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of four steps."""
    run = tmp_path_factory.mktemp("tokenizer") / "run"
    with (run.parent / "output.txt").open("w") as output, redirect_stdout(output):
        assert main([*SMALL, "--out", str(run)]) == 0
    return run


def train(run: Path, *overrides: str, resume: bool = False) -> None:
    """A run without the command, and with one row in its image, which takes most of the time of so short a run."""
    cfg = resumed_config(run, []) if resume else load_config("tokenizer/default", [*SMALL, *overrides])
    train_tokenizer(prepare_tokenizer(cfg, run, resume), shown=1)


def complaint(capsys, *arguments: str, settings: Sequence[str] = SMALL) -> str:
    """The one line that a user's mistake prints."""
    with pytest.raises(SystemExit) as exit_:
        main([*settings, *arguments])
    assert exit_.value.code == 2
    message = capsys.readouterr().err.strip().splitlines()
    assert "Traceback" not in "".join(message)
    return message[-1]


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


# --- a run


def test_a_run_leaves_all_that_is_needed_to_know_and_use_it(finished, hand):
    kept = {path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file()}
    names = ("config.yaml", "provenance.json", "metrics.jsonl", "tokenizer.safetensors", "eval/scores.json")
    assert {*names, "pictures/reconstructions.png"} <= kept
    assert not [name for name in kept if "part" in name or (Path(name).name.startswith(".") and name != ".lock")]
    image = cv2.imread(str(finished / "pictures" / "reconstructions.png"))
    assert image.shape[0] > 400 and image.shape[1] > 400
    assert image.std() > 20  # something is drawn

    scores = json.loads((finished / "eval" / "scores.json").read_text())
    assert scores["n"] == 4
    assert 0 < scores["pa_mpvpe_mm"] <= scores["mpvpe_mm"] < 500
    assert scores["codes_used_share"] == scores["codes_used"] / 16
    assert 1 <= scores["perplexity"] <= 16

    config = load_config(finished / "config.yaml")
    assert (config.TRAIN.STEPS, config.TOKENIZER.CODES) == (4, 16)
    origin = json.loads((finished / "provenance.json").read_text())
    assert origin["hand"] == hand.fingerprint
    assert set(origin["data"]) == {"training", "evaluation"}
    header = tokenizer_metadata(finished / "tokenizer.safetensors")["metadata"]
    assert header["metrics"] == scores and header["provenance"] == origin
    assert header["config"] == (finished / "config.yaml").read_text()


def test_the_log_holds_loss_codes_and_scores(finished):
    train = [line for line in lines(finished) if line["phase"] == "train"]
    assert [line["step"] for line in train] == [1, 2, 3, 4]
    assert {"total", "reconstruction", "commitment", "perplexity", "dead_codes", "learning_rate"} <= train[0].keys()
    for line in train:
        assert line["total"] == pytest.approx(line["reconstruction"] + line["commitment"], rel=1e-5)
    evaluated = [line for line in lines(finished) if line["phase"] == "eval"]
    assert [line["step"] for line in evaluated] == [2]
    assert "pa_mpvpe_mm" in evaluated[0]


def test_the_file_is_the_tokenizer_that_was_scored(finished, hand):
    tokenizer = load_tokenizer(finished / "tokenizer.safetensors", hand)
    assert tokenizer.spec == SPEC
    held_out = Meshes(hand, sampled_poses(4, 77_003_917), torch.device("cpu")).all(0)
    scores = json.loads((finished / "eval" / "scores.json").read_text())
    found = score_tokenizer(tokenizer, held_out)
    assert found == {name: pytest.approx(value, rel=1e-4) for name, value in scores.items()}


@pytest.mark.parametrize("options", [["TOKENIZER.FRAME", "camera"], ["TRAIN.PRECISION", "bf16"]])
def test_it_learns_with_either_frame_and_in_bf16(tmp_path, options):
    options += ["TRAIN.LR", "0.02", "TRAIN.STEPS", "24", "TRAIN.EVAL_EVERY", "0", "TRAIN.CHECKPOINT_EVERY", "0"]
    train(tmp_path / "run", *options)
    losses = [line["reconstruction"] for line in lines(tmp_path / "run")]
    assert np.mean(losses[-4:]) < 0.95 * np.mean(losses[:4])


def test_the_command_prints_what_was_resolved_and_the_scores(finished):
    output = (finished.parent / "output.txt").read_text()
    assert "tokens   6 of 16 codes, frame palm; mesh decoder [6, 12] x [16, 8]" in output
    assert "hand     embedded (" in output
    assert "poses    sampled: 40; 4 to score on" in output
    last = output.strip().splitlines()[-1]
    assert last.startswith(f"{finished / 'tokenizer.safetensors'}: PA-MPVPE ") and "of the codes in use" in last


# --- going on


def test_a_resumed_run_ends_in_the_same_bits(tmp_path, finished):
    run = tmp_path / "run"
    shutil.copytree(finished, run)  # as if it had been killed before the third step was saved
    shutil.rmtree(run / "checkpoints" / "step_4")
    (run / "tokenizer.safetensors").unlink()
    train(run, resume=True)
    name = "checkpoints/step_4/tokenizer.safetensors"
    assert (run / name).read_bytes() == (finished / name).read_bytes()
    one, other = (load_tokenizer(each / "tokenizer.safetensors", load_hand("embedded")) for each in (finished, run))
    assert all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))
    losses = [
        [(line["step"], line["total"]) for line in lines(each) if line["phase"] == "train"] for each in (finished, run)
    ]
    assert losses[0] == losses[1]
    origin = json.loads((run / "provenance.json").read_text())
    assert [note["from"] for note in origin["resumed"]] == ["step_2"]


def test_a_folder_with_something_else_is_never_written_into(capsys, tmp_path, finished):
    assert "already holds a run: continue it with --resume" in complaint(capsys, "--out", str(finished))
    (tmp_path / "letter.txt").write_text("")
    assert "already holds other files" in complaint(capsys, "--out", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    assert "holds no run to resume" in complaint(capsys, "--resume", "--out", str(tmp_path / "none"), settings=())
    assert "was started with TOKENIZER.CODES 16" in complaint(
        capsys, "--resume", "--out", str(finished), "TOKENIZER.CODES", "32"
    )
    assert "no recipe 'x'" in complaint(capsys, "--resume", "--config", "x", "--out", str(finished))


# --- what goes wrong


@pytest.fixture
def poses_with_a_hole(tmp_path):
    pose = np.zeros((4, 45), np.float32)
    pose[2, 7] = np.nan
    np.savez(tmp_path / "poses.npz", hand_pose=pose)
    return str(tmp_path / "poses.npz")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--frame", "plam"], "did you mean 'palm'"),
        (["--poses", "/nowhere/poses.npz"], "'/nowhere/poses.npz', which is no file"),
        (["--poses", "smapled"], "expected sampled, data"),
        (["--poses", "data", "--data", "freihand"], "needs DATA.ROOT"),
        (["--mano", "/nowhere/MANO_RIGHT.pkl"], "/nowhere/MANO_RIGHT.pkl"),
        (["--config", "tokenizer/defualt"], "no recipe 'tokenizer/defualt'"),
        (["TOKENIZER.POINTS", "[5]"], "points get fewer"),
        (["TOKENIZER.TOKENS", "[6, 12, 24]"], "as many token counts as widths"),
        (["TOKENIZER.TOKENS", "[6, many]"], "of whole numbers of at least 1"),
        (["TOKENIZER.WIDTHS", "[100, 8]"], "take a multiple of 32"),
        (["TOKENIZER.CODES", "0"], "codes is of whole numbers of at least 1"),
        (["TOKENIZER.DECAY", "1.5"], "TOKENIZER.DECAY"),
        (["TOKENIZER.HANDS", "1"], "TOKENIZER.HANDS is 1"),
        (["TRAIN.PRECISION", "fp16"], "take fp32 (auto) or bf16"),
        (["TRAIN.PRECISION", "fp23"], "did you mean 'fp32'"),
        (["DEVICE", "cuda:99"], "device 'cuda:99'"),
        (["--steps", "many"], "TRAIN.STEPS takes a int"),
        (["TOKENIZER.CODE", "3"], "did you mean TOKENIZER.CODES"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_2(capsys, tmp_path, arguments, expected):
    assert expected in complaint(capsys, *arguments, "--out", str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_poses_with_a_nan_are_refused_before_anything_is_written(capsys, tmp_path, poses_with_a_hole):
    message = complaint(capsys, "--poses", poses_with_a_hole, "--out", str(tmp_path / "run"))
    assert "poses.npz" in message and "finite" in message
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_that_has_diverged_is_one_line_when_it_is_scored(capsys, tmp_path):
    run = tmp_path / "run"
    options = ["TRAIN.LR", "1e30", "TRAIN.CLIP", "0.0", "TRAIN.WARMUP", "0", "TRAIN.CHECKPOINT_EVERY", "1"]
    assert main([*SMALL, *options, "--frame", "camera", "--out", str(run)]) == 1
    assert "train_tokenizer: the prediction of sample 0 is not finite" in capsys.readouterr().err
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step_1"]
    assert not (run / "tokenizer.safetensors").exists()


def test_a_collapsed_codebook_is_reported_with_what_to_change(hand):
    """After many batches in which one code of 16 was chosen."""
    tokenizer = tiny_tokenizer(hand)
    trainer = TokenizerTrainer(load_config("tokenizer/default"), tokenizer, accelerator_for("cpu", "fp32", 1))
    trainer.begin(0, 1)
    assert not trainer.report().warning
    tokenizer.codebook.steps.fill_(1000)
    tokenizer.codebook.chosen.zero_()[3] = 24.0
    report = trainer.report()
    assert report.values["perplexity"] == pytest.approx(1.0) and report.values["dead_codes"] == 15
    assert "the codebook has collapsed" in report.warning and "TRAIN.LR" in report.warning


# --- the parts


def test_meshes_are_those_of_the_hand_layer_and_a_function_of_the_seed(hand):
    poses = sampled_poses(6, 0)
    table = Meshes(hand, poses, torch.device("cpu"))
    rows, turns = torch.tensor([4, 1, 1]), random_rotations(3, torch.Generator().manual_seed(0))
    expected, _ = hand(ManoParams(turns[:, None], poses.hand_pose[rows], poses.betas[rows]))
    torch.testing.assert_close(table.of(rows, turns), expected, atol=1e-6, rtol=0)
    assert len(table) == 6 and table.all(3).shape == (6, 778, 3)
    assert torch.equal(table.drawn(5, [0, 7, 0]), table.drawn(5, [0, 7, 0]))
    assert not torch.equal(table.drawn(5, [0, 7, 0]), table.drawn(5, [0, 7, 1]))


def test_the_loss_is_the_papers_in_decimetres(hand):
    tokenizer = tiny_tokenizer(hand)
    vertices = meshes(hand, 3, seed=1)[0]
    terms = Reconstruction(tokenizer, 10.0, 5.0)(vertices)
    placed, found, quantised = tokenizer(vertices)
    torch.testing.assert_close(terms["reconstruction"], 10 * (10 * (placed - found)).abs().mean())
    tokens, codes = tokenizer.encode(vertices).tokens, tokenizer.codebook.codes[quantised.indices]
    torch.testing.assert_close(terms["commitment"], 5 * ((tokens - codes) ** 2).mean(), atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(terms["total"], terms["reconstruction"] + terms["commitment"])


def test_errors_are_millimetres_and_uses_are_counted(hand):
    tokenizer, vertices = tiny_tokenizer(hand), meshes(hand, 5)[0]
    labels = tokenizer.labels(vertices)
    shift = torch.tensor([0.003, 0.0, 0.004])  # 5 mm, which alignment takes back
    tokenizer.decoder.register_forward_hook(lambda *_: tokenizer.align(vertices) + shift)
    scores = score_tokenizer(tokenizer, vertices)
    assert scores["mpvpe_mm"] == pytest.approx(5, rel=1e-4) and scores["mpvpe_mm_p95"] == pytest.approx(5, rel=1e-4)
    assert scores["pa_mpvpe_mm"] == pytest.approx(0, abs=1e-3)
    _, counts = np.unique(labels.numpy(), return_counts=True)
    assert scores["codes_used"] == len(counts) and scores["codes_used_share"] == len(counts) / 16
    shares = counts / counts.sum()
    assert scores["perplexity"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-5)


def test_two_processes_train_one_tokenizer(tmp_path):
    """Under torchrun both hold the same weights and codes; the run is written once."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    options = [*SMALL, "TRAIN.STEPS", "3", "TOKENIZER.RESET_BELOW", "2.0"]
    script = str(Path(__file__).with_name("two_trainers.py"))
    command = [sys.executable, script, str(tmp_path), str(tmp_path / "run"), *options]
    both = []
    for rank in ("0", "1"):
        own = {"RANK": rank, "LOCAL_RANK": rank, "CUDA_VISIBLE_DEVICES": ""}
        both.append(
            subprocess.Popen(command, env={**os.environ, **place, **own}, stdout=PIPE, stderr=STDOUT, text=True)
        )
    message = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], message
    assert "2 processes" in message[0] and "2 processes" not in message[1]
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert one["codebook.steps"] == 3
    loaded = load_tokenizer(tmp_path / "run" / "tokenizer.safetensors", load_hand("embedded")).state_dict()
    assert all(torch.equal(one[name], loaded[name]) for name in one)
