"""TokenHand's ablations: what is compared, one pass at a tiny scale, going on after a failure, and mistakes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import pytest
import torch

from fasthamer.config import differing, load_config, replaced
from fasthamer.distill.ablation import Plan, ablate, check
from fasthamer.distill.ablation_curves import over_time
from fasthamer.distill.ablation_points import GROUPS, PAPER, all_points, changes, chosen_points
from fasthamer.distill.ablation_report import markdown, write_report
from fasthamer.distill.parallel_runs import JobResult
from fasthamer.hand.mano import load_hand
from fasthamer.students.tokenhand.token_classifier import GENERATORS
from fasthamer.students.tokenhand.tokenizer import Tokenizer, spec_of
from fasthamer.tools import ablate_tokenhand
from fasthamer.training.interrupt import InterruptHandler

RECIPES = sorted((Path(__file__).parents[1] / "configs" / "tokenizer").glob("*.yaml"))
TINY = {
    "TOKENIZER.CODE_WIDTH": "16",
    "TOKENIZER.POINT_WIDTHS": "[8, 16]",
    "TOKENIZER.HELD_OUT": "4",
    "TRAIN.BATCH": "4",
    "STUDENT.NAME": "timm:test_resnet",
    "STUDENT.BACKBONE_FILE": "",
    "STUDENT.PRETRAINED": "False",
    "STUDENT.FREEZE": "0",
    "DATA.SYNTHETIC_SIZE": "8",
    "DATA.SYNTHETIC_EVAL_SIZE": "4",
    "DEVICE": "cpu",
}
OVERRIDES = [text for pair in TINY.items() for text in pair]


def command(out, *more):
    return ["--out", str(out), "--steps", "3", "--student-steps", "2", *more, *OVERRIDES]


@pytest.fixture(scope="module")
def hand():
    return load_hand("embedded")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The default point, trained by the command in this process, since every other one imports torch: its folder."""
    out = tmp_path_factory.mktemp("ablation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fasthamer.distill.ablation.run_jobs", in_turn)
        assert ablate_tokenhand.main(command(out, "--only", "default")) == 0
    return out


def in_turn(queue, jobs, logs, interrupt):
    for job in queue:
        job.call(*job.arguments)
        yield JobResult(job, 1.0, "")


@pytest.mark.parametrize("recipe", [path.stem for path in RECIPES])
def test_a_tokenizers_recipe_builds_and_encodes_a_hand(recipe, hand):
    spec = spec_of(load_config(f"tokenizer/{recipe}").TOKENIZER)
    tokenizer = Tokenizer(spec, hand).eval()
    mesh = hand.layer.v_template.detach()[None]
    with torch.no_grad():
        _, found, quantised = tokenizer(mesh)
    assert quantised.indices.shape == (1, spec.tokens[0])
    assert found.shape == mesh.shape and found.isfinite().all()


def test_every_recipe_is_a_point_and_changes_the_tokenizer_alone():
    points = {point.name: point for point in all_points()}
    assert {path.stem for path in RECIPES} == {point.tokenizer for point in points.values()}
    for point in points.values():
        keys = changes(point).keys()
        assert bool(keys) == (point.name != "default")
        assert all(key.startswith("TOKENIZER.") or key == "STUDENT.GENERATOR" for key in keys)
        assert point.generator in GENERATORS


def test_fewer_layers_are_as_wide_as_the_default_is_at_as_many_tokens():
    node = load_config("tokenizer/default").TOKENIZER
    widths = dict(zip(node.TOKENS, node.WIDTHS, strict=True))
    for name in ("layers_1", "layers_2"):
        fewer = load_config(f"tokenizer/{name}").TOKENIZER
        assert [widths[count] for count in fewer.TOKENS] == fewer.WIDTHS


def test_the_papers_figures_are_the_papers():
    papers = {
        "layers 1, 2, 4": [(6.4, 6.8), (6.1, 6.3), (5.7, 5.9)],
        "token counts": [(5.9, 6.1), (5.7, 5.9)],
        "token generator A, 7x7, D": [(6.2, 6.5), (6.0, 6.3), (5.7, 5.9)],
    }
    groups = {group.title: group for group in GROUPS}
    for title, figures in papers.items():
        assert [PAPER[name] for name in groups[title].points] == figures
    compared = [groups[title].points for title in papers]
    assert PAPER.keys() == {name for points in compared for name in points}
    assert "no gain" in groups["blocks a layer"].finding
    assert "4.9 to 5.1" in groups["codebook 384, 512, 640"].finding


def test_the_list_has_every_point(capsys):
    assert ablate_tokenhand.main(["--list"]) == 0
    output = capsys.readouterr().out
    assert all(point.name in output for point in all_points())
    assert "CODES 640" in output and "the paper 6.4 / 6.8 mm" in output


def test_one_command_trains_scores_and_reports(trained):
    report = json.loads((trained / "ablation.json").read_text())
    row = report["points"]["default"]
    assert (row["M"], row["K"], row["paper"]) == (48, 512, {"pa_mpjpe_mm": 5.7, "pa_mpvpe_mm": 5.9})
    assert row["tokenizer"]["n"] == 1  # a tenth of the 12 hands that 3 steps of 4 look at
    assert row["student"]["pa_mpvpe_mm"] > 0 and row["student"]["n"] == 4
    assert len(row["curve"]) == 3 and row["seconds"] > 0
    assert report["about"]["tokenizers"] == {"steps": 3, "batch": 4, "hands": 12}
    assert len(list((trained / "drawn").glob("*.jpg"))) == 8
    text = (trained / "ablation.md").read_text()
    assert f"| {row['student']['pa_mpjpe_mm']:.2f} | {row['student']['pa_mpvpe_mm']:.2f} | 5.7 | 5.9 |" in text
    assert "3 steps of 4 of 12 hands" in text and "only the order" in text and "Seed 0" in text
    assert cv2.imread(str(trained / "ablation.png")).shape == (400, 1440, 3)


def test_what_is_finished_stays_and_is_reported_again(trained, capsys):
    files = [trained / "tokenizers/default/tokenizer.safetensors", trained / "students/default/student.safetensors"]
    before = [file.stat().st_mtime_ns for file in files]
    assert ablate_tokenhand.main(command(trained, "--only", "default")) == 0
    assert "| default |" in capsys.readouterr().out
    assert [file.stat().st_mtime_ns for file in files] == before


def test_a_failure_costs_what_depends_on_it_and_nothing_else(trained, tmp_path, capsys):
    out = tmp_path / "ablation"
    shutil.copytree(trained, out)
    (out / "tokenizers" / "layers_1").mkdir()
    (out / "tokenizers" / "layers_1" / "mine.txt").write_text("something else")
    assert ablate_tokenhand.main(command(out, "--only", "layers_1")) == 1
    output = capsys.readouterr()
    assert "tokenizer layers_1: failed: ValueError" in output.out and "already holds other files" in output.out
    assert "not finished: tokenizer layers_1, student layers_1" in output.err
    assert list(json.loads((out / "ablation.json").read_text())["points"]) == ["default"]


def test_after_an_interrupt_nothing_begins(tmp_path):
    plan = Plan(tmp_path, chosen_points(["default"]), 3, 2, 1, OVERRIDES)
    with InterruptHandler() as interrupt:
        interrupt.requested = True
        assert not list(ablate(plan, interrupt, print))
    assert not (tmp_path / "tokenizers").exists()
    assert "| what | point |" in write_report(plan)


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert ablate_tokenhand.main(["--out", str(tmp_path / "file" / "out")]) == 1
    assert capsys.readouterr().err.startswith("ablate_tokenhand: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "layer_1"], "did you mean 'layers_1'"),
        (["--steps", "0"], "a tokenizer needs a step"),
        (["--jobs", "0"], "one job at least"),
        (["TRAIN.STEPS", "9"], "see --steps"),
        (["TRAIN.BATHC", "9"], "did you mean TRAIN.BATCH"),
        (["--only", "codes_384", "TOKENIZER.CODES", "256"], "TOKENIZER.CODES is what codes_384 changes"),
        (["--only", "generator_map", "TOKENIZER.POINTS", "[900]"], "an encoder's points get fewer"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        ablate_tokenhand.main(["--out", str(tmp_path / "out"), *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("change", "key"), [({"steps": 4}, "TRAIN.STEPS 3, now it is 4"), ({}, "SEED 0, now it is 1")])
def test_points_that_would_not_compare_are_refused(trained, change, key):
    plan = Plan(trained, chosen_points(["layers_2"]), 3, 2, 2, OVERRIDES)
    check(plan)
    changed = plan._replace(**change) if change else plan._replace(overrides=[*OVERRIDES, "SEED", "1"])
    with pytest.raises(ValueError, match=f"default was started with {key}"):
        check(changed)


def test_a_moved_folder_is_still_the_same(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "moved")
    check(Plan(tmp_path / "moved", chosen_points(["layers_2"]), 3, 2, 2, OVERRIDES))


def test_a_student_whose_teacher_is_resolved_is_still_the_same(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "taught")
    plan = Plan(tmp_path / "taught", chosen_points(["layers_2"]), 3, 2, 2, OVERRIDES)
    config = tmp_path / "taught" / "students" / "default" / "config.yaml"
    stored = replaced(load_config(config), {"TEACHER.NAME": "embedded"})
    assert load_config(config).TEACHER.NAME == "auto"
    config.write_text(stored.dump())
    check(plan)
    config.write_text(replaced(stored, {"SEED": 1}).dump())
    with pytest.raises(ValueError, match="default was started with SEED 1, now it is 0"):
        check(plan)


@pytest.mark.parametrize(("batch", "accumulate"), [(10, 1), (5, 2)])
def test_time_is_that_of_training_alone(tmp_path, batch, accumulate):
    (tmp_path / "config.yaml").write_text(f"TRAIN:\n  BATCH: {batch}\n  ACCUMULATE: {accumulate}\n")
    lines = [
        {"step": 4, "phase": "train", "images_per_second": 20.0},  # 4 x 10 images: 2 s
        {"step": 6, "phase": "eval", "pa_mpvpe_mm": 9.0},
        {"step": 8, "phase": "train", "images_per_second": 10.0},  # as many more: 4 s
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert over_time(tmp_path, 7.0) == [(4.0, 9.0), (6.0, 7.0)]


def test_groups_of_which_one_point_is_there_are_left_out():
    row = {"tokenizer": {"pa_mpvpe_mm": 3.0, "codes_used_share": 0.5}, "mesh_decoder_params_m": 1.2}
    report = dict.fromkeys(("seed", "jobs", "revision", "date"), 0) | {"settings": "", "students": None}
    report["tokenizers"] = {"steps": 1, "batch": 1, "hands": 1}
    text = markdown({"default": row, "blocks_2": row}, report)
    assert "| blocks a layer | default | 3.00 | 50% | 1.20 |  |  | 5.7 | 5.9 |" in text
    assert "|  | blocks_2 | 3.00 | 50% | 1.20 |  |  |  |  |" in text
    assert "no gain" in text and "codebook" not in text


def test_students_differ_from_their_base_in_decoder_and_training_only():
    output = differing(load_config("drawn"), load_config("ablation_student"))
    assert {key.split(".")[0] for key in output} == {"DATA", "STUDENT", "LOSS", "KD", "TRAIN"}
    assert (output["STUDENT.DECODER"], output["KD.MODE"]) == ("token", "none")
