"""What the cells of a study share: caches that every command finds as it needs them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fasthamer.tools import study as command

STUDY = """
RECIPE: quickstart
SEEDS: [0]
SETTINGS:
  IMAGE_SIZE: 64
  STUDENT.NAME: timm:test_resnet
  STUDENT.BACKBONE_FILE: ""
  STUDENT.PRETRAINED: false
  STUDENT.FREEZE: 0
  STUDENT.DECODER_SIZE: tiny
  DATA.SYNTHETIC_SIZE: 4
  DATA.LABELLED: 1.0
  DATA.SYNTHETIC_EVAL_SIZE: 2
  DATA.WORKERS: 0
  TEACHER.CACHE_VIEWS: 1
  TRAIN.STEPS: 1
  TRAIN.BATCH: 2
GRID:
  kd:
    none: {KD.MODE: none}
    output: {KD.MODE: output}
    feature: {KD.MODE: feature}
"""


@pytest.fixture
def call(tmp_path):
    (tmp_path / "tiny.yaml").write_text(STUDY)
    shared = ("DATA.SYNTHETIC_FOLDER", str(tmp_path / "images"), "TEACHER.CACHE", str(tmp_path / "teacher"))
    return lambda cell: command.main(
        [str(tmp_path / "tiny.yaml"), "--runs", str(tmp_path / "runs"), "--jobs", "1", "--only", cell, *shared]
    )


def test_a_command_for_outputs_alone_leaves_a_cache_that_the_cells_with_features_can_use(tmp_path, call):
    assert call("output") == 0
    assert call("feature") == 0
    cells = json.loads((tmp_path / "tiny.json").read_text())["cells"]
    assert [name for name in cells if np.isfinite(cells[name]["scores"]["evaluation"]["pa_mpvpe_mm"])] == [
        "output,seed0",
        "feature,seed0",
    ]


def test_cells_without_a_teacher_ask_it_nothing(tmp_path, call):
    assert call("none") == 0
    assert not (tmp_path / "teacher").exists()
