"""The teachers of a study: their names and scores, their hands, and what a run calls them."""

from __future__ import annotations

import numpy as np
import pytest

from fasthamer.config import load_config, replaced
from fasthamer.distill.study.begun import changed
from fasthamer.distill.study.estimates import beside_teacher
from fasthamer.distill.study.grid import read_study
from fasthamer.distill.study.scores import score_cell, score_teacher, teacher_of
from fasthamer.hand.mano import load_hand
from fasthamer.hand.procedural import embedded_arrays
from fasthamer.students import build_student, save_student


def study_of(tmp_path, grid: str, settings: dict[str, object] | None = None):
    """A study with one seed, at the smallest scale; `grid` is its GRID in YAML."""
    path = tmp_path / "teachers.yaml"
    path.write_text(f"RECIPE: quickstart\nSEEDS: [0]\nGRID: {grid}\n")
    small = {"IMAGE_SIZE": 64, "DATA.SYNTHETIC_EVAL_SIZE": 4, "DATA.WORKERS": 0}
    return read_study(path, [str(text) for pair in {**small, **(settings or {})}.items() for text in pair])


def test_students_files_of_one_name_are_two_teachers(tmp_path):
    paths = [f"runs/{size}/student.safetensors" for size in ("small", "large")]
    levels = [f"{name}: {{TEACHER.NAME: {name}}}" for name in ("embedded", "embedded+mobilenetv3_l")]
    levels += [f"level{place}: {{TEACHER.NAME: {path}}}" for place, path in enumerate(paths)]
    study = study_of(tmp_path, f"{{teacher: {{{', '.join(levels)}}}}}")
    names = [teacher_of(study, cell) for cell in study.cells()]
    assert names[:2] == ["embedded", "embedded+mobilenetv3_l"], "the names in recorded studies"
    assert names[2:] == ["runs_small_student.safetensors", "runs_large_student.safetensors"]
    teachers = {names[2]: {"evaluation": {"pa_mpvpe_mm": 10.0}}, names[3]: {"evaluation": {"pa_mpvpe_mm": 5.0}}}
    found = {
        cell.name: {"levels": cell.levels, "scores": {"evaluation": {"pa_mpvpe_mm": 20.0}}} for cell in study.cells()
    }
    ratios = beside_teacher(study, found, teachers)
    assert [ratio.mean for ratio in ratios.values()] == [2, 4]


def test_a_teacher_is_scored_for_each_kind_of_crops_that_levels_choose(tmp_path):
    grid = "{crops: {small: {IMAGE_SIZE: 64}, large: {IMAGE_SIZE: 128}, life: {DATA.EVAL_SPLIT: life}}}"
    study = study_of(tmp_path, grid)
    assert [teacher_of(study, cell) for cell in study.cells()] == [
        "embedded, IMAGE_SIZE 64, DATA.EVAL_SPLIT evaluation",
        "embedded, IMAGE_SIZE 128, DATA.EVAL_SPLIT evaluation",
        "embedded, IMAGE_SIZE 64, DATA.EVAL_SPLIT life",
    ]


@pytest.mark.parametrize("keys", [("HAND.MODEL",), ("TEACHER.CHECKPOINT", "TEACHER.NAME")])
def test_students_and_teachers_of_another_hand_are_scored_with_it(tmp_path, keys):
    arrays = embedded_arrays()
    file, run = tmp_path / "MANO_RIGHT.npz", tmp_path / "run"
    np.savez(file, **{**arrays, "v_template": 1.1 * arrays["v_template"]})
    student = build_student("timm:test_resnet", "mano", "tiny", 64, hand=load_hand(file))
    save_student(run / "student.safetensors", student, {})
    (run / "eval").mkdir()
    (run / "eval" / "scores.json").write_text('{"pa_mpvpe_mm": 9.0}')
    settings = dict(zip(keys, (file, "hamer"), strict=False))  # a hand of its own, or that of a MANO teacher
    study = study_of(tmp_path, "{kd: {none: {KD.MODE: none}}}\nSETS: {again: {DATA.SYNTHETIC_EVAL_SIZE: 3}}", settings)
    scored = score_cell(study, study.cells()[0], run)
    assert scored["evaluation"] == {"pa_mpvpe_mm": 9.0} and scored["again"]["pa_mpvpe_mm"] > 0
    study = study_of(tmp_path, "{kd: {output: {KD.MODE: output}}}", {"HAND.MODEL": file, "TEACHER.NAME": run})
    assert score_teacher(study, study.cells()[0], tmp_path / "out")["evaluation"]["pa_mpvpe_mm"] > 0


def test_a_run_that_has_resolved_auto_is_still_the_same():
    begun = load_config("quickstart", ["DATA.BOX_SHAPE", "upright", "TEACHER.NAME", "embedded"])
    assert not changed(begun, replaced(begun, {"TEACHER.NAME": "auto", "DATA.BOX_SHAPE": "auto"}))
    other = replaced(begun, {"TEACHER.NAME": "mobilenetv3_l", "SEED": 1})
    assert changed(begun, other) == {"TEACHER.NAME": ("embedded", "mobilenetv3_l"), "SEED": (0, 1)}
