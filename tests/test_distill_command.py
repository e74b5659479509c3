"""`tools/distill.py` from the outside: what it prints, which files it writes, and what it refuses."""

from __future__ import annotations

import json

import pytest
import torch
from noise_images import Noise

from fasthamer.config import load_config
from fasthamer.data.faults import BadSample
from fasthamer.distill.preparation import prepare
from fasthamer.distill.run import execute
from fasthamer.predict import open_model
from fasthamer.students import load_student
from fasthamer.students.files import box_shape_of, save_student, student_metadata
from fasthamer.teachers.zoo import HAMER_VARIABLE, WILOR_VARIABLE
from fasthamer.tools.distill import main

SMALL = [
    *("--student", "timm:test_resnet", "--decoder-size", "tiny", "--steps", "2"),
    *("IMAGE_SIZE", "64", "STUDENT.IMAGE_SIZE", "64", "STUDENT.PRETRAINED", "False", "DEVICE", "cpu"),
    *("DATA.WORKERS", "0", "DATA.SYNTHETIC_SIZE", "4", "DATA.SYNTHETIC_EVAL_SIZE", "2", "TRAIN.BATCH", "2"),
]


def complaint(capsys, *arguments: str) -> str:
    """The one line that a user's mistake prints."""
    with pytest.raises(SystemExit) as exit_:
        main([*SMALL, *arguments])
    assert exit_.value.code == 2
    message = capsys.readouterr().err.strip().splitlines()
    assert "Traceback" not in "".join(message)
    return message[-1]


@pytest.fixture(scope="module")
def teacher_file(tmp_path_factory):
    """A student as a teacher: untrained, but of the right form."""
    from fasthamer.students import build_student

    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    torch.manual_seed(5)
    save_student(path, build_student("timm:test_resnet", "mano", "tiny", 64), {})
    return str(path)


def test_a_run_leaves_all_that_is_needed_to_know_and_use_it(tmp_path, capsys, teacher_file):
    run = tmp_path / "run"
    options = ["--kd", "hybrid", "--teacher", teacher_file, "TRAIN.EVAL_EVERY", "1", "TRAIN.BEST", "mpjpe_rel_mm"]
    assert main([*SMALL, *options, "--out", str(run)]) == 0
    message = capsys.readouterr().out
    for text in (
        "timm:test_resnet, 0.4 M parameters; decoder mano tiny",
        teacher_file,
        "hybrid, weight 1",
        "cpu, fp32",
        "pa_mpjpe_mm",
        "on 2 crops of 64 pixels",
    ):
        assert text in message
    kept = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    for name in ("config.yaml", "provenance.json", "metrics.jsonl", "student.safetensors", "eval/scores.json"):
        assert name in kept
    assert {"pictures/final.png", "report.html"} <= kept
    assert not [name for name in kept if "part" in name]

    config = load_config(run / "config.yaml")
    assert (config.STUDENT.NAME, config.TRAIN.STEPS, config.KD.MODE) == ("timm:test_resnet", 2, "hybrid")
    origin = json.loads((run / "provenance.json").read_text())
    assert origin["seed"] == 0
    assert origin["teacher"] == {"name": teacher_file, "notice": ""}
    assert origin["packages"]["torch"]
    assert set(origin["data"]) == {"training", "evaluation"}
    scores = json.loads((run / "eval/scores.json").read_text())
    assert scores["n"] == 2
    header = student_metadata(run / "student.safetensors")["metadata"]
    assert header["metrics"] == scores
    assert header["provenance"] == origin
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["phase"] for line in lines] == ["eval", "train"]
    best = student_metadata(run / "student_best.safetensors")["metadata"]
    of_steps = {1: lines[0]["mpjpe_rel_mm"], 2: scores["mpjpe_rel_mm"]}
    assert best["step"] == min(of_steps, key=of_steps.__getitem__)
    assert best["metrics"]["mpjpe_rel_mm"] == min(of_steps.values())
    report = (run / "report.html").read_text(encoding="utf-8")
    for text in (
        "Run run",
        "Loss",
        "Evaluation during the training",
        f"{scores['pa_mpjpe_mm']:.2f}",
        origin["data"]["training"],
    ):
        assert text in report
    student = load_student(run / "student.safetensors")
    assert student(torch.zeros(1, 3, 64, 64)).vertices.shape == (1, 778, 3)


def test_a_run_names_the_teacher_that_auto_stood_for(tmp_path, monkeypatch):
    """So that it goes on with it, whatever the environment's variables say then."""
    for variable in (HAMER_VARIABLE, WILOR_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    settings = ["TEACHER.NAME", "auto", "KD.MODE", "output", "STUDENT.NAME", "timm:test_resnet", "DATA.WORKERS", "0"]
    settings += ["DATA.SYNTHETIC_SIZE", "2", "DATA.SYNTHETIC_EVAL_SIZE", "2", "STUDENT.PRETRAINED", "False"]
    prepared = prepare(load_config(None, [*settings, "IMAGE_SIZE", "64", "DEVICE", "cpu"]), tmp_path / "run")
    assert prepared.cfg.TEACHER.NAME == prepared.origin["teacher"]["name"] == "embedded"


def test_a_second_run_may_start_from_the_first_ones_student(tmp_path, teacher_file):
    run = tmp_path / "run"
    assert main([*SMALL, "--kd", "none", "--init", teacher_file, "--out", str(run), "TRAIN.LR", "0.0"]) == 0
    before, after = load_student(teacher_file).state_dict(), load_student(run / "student.safetensors").state_dict()
    weights = [name for name in before if "running" not in name and "num_batches" not in name]
    assert all(torch.equal(before[name], after[name]) for name in weights)


def test_a_run_may_start_from_a_shipped_student_by_its_name(tmp_path, capsys):
    run, name = tmp_path / "run", "mobilenetv3_l"
    options = ["--student", name, "--decoder-size", "small", "--kd", "none", "--init", name, "TRAIN.LR", "0.0"]
    refused = complaint(capsys, *options, "--out", str(run))
    assert "for images of 128 pixels, whose decoder does not fit 64: it needs STUDENT.IMAGE_SIZE 128" in refused
    assert main([*SMALL, *options, "--out", str(run), "STUDENT.IMAGE_SIZE", "128"]) == 0
    before, after = open_model(name).state_dict(), load_student(run / "student.safetensors").state_dict()
    weights = [key for key in before if "running" not in key and "num_batches" not in key]
    assert all(torch.equal(before[key], after[key]) for key in weights)
    assert box_shape_of(run / "student.safetensors") == "upright"


def test_an_init_of_another_shape_is_refused(capsys, tmp_path, teacher_file):
    message = complaint(
        capsys, "--kd", "none", "--init", teacher_file, "--decoder-size", "small", "--out", str(tmp_path)
    )
    assert "decoder_size is 'tiny'; this run has 'small'" in message


def test_a_folder_with_another_run_is_never_written_into(capsys, tmp_path):
    (tmp_path / "config.yaml").write_text("")
    assert "already holds a run: continue it with --resume, or choose another --out" in complaint(
        capsys, "--kd", "none", "--out", str(tmp_path)
    )
    (tmp_path / "config.yaml").rename(tmp_path / "letter.txt")
    assert "already holds other files" in complaint(capsys, "--kd", "none", "--out", str(tmp_path))


def test_resume_needs_a_run_and_keeps_its_settings(capsys, tmp_path):
    with pytest.raises(SystemExit):
        main(["--resume", "--out", str(tmp_path / "none")])
    assert "holds no run to resume (no config.yaml): to start one there, give its settings" in capsys.readouterr().err
    run = tmp_path / "run"
    assert main([*SMALL, "--kd", "none", "--out", str(run), "--resume"]) == 0  # settings given: it is started
    capsys.readouterr()
    assert "was started with TRAIN.LR 1e-05" in complaint(capsys, "--resume", "--out", str(run), "TRAIN.LR", "0.1")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("TRAIN: {LR: 0.1}")
    again = ("--resume", "--out", str(run), "--config", str(recipe))
    assert "was started with TRAIN.LR 1e-05" in complaint(capsys, *again)
    recipe.write_text("TRAIN: {LR: 1.0e-5}")
    assert main([*again, "--steps", "3", "TRAIN.PICTURE_EVERY", "0"]) == 0  # an older key
    assert "checkpoints/step_2" in capsys.readouterr().out
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == [2, 3]
    origin = json.loads((run / "provenance.json").read_text())
    assert [note["from"] for note in origin["resumed"]] == ["step_2"]
    (run / "provenance.json").write_text(json.dumps({**origin, "hand": "0123"}))
    assert "began with another hand (0123, now" in complaint(capsys, "--resume", "--out", str(run))


def test_a_resumed_run_finds_its_cache_in_another_folder_but_goes_on_with_one(capsys, tmp_path, teacher_file):
    run, cache, moved = (tmp_path / name for name in ("run", "cache", "moved"))
    options = [*SMALL, "--kd", "output", "--teacher", teacher_file, "TEACHER.CACHE_VIEWS", "1", "--out", str(run)]
    assert main([*options, "--teacher-cache", str(cache)]) == 0
    cache.rename(moved)
    again = ["--resume", "--out", str(run), "--steps", "3"]
    assert main([*again, "--teacher-cache", str(moved)]) == 0 and not cache.exists()
    assert "was started with TEACHER.CACHE" in complaint(capsys, *again, "TEACHER.CACHE", "")


def test_a_broken_evaluation_does_not_cost_the_training(tmp_path):
    class Damaged(Noise):
        def __getitem__(self, key):
            raise ValueError(f"sample {key[1]}: damaged image")

    settings = [
        "STUDENT.NAME",
        "timm:test_resnet",
        "STUDENT.DECODER_SIZE",
        "tiny",
        "KD.MODE",
        "none",
        "TRAIN.STEPS",
        "1",
    ]
    prepared = prepare(load_config(None, [*settings, *SMALL[6:]]), tmp_path / "run")
    with pytest.raises(BadSample, match="sample 0: damaged image"):
        execute(prepared._replace(held_out=Damaged()))
    load_student(tmp_path / "run" / "student.safetensors")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--student", "mobilenetv3_x"], "did you mean 'mobilenetv3_"),
        (["--kd", "hybird"], "did you mean 'hybrid'"),
        (["--teacher", "hammer"], "did you mean 'hamer'"),
        (["--teacher", "hamer"], "needs its checkpoint"),
        (["--data", "freehand"], "did you mean 'freihand'"),
        (["--data", "freihand"], "needs DATA.ROOT"),
        (["--data-root", "/nowhere"], "/nowhere"),
        (["--mano", "/nowhere/MANO_RIGHT.pkl"], "/nowhere/MANO_RIGHT.pkl"),
        (["--init", "/nowhere.safetensors"], "/nowhere.safetensors"),
        (["--config", "quickstrat"], "no recipe 'quickstrat'"),
        (["--steps", "many"], "TRAIN.STEPS takes a int"),
        (["TRAIN.STEP", "3"], "did you mean TRAIN.STEPS"),
        (["TRAIN.LR"], "has no value"),
        (["DEVICE", "cuda:99"], "device 'cuda:99'"),
        (["TRAIN.PRECISION", "fp16"], "needs a GPU"),
        (["EVAL.PROTOCOL", "frihand"], "did you mean 'freihand'"),
        (["--kd", "feature", "KD.ALIGNMENT", "exakt"], "did you mean 'exact'"),
        (["KD.LAYER", "blocks.77"], "no layer 'blocks.77'"),
        (["--list", "--decoder-size", "huge"], "'huge'"),
        (["TRAIN.SCHEDULE", "cosin"], "did you mean 'cosine'"),
        (["TRAIN.ACCUMULATE", "0"], "TRAIN.ACCUMULATE is 0: it has to be at least 1"),
        (["TRAIN.BATCH", "-1"], "TRAIN.BATCH is -1"),
        (["TRAIN.SKIPS", "0"], "TRAIN.SKIPS is 0"),
        (["TRAIN.KEEP", "0"], "TRAIN.KEEP is 0"),
        (["EVAL.BATCH", "0"], "EVAL.BATCH is 0"),
        (["DATA.WORKERS", "-1"], "DATA.WORKERS is -1"),
        (["KD.TEMPERATURE", "0"], "KD.TEMPERATURE is 0.0: it has to be above 0"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_2(capsys, tmp_path, monkeypatch, arguments, expected, teacher_file):
    monkeypatch.delenv("FASTHAMER_HAMER_CKPT", raising=False)
    teacher = [] if "--teacher" in arguments else ["--teacher", teacher_file]
    assert expected in complaint(capsys, *teacher, *arguments, "--out", str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
