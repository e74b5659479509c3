"""Settings: defaults, recipes, `KEY VALUE` pairs, and the message for each mistake."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

import pytest

import fasthamer.config
from fasthamer.config import defaults, differing, load_config, replaced
from fasthamer.recipes import shipped_recipes


def test_an_installed_package_has_its_own_recipes_whatever_lies_beside_it(tmp_path):
    package = tmp_path / "fasthamer"
    (tmp_path / "configs").mkdir()
    assert shipped_recipes(package) == tmp_path / "configs"  # a checkout
    (package / "configs").mkdir(parents=True)
    assert shipped_recipes(package) == package / "configs"


def test_pairs_win_over_a_recipe_which_wins_over_the_defaults(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("TRAIN:\n  LR: 3e-4\n  BATCH: 16\n")
    cfg = load_config(recipe, ["TRAIN.BATCH", "4"])
    assert (cfg.TRAIN.LR, cfg.TRAIN.BATCH, cfg.TRAIN.WARMUP) == (3e-4, 4, 0)
    assert cfg.is_frozen()


@pytest.mark.parametrize(
    ("typed", "value"), [("1", 1.0), ("1e-3", 1e-3), ("1E-3", 1e-3), ("0.5", 0.5), ("5e-6", 5e-6), ("-2", -2.0)]
)
def test_a_number_may_be_typed_in_any_way(typed, value):
    read = load_config(None, ["TRAIN.LR", typed]).TRAIN.LR
    assert read == value


@pytest.mark.parametrize(("typed", "value"), [("False", False), ("true", True), ("no", False)])
def test_truth_may_be_typed_in_any_way(typed, value):
    assert load_config(None, ["STUDENT.PRETRAINED", typed]).STUDENT.PRETRAINED is value


def test_a_name_that_looks_like_a_number_stays_a_name():
    assert load_config(None, ["DATA.ROOT", "2024"]).DATA.ROOT == "2024"
    assert load_config(None, ["STUDENT.INIT", "runs/1e5/student.safetensors"]).STUDENT.INIT.startswith("runs/1e5")


TEXTS = ["007", "1e3", "1_000", "0x10", "12:30:45", "2024-11-26", "yes", "null", "~", "1.50", "runs/2024-11-26", "ü"]
TYPED = [
    *TEXTS,
    "my data #2",
    "runs/2024 #1 ü",
    "a: b",
    "[x]",
    "{x",
    "'x",
    "- x",
    "&x",
    "*x",
    "!x",
    "%x",
    " x ",
]


@pytest.mark.parametrize("text", TYPED)
def test_text_keys_keep_the_text_as_typed(text):
    cfg = load_config(None, ["DATA.ROOT", text, "TEACHER.NAME", text])
    assert cfg.DATA.ROOT == cfg.TEACHER.NAME == text


@pytest.mark.parametrize("text", TEXTS)
def test_text_keys_of_a_recipe_keep_the_text_as_written(tmp_path, text):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"DATA:\n  ROOT: {text}  # a comment\nTEACHER: {{NAME: '{text} #2'}}\n", encoding="utf-8")
    cfg = load_config(recipe)
    assert (text, f"{text} #2") == (cfg.DATA.ROOT, cfg.TEACHER.NAME)
    saved = tmp_path / "config.yaml"
    saved.write_text(cfg.dump(), encoding="utf-8")
    assert load_config(saved) == cfg


def test_the_base_of_a_recipe_may_be_called_like_a_number(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("007").write_text("TRAIN: {BATCH: 17}\n")
    Path("mine.yaml").write_text("BASE: 007\n")
    assert load_config("mine.yaml").TRAIN.BATCH == 17


def test_the_other_keys_of_a_recipe_have_the_types_of_their_defaults(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "SEED: 12\nTRAIN: {LR: 1e-5, WEIGHT_DECAY: .5, COMPILE: yes}\nTOKENIZER:\n  TOKENS: [3, 4]\n"
        "DATA:\n  MIX:\n    - {data: freihand, root: 007, split: 2024-11-26, weight: 1e-1, shards: 3}\n"
    )
    cfg = load_config(recipe)
    assert (cfg.SEED, cfg.TRAIN.LR, cfg.TRAIN.WEIGHT_DECAY, cfg.TRAIN.COMPILE) == (12, 1e-5, 0.5, True)
    entry = {"data": "freihand", "root": "007", "split": "2024-11-26", "weight": 0.1, "shards": 3}
    assert cfg.TOKENIZER.TOKENS == [3, 4] and [dict(each) for each in cfg.DATA.MIX] == [entry]
    typed = "[{data: freihand, root: 007, split: 2024-11-26, weight: 1e-1, shards: 3}]"
    assert load_config(None, ["DATA.MIX", typed, "TOKENIZER.TOKENS", "[3, 4]"]).DATA.MIX == cfg.DATA.MIX
    (tmp_path / "config.yaml").write_text(cfg.dump())
    assert load_config(tmp_path / "config.yaml") == cfg


def test_a_recipe_may_begin_with_a_byte_order_mark_and_must_be_utf_8(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("SEED: 3\nDATA: {ROOT: ü}\n", encoding="utf-8-sig")
    assert (load_config(recipe).SEED, load_config(recipe).DATA.ROOT) == (3, "ü")
    recipe.write_text("DATA: {ROOT: ü}\n", encoding="latin1")
    with pytest.raises(ValueError, match=r"mine\.yaml is not UTF-8 text .*: save it as UTF-8"):
        load_config(recipe)


def test_an_unknown_key_names_the_nearest(tmp_path):
    with pytest.raises(ValueError, match=r"command line: unknown key TRAIN\.STEP; did you mean TRAIN\.STEPS"):
        load_config(None, ["TRAIN.STEP", "3"])
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("KD:\n  WIEGHT: 0.5\n")
    with pytest.raises(ValueError, match=r"mine\.yaml: unknown key KD\.WIEGHT; did you mean KD\.WEIGHT"):
        load_config(recipe)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("TRAIN.STEPS", "many", "takes a int such as 0, not 'many'"),
        ("TRAIN.STEPS", "1.5", "takes a int"),
        ("TRAIN.LR", "fast", "takes a float"),
        ("STUDENT.PRETRAINED", "3", "takes a bool"),
        ("TRAIN", "3", "unknown key TRAIN"),
    ],
)
def test_a_wrong_type_is_refused_with_the_type_expected(key, value, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        load_config(None, [key, value])


def test_a_key_without_value_and_a_recipe_that_is_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'TRAIN\.LR' has no value"):
        load_config(None, ["TRAIN.LR"])
    with pytest.raises(FileNotFoundError, match=r"no recipe 'papr/fast_hamer'.*paper/fast_hamer"):
        load_config("papr/fast_hamer")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("- 1\n- 2\n")
    with pytest.raises(ValueError, match="mapping of sections"):
        load_config(recipe)


def test_a_recipe_changes_what_its_base_says(tmp_path):
    base, recipe = tmp_path / "base.yaml", tmp_path / "mine.yaml"
    base.write_text("BASE: quickstart\nTRAIN:\n  LR: 3e-4\n  BATCH: 17\n")
    recipe.write_text(f"BASE: {base}\nTRAIN:\n  BATCH: 18\n")
    cfg, quickstart = load_config(recipe), load_config("quickstart")
    assert differing(quickstart, cfg) == {"TRAIN.LR": 3e-4, "TRAIN.BATCH": 18}


def test_a_base_that_does_not_exist_is_refused(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("BASE: quickstat\n")
    with pytest.raises(FileNotFoundError, match="no recipe 'quickstat'"):
        load_config(recipe)
    recipe.write_text(f"BASE: {recipe}\n")
    with pytest.raises(ValueError, match=r"mine\.yaml is based on itself"):
        load_config(recipe)


def test_a_recipe_cannot_execute_anything(tmp_path):
    recipe = tmp_path / "mine.yaml"
    marker = tmp_path / "executed"
    recipe.write_text(f"SEED: !!python/object/apply:os.system ['touch {marker}']\n")
    with pytest.raises(ValueError, match=r"mine\.yaml is not plain YAML: could not determine a constructor"):
        load_config(recipe)
    assert not marker.exists()


def test_a_saved_config_reads_back_the_same(tmp_path):
    cfg = load_config(None, ["TRAIN.LR", "3e-7", "DATA.ROOT", "some where", "SEED", "5"])
    (tmp_path / "config.yaml").write_text(cfg.dump())
    assert load_config(tmp_path / "config.yaml") == cfg


def test_one_call_does_not_change_the_next():
    load_config(None, ["SEED", "9"])
    assert load_config().SEED == defaults().SEED == 0


def test_every_section_or_setting_says_what_it_means():
    source = Path(fasthamer.config.__file__).read_text(encoding="utf-8")
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0] for token in tokens if token.type == tokenize.COMMENT}
    silent = []
    for number, line in enumerate(source.splitlines(), 1):
        setting = re.match(r"_C\.(\w+)\.(\w+) = ", line)
        if setting and number not in comments and setting[1] not in ("LOSS", "KD"):
            silent.append(line)
    assert not silent


def test_a_replaced_config_is_a_frozen_copy_with_checked_values():
    cfg = defaults()
    other = replaced(cfg, {"TRAIN.BATCH": 3, "KD.MODE": "none", "TRAIN.CHANNELS_LAST": False})
    assert differing(cfg, other) == {"TRAIN.BATCH": 3, "KD.MODE": "none", "TRAIN.CHANNELS_LAST": False}
    assert other.is_frozen() and not cfg.is_frozen()
    with pytest.raises(ValueError, match=r"unknown key TRAIN\.BACH; did you mean TRAIN\.BATCH"):
        replaced(cfg, {"TRAIN.BACH": 3})
