"""Every shipped recipe loads, says how it is run, and builds what it names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fasthamer.config import load_config
from fasthamer.distill.objective import Objective
from fasthamer.nn.mano_head import SIZES
from fasthamer.recipes import RENAMED_RECIPES
from fasthamer.students.backbone import Backbone
from fasthamer.students.fast_hamer import PREFIX, fast_hamer_backbone
from fasthamer.students.zoo import DECODERS, STUDENTS
from fasthamer.teachers import TEACHERS
from fasthamer.training.schedule import learning_rate

CONFIGS = Path(__file__).parents[1] / "configs"
RECIPES = sorted(path.relative_to(CONFIGS).with_suffix("").as_posix() for path in CONFIGS.rglob("*.yaml"))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_names_things_that_exist(name):
    cfg = load_config(name)
    Objective.of(cfg)
    assert learning_rate(0, cfg.TRAIN.STEPS, cfg.TRAIN.LR, cfg.TRAIN.WARMUP, cfg.TRAIN.SCHEDULE) > 0
    assert cfg.TEACHER.NAME in ("auto", *TEACHERS)
    assert cfg.STUDENT.DECODER_SIZE in SIZES
    assert cfg.STUDENT.DECODER in DECODERS
    build, network = Backbone, STUDENTS.get(cfg.STUDENT.NAME, cfg.STUDENT.NAME.removeprefix("timm:"))
    if network.startswith(PREFIX):
        build, network = fast_hamer_backbone, network.removeprefix(PREFIX)
    with torch.device("meta"):
        backbone = build(network, cfg.STUDENT.IMAGE_SIZE, cfg.KD.LAYER)
    backbone.freeze(cfg.STUDENT.FREEZE)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_begins_with_the_command_that_runs_it(name):
    head = [line for line in (CONFIGS / f"{name}.yaml").read_text().splitlines() if line.startswith("#")]
    assert any("python tools/" in line or "make " in line for line in head)


@pytest.mark.parametrize("old", RENAMED_RECIPES)
def test_a_renamed_recipe_is_still_found_under_its_old_name(old):
    assert load_config(old) == load_config(RENAMED_RECIPES[old])


def test_the_papers_recipe_has_the_papers_numbers():
    cfg = load_config("paper/fast_hamer")
    weights = Objective.of(cfg)
    assert tuple(weights.labels)[:6] == (0.01, 0.05, 0.0, 0.001, 0.001, 0.0005)  # the others are of tokens
    assert weights.features == pytest.approx(0.3 * 6)
    assert (cfg.LOSS.ADVERSARIAL, cfg.TRAIN.LR, cfg.TRAIN.WEIGHT_DECAY, cfg.TRAIN.BATCH) == (0.0005, 1e-5, 1e-4, 8)
    assert (cfg.KD.DIRECTION, cfg.KD.ALIGNMENT) == ("teacher_to_student", "stretch")
    assert (cfg.STUDENT.NAME, cfg.STUDENT.DECODER, cfg.STUDENT.DECODER_SIZE) == (
        "fast_hamer:convnext_l",  # torchvision's network and HaMeR's normalisation
        "hamer",  # no position embedding
        "full",
    )
    assert (cfg.DATA.BOX_SHAPE, cfg.DATA.BLUR, cfg.TRAIN.CLIP) == ("square", False, 0.0)


@pytest.mark.parametrize(
    "recipes", [("drawn", "real_images"), ("embedded_teacher", "quickstart", "shipped/mobilenetv3_l")]
)
def test_recipes_for_one_kind_of_crops_share_their_loss_weights(recipes):
    first, *others = (load_config(name).LOSS for name in recipes)
    assert all(loss == first for loss in others)


def test_the_distillation_terms_of_upright_recipes_are_those_of_their_labels():
    cfg = load_config("quickstart")
    for name in ("KEYPOINTS_2D", "JOINTS", "VERTICES", "GLOBAL_ORIENT", "HAND_POSE", "BETAS"):
        assert cfg.KD[name] == cfg.LOSS[name]
