"""Studies: their files, their cells, their statistics; one that really trains."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy import stats

from fasthamer.config import load_config
from fasthamer.distill.preparation import prepare
from fasthamer.distill.run import execute
from fasthamer.distill.study.cells import read_records, run_study
from fasthamer.distill.study.estimates import beside_teacher, estimate, gains, power_laws
from fasthamer.distill.study.faults import with_fault
from fasthamer.distill.study.grid import chosen, read_study
from fasthamer.distill.study.plots import plot
from fasthamer.distill.study.scaling import power_law
from fasthamer.distill.study.summary import markdown
from fasthamer.tools import study as command
from fasthamer.training.interrupt import InterruptHandler

TEXT = """
RECIPE: quickstart
SEEDS: [0, 1, 2]
GRID:
  student:
    small: {STUDENT.DECODER_SIZE: tiny}
    large: {STUDENT.DECODER_SIZE: small}
  kd:
    none: {KD.MODE: none}
    output: {KD.MODE: output, KD.WEIGHT: 0.5}
"""
TINY = """
RECIPE: quickstart
SEEDS: [3]
GRID:
  kd:
    none: {KD.MODE: none}
    output: {KD.MODE: output}
    fault: {KD.MODE: feature, FAULT: frozen_projection}
SETS:
  life: {DATA.EVAL_SPLIT: life, DATA.SYNTHETIC_EVAL_SIZE: 3}
"""
TINY_SETTINGS = {
    "STUDENT.NAME": "timm:test_resnet",
    "STUDENT.BACKBONE_FILE": "",
    "STUDENT.FREEZE": "0",
    "STUDENT.DECODER_SIZE": "tiny",
    "STUDENT.IMAGE_SIZE": "64",
    "IMAGE_SIZE": "64",
    "DATA.SYNTHETIC_SIZE": "10",
    "DATA.SYNTHETIC_EVAL_SIZE": "4",
    "TRAIN.STEPS": "2",
    "TRAIN.BATCH": "2",
    "TRAIN.LOG_EVERY": "1",
    "DATA.WORKERS": "0",
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "losses.yaml"
    path.write_text(TEXT)
    return path


def records(study, error) -> dict[str, dict]:
    """What a study would have found if a cell's error were `error(levels, seed)`."""
    return {
        cell.name: {
            "levels": cell.levels,
            "seed": cell.seed,
            "settings": cell.settings,
            "images_per_second": 100.0,
            "crops": 100,
            "scores": {"evaluation": {"pa_mpjpe_mm": 20.0, "pa_mpvpe_mm": error(cell.levels, cell.seed)}},
        }
        for cell in study.cells()
    }


def test_a_cell_is_a_level_of_each_axis_and_a_seed(file):
    study = read_study(file, ["TRAIN.STEPS", "7"])
    cells = study.cells()
    assert [cell.name for cell in cells][:4] == [
        "small,none,seed0",
        "small,none,seed1",
        "small,none,seed2",
        "small,output,seed0",
    ]
    cfg = study.config(cells[-1])
    assert (cfg.STUDENT.DECODER_SIZE, cfg.KD.WEIGHT, cfg.SEED, cfg.TRAIN.STEPS) == ("small", 0.5, 2, 7)
    assert study.command(cells[0]).startswith("python tools/distill.py --config quickstart TRAIN.STEPS 7 ")


def test_cells_are_chosen_by_the_beginning_of_their_names(file):
    study = read_study(file)
    assert {cell.name for cell in chosen(study, ["large,none"])} == {f"large,none,seed{seed}" for seed in range(3)}
    with pytest.raises(KeyError, match="large,none,seed0"):
        chosen(study, ["large,nine,seed0"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("SEEDS: [0, 1, 2]", "", "has no SEEDS"),
        ("SEEDS: [0, 1, 2]", "SEEDS: [0, 0]", "different whole numbers"),
        ("SEEDS: [0, 1, 2]", "SEEDS: 3", "different whole numbers"),
        ("RECIPE", "RECIPES", "did you mean 'RECIPE'"),
        ("KD.WEIGHT", "KD.WEIHGT", "KD.WEIGHT"),
        ("{KD.MODE: none}", "none", "kd: none is a mapping"),
        ("quickstart", "nowhere", "no recipe 'nowhere'"),
        ("output: {", "1/2 output: {", "kd: 1/2 output has a /"),
    ],
)
def test_a_file_with_a_mistake_is_refused(file, old, new, message):
    file.write_text(TEXT.replace(old, new, 1))
    with pytest.raises((ValueError, KeyError, FileNotFoundError), match=message):
        read_study(file)


def test_an_estimate_is_students_interval():
    values = [10.0, 11.0, 13.0]
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    found = estimate(values)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))
    assert str(estimate([10.0])) == "10.0"


def test_gains_compare_seed_by_seed(file):
    study = read_study(file)
    found = records(study, lambda levels, seed: (10 + 5 * seed) * (0.9 if levels["kd"] == "output" else 1.0))
    gained = gains(study, found, "kd")["output"][("small",)]
    assert gained.mean == pytest.approx(10) and gained.half == pytest.approx(0, abs=1e-9)
    assert gains(study, found, "student")["large"][("none",)].mean == pytest.approx(0)
    del found["small,none,seed1"], found["small,output,seed2"]
    assert gains(study, found, "kd")["output"][("small",)].seeds == 1
    assert "| output | small | 10.0 |" in markdown(study, found, {})


def test_errors_are_given_in_units_of_the_teachers_own(file):
    study = read_study(file)
    found = records(study, lambda levels, seed: 12.0 + seed)
    teachers = {"embedded": {"evaluation": {"pa_mpvpe_mm": 10.0}}}
    ratio = beside_teacher(study, found, teachers)[("small", "output")]
    assert ratio.mean == pytest.approx(1.3) and ratio.seeds == 3
    assert not beside_teacher(study, found, {}), "no teacher is scored yet"
    assert "| small | output | 20.0 ± 0.0 | 13.0 ± 2.5 | 1.30 | 100 |" in markdown(study, found, teachers)


def drawn(axes) -> dict[str, np.ndarray]:
    """The labelled lines of a plot: (N, 2) points by label."""
    return {line.get_label(): line.get_xydata() for line in axes.get_lines() if not line.get_label().startswith("_")}


def test_an_axis_of_numbers_is_drawn_as_curves_and_the_others_as_panels_and_colours(file):
    file.write_text(TEXT + "  labels:\n    1 %: {DATA.LABELLED: 0.01}\n    10 %: {DATA.LABELLED: 0.1}\n")
    study = read_study(file)
    factor = {"1 %": 2.0, "10 %": 1.0, "none": 10.0, "output": 8.0, "small": 1.0, "large": 1.5}
    found = records(study, lambda levels, seed: seed + np.prod([factor[level] for level in levels.values()]))
    teachers = {"embedded": {"evaluation": {"pa_mpvpe_mm": 7.0}}}
    small, large = plot(study, found, teachers).axes
    assert (small.get_title(), large.get_title()) == ("small", "large")
    curves = drawn(small)
    assert list(curves) == ["none", "output", "teacher"]
    np.testing.assert_allclose(curves["none"], [[1, 21], [10, 11]], rtol=0.1)  # moved apart a little
    np.testing.assert_allclose(curves["output"][:, 1], [17, 9])
    np.testing.assert_allclose(drawn(large)["output"][:, 1], [25, 13])
    assert set(curves["teacher"][:, 1]) == {7.0}
    assert [text.get_text() for text in small.get_xticklabels()] == ["1 %", "10 %"]
    some = {name: record for name, record in found.items() if not name.startswith("large,none")}
    colours = [
        [line.get_color() for line in axes.get_lines() if line.get_label() == "output"]
        for axes in plot(study, some, {}).axes
    ]
    assert colours[0] == colours[1], "a level keeps its colour where another has not run"


def test_other_settings_are_drawn_as_rows_with_intervals_from_three_seeds_on(file):
    study = read_study(file)
    found = records(study, lambda levels, seed: 10.0 + seed)
    del found["small,none,seed1"], found["large,output,seed0"], found["large,output,seed1"]
    (axes,) = plot(study, found, {}).axes
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "small, none",
        "small, output",
        "large, none",
        "large, output",
    ]
    ends = [bar.get_segments()[0][:, 0] for _, _, (bar,) in axes.containers]
    half = estimate([10.0, 11.0, 12.0]).half
    np.testing.assert_allclose(ends, [[11, 11], [11 - half, 11 + half], [11 - half, 11 + half], [12, 12]])


def test_settings_of_all_cells_may_hold_the_seed_and_sets_a_variable(file, monkeypatch):
    file.write_text(
        TEXT
        + 'SETTINGS: {TEACHER.CACHE: "teacher{seed}"}\n'
        + "SETS: {real: {DATA.EVAL_NAME: freihand, DATA.EVAL_ROOT: $HANDS/a}}\n"
    )
    monkeypatch.delenv("HANDS", raising=False)
    study = read_study(file)
    assert [cell.settings["TEACHER.CACHE"] for cell in study.cells()[:3]] == ["teacher0", "teacher1", "teacher2"]
    assert not study.sets
    monkeypatch.setenv("HANDS", "/hands")
    study = read_study(file)
    assert study.set_configs(study.cells()[0])["real"].DATA.EVAL_ROOT == "/hands/a"


def test_a_study_trains_its_cells_once_and_writes_what_it_found(tmp_path, capsys):
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY)
    shared = {"DATA.SYNTHETIC_FOLDER": tmp_path / "images", "TEACHER.CACHE": tmp_path / "teacher"}
    settings = [str(text) for pair in {**TINY_SETTINGS, **shared}.items() for text in pair]
    call = [str(file), "--runs", str(tmp_path / "runs"), "--jobs", "1", *settings]
    assert command.main(call) == 0
    results = json.loads((tmp_path / "tiny.json").read_text())
    cells, teachers = results["cells"], results["teachers"]
    assert teachers["embedded"].keys() == {"evaluation", "life"}
    assert list(cells) == ["none,seed3", "output,seed3", "fault,seed3"]
    assert "--only fault,seed3" in cells["fault,seed3"]["command"]
    run = tmp_path / "runs" / "tiny" / "output,seed3"
    assert cells["output,seed3"]["scores"]["evaluation"]["pa_mpvpe_mm"] == pytest.approx(
        json.loads((run / "eval" / "scores.json").read_text())["pa_mpvpe_mm"]
    )
    assert cells["output,seed3"]["scores"]["life"]["pa_mpjpe_mm"] > 0 and cells["output,seed3"]["crops"] == 4
    assert cells["none,seed3"]["teacher_share"] == 0 < cells["output,seed3"]["teacher_share"] < 1
    assert (tmp_path / "tiny.png").is_file() and "| output |" in (tmp_path / "tiny.md").read_text()
    capsys.readouterr()
    assert command.main(call) == 0  # nothing to do
    assert "3 of 3 cells done" in capsys.readouterr().out
    study = read_study(file, [*settings, "TRAIN.LR", "1"])
    with pytest.raises(ValueError, match=r"none,seed3 with TRAIN\.LR None, now it is 1"):
        read_records(study, tmp_path)


def test_a_folder_that_cannot_be_written_to_is_one_line_before_anything_is_trained(file, tmp_path, capsys):
    (tmp_path / "file").touch()
    call = [str(file), "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "file" / "out")]
    assert command.main(call) == 1
    assert capsys.readouterr().err.startswith("study: ") and not (tmp_path / "runs").exists()


def test_commands_keep_each_others_records_and_mix_no_settings(tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY[: TINY.index("SETS")])
    settings = {**TINY_SETTINGS, "DATA.SYNTHETIC_FOLDER": str(tmp_path / "images")}
    study = read_study(file, [text for pair in settings.items() for text in pair])
    none, output, _ = study.cells()
    with InterruptHandler() as interrupt:

        def run(cells):
            return run_study(study, cells, tmp_path / "runs", tmp_path, 1, interrupt, print)

        first = run([none, output])
        assert next(first).job.name == "none,seed3"
        assert [result.job.name for result in run([output])] == ["output,seed3"]  # another command, meanwhile
        (tmp_path / "tiny.json").unlink()  # as if both had written at once
        assert [result.trouble for result in first] == [""]
    assert list(read_records(study, tmp_path)) == ["none,seed3", "output,seed3"]
    (tmp_path / "tiny.json").unlink()  # as if a command had been killed before it wrote
    with InterruptHandler() as interrupt:
        assert not list(run([none, output])), "both are done"
        assert list(read_records(study, tmp_path)) == ["none,seed3", "output,seed3"]
        (tmp_path / "tiny.json").unlink()
        study = read_study(file, [text for pair in {**settings, "TRAIN.STEPS": "3"}.items() for text in pair])
        (result,) = run([study.cells()[0]])
    assert "none,seed3 was started with TRAIN.STEPS 2, now it is 3" in result.trouble


def feature_run(tmp_path, mode: str, name: str, batch: int = 2):
    settings = {**TINY_SETTINGS, "KD.MODE": mode, "TRAIN.STEPS": "3", "TRAIN.WARMUP": "0", "TRAIN.BATCH": str(batch)}
    cfg = load_config("quickstart", [text for pair in settings.items() for text in pair])
    return prepare(cfg, tmp_path / name)


def test_a_frozen_projection_stays_as_it_was_drawn(tmp_path):
    moved = {}
    for fault in ("", "frozen_projection"):
        prepared = with_fault(feature_run(tmp_path, "feature", f"run{fault}"), fault)
        projection = prepared.trainer.learner.projection.weight
        before = projection.detach().clone()
        execute(prepared, shown=1)
        moved[fault] = not torch.equal(projection, before)
    assert moved == {"": True, "frozen_projection": False}


@pytest.mark.parametrize("batch", [4, 16])
def test_sums_beside_a_mean_keep_the_balance_of_one_batch_size_only(tmp_path, batch):
    terms = {}
    for fault in ("", "sums_beside_a_mean"):
        prepared = with_fault(feature_run(tmp_path, "hybrid", f"run{fault}", batch), fault)
        numbers = next(iter(prepared.feed.batches()))
        prepared.trainer.begin(0, 3)
        terms[fault] = {name: term.item() for name, term in prepared.trainer.training_step(numbers, 0).items()}
    terms[""].pop("total"), terms["sums_beside_a_mean"].pop("total")
    ratios = {name: terms["sums_beside_a_mean"][name] / term for name, term in terms[""].items()}
    assert ratios.pop("kd_features") == pytest.approx(1)
    assert ratios == pytest.approx(dict.fromkeys(ratios, batch / 8))


def test_a_teacher_can_be_put_into_train_mode_for_a_study_only(tmp_path):
    prepared = with_fault(feature_run(tmp_path, "output", "run"), "teacher_in_train_mode")
    teacher = prepared.trainer.teacher
    assert all(part.training for part in teacher.modules())
    with pytest.raises(ValueError, match=r"frozen_projection is for KD\.MODE feature or hybrid"):
        with_fault(prepared, "frozen_projection")
    with pytest.raises(ValueError, match=r"sums_beside_a_mean is for .* and a TRAIN\.BATCH other than 8"):
        with_fault(prepared, "sums_beside_a_mean")
    with pytest.raises(KeyError, match="did you mean 'frozen_projection'"):
        with_fault(prepared, "frozen_projektion")


def test_a_power_law_is_found_again_and_predicts_the_last_point():
    crops = [7500 * 2**power for power in range(6)]
    errors = [10 + (40_000 / number) ** 0.7 for number in crops]
    law = power_law(crops, errors)
    assert (law.floor, law.scale, law.exponent) == pytest.approx((10, 40_000, 0.7), rel=1e-3)
    assert law.predicted == pytest.approx(errors[-1], abs=1e-3) and law.measured == errors[-1]
    with pytest.raises(ValueError, match="at least 5 numbers of crops, ascending"):
        power_law(crops[:4], errors[:4])


def test_a_studys_law_is_of_means_over_seeds_for_each_setting(file):
    study = read_study(file)
    found = {}
    for steps in (1, 2, 4, 8, 16):
        for name, record in records(study, lambda levels, seed: 10 + seed - 1).items():
            error = record["scores"]["evaluation"]["pa_mpvpe_mm"] + steps**-0.5
            scores = {"evaluation": {"pa_mpjpe_mm": error, "pa_mpvpe_mm": error}}
            found[f"{name},{steps}"] = record | {"crops": steps, "scores": scores}
    laws = power_laws(found)
    assert laws.keys() == {(size, mode) for size in ("small", "large") for mode in ("none", "output")}
    law = laws[("small", "none")]
    assert law.floor == pytest.approx(10, abs=0.05) and law.predicted == pytest.approx(10.25, abs=0.01)
