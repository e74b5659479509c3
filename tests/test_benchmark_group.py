"""Rows of the benchmark: times of the calls, ratios within rounds, lower bounds from the operations, costs."""

import numpy as np
import pytest
import torch
from torch import nn

from fasthamer.benchmark.costs import Work
from fasthamer.benchmark.group import COLUMNS, Entry, Group, Setting
from fasthamer.benchmark.passes import IMAGE_SIZE, crops, decode, jpeg_image, stage_modules
from fasthamer.benchmark.peaks import Peaks
from fasthamer.data.crop import crop_affine, warp

CPU = torch.device("cpu")
STAGES = ("decode", "crop", "backbone", "head", "mesh", "model", "whole", "frame")


class Clock:
    """A clock that only the modules below advance."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1e-7  # no duration is 0
        return self.now


def close(value):
    return pytest.approx(value, rel=1e-3)


@pytest.fixture
def clock():
    return Clock()


class NoProbes:
    """Known peaks, without calls."""

    calls: dict = {}  # noqa: RUF012

    def peaks(self, blocks):
        return Peaks({"fp32": 100.0, "int8": 400.0}, {10: 10.0})


class Part(nn.Module):
    def __init__(self, clock, seconds):
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def forward(self):
        self.clock.now += self.seconds


class Network(nn.Module):
    """A hand model whose parts take known times; the hand layer runs inside the decoder, as in the real models."""

    def __init__(self, clock, normalise, backbone, head, mesh):
        super().__init__()
        self.normalise, self.backbone = Part(clock, normalise), Part(clock, backbone)
        self.hand = Part(clock, mesh)
        self.decoder = Part(clock, head)
        self.decoder.register_forward_hook(lambda *_: self.hand())

    def __call__(self, images):
        self.normalise()
        self.backbone()
        self.decoder()
        count = len(images)
        return {"vertices": np.zeros((count, 778, 3), np.float32), "camera": np.ones((count, 3), np.float32)}


def entry(backend, network, precision="fp32", gflops=2.0):
    about = {"model": "m", "weights": "random", "decoder": "mano tiny", "backend": backend, "precision": precision}
    work = {stage: Work(gflops, 10.0) for stage in ("model", "backbone", "head", "mesh")}
    return Entry(about, {"params_m": 3.0, "file_mb": 12.0, "peak_mb": 20.0}, network, network, work)


def rows_of(clock, batch, entries, teacher=None, stages=STAGES):
    group = Group(batch, Setting(CPU, stages=stages, rounds=3, clock=clock), NoProbes())
    for each in entries:
        group.add(each, is_teacher=teacher is None)
    if teacher is not None:
        group.add_teacher(teacher)
    group.add_shared()
    rows, _ = group.run()
    assert all(set(row) == set(COLUMNS) for row in rows)
    return {(row["backend"], row["stage"]): row for row in rows}


def test_every_stage_has_its_row_and_its_ratios(clock):
    eager = entry("torch", Network(clock, 0.01, 0.05, 0.03, 0.01))  # 100 ms
    folded = entry("folded", Network(clock, 0.01, 0.01, 0.01, 0.01))  # 40 ms
    teacher = entry("torch", Network(clock, 0.1, 0.1, 0.1, 0.1))  # 400 ms
    rows = rows_of(clock, 4, [eager, folded], teacher)
    row = rows["folded", "model"]
    assert row["median_ms"] == close(40) and row["fps"] == close(100)  # 4 images in 40 ms
    assert row["ratio_to_teacher"] == close(10) and row["ratio_to_eager"] == close(2.5)
    assert rows["torch", "model"]["ratio_to_eager"] == close(1)
    expected = {"backbone": (20, 10, 3), "head": (10, 10, 3), "mesh": (10, 10, 1)}  # ms, x teacher, x eager
    for stage, (milliseconds, to_teacher, to_eager) in expected.items():
        part = rows["folded", stage]
        assert part["median_ms"] == close(milliseconds), stage
        assert part["ratio_to_teacher"] == close(to_teacher), stage
        assert part["ratio_to_eager"] == close(to_eager), stage
    assert rows["folded", "frame"]["fps"] == close(25)  # images, of 4 hands each
    assert rows["folded", "whole"]["fps"] == close(100)
    assert rows["opencv", "decode"]["model"] == "any" and rows["opencv", "crop"]["ratio_to_teacher"] is None


def test_lower_bounds_are_of_the_whole_batch_and_costs_are_in_the_rows_of_the_whole_model(clock):
    rows = rows_of(
        clock,
        4,
        [entry("torch", Network(clock, 0.0, 0.05, 0.0, 0.05)), entry("x", Network(clock, 0, 0, 0, 0.1), "int8")],
    )
    row = rows["torch", "model"]  # 100 ms; 4 images of 2 GFLOP at 100 GFLOP/s are 80 ms; 10 MB at 10 GB/s are 1 ms
    assert (row["arithmetic_ms"], row["weights_ms"], row["peak_fraction"]) == close((80, 1, 0.8))
    assert row["bound"] == "arithmetic" and row["gflops"] == 2.0  # of one image
    assert row["params_m"] == 3.0 and row["peak_mb"] == 20.0
    part = rows["torch", "backbone"]  # 50 ms for 80 ms at the measured peak: a wrong peak is visible as a share above 1
    assert part["peak_fraction"] == close(1.6) and part["params_m"] is None
    assert rows["torch", "whole"]["params_m"] == 3.0 and rows["torch", "whole"]["bound"] is None


def test_only_the_stages_asked_for_are_timed(clock):
    network = Network(clock, 0.1, 0.1, 0.1, 0.1)
    assert set(rows_of(clock, 1, [entry("torch", network)], stages=("model",))) == {("torch", "model")}


def test_a_backend_whose_parts_cannot_be_timed_has_no_rows_of_parts(clock):
    closed = entry("onnxruntime", Network(clock, 0.1, 0.1, 0.1, 0.1))._replace(network=None)
    stages = {stage for _, stage in rows_of(clock, 2, [closed], entry("torch", Network(clock, 1, 1, 1, 1)))}
    assert stages == {"decode", "crop", "model", "whole", "frame"}


def test_the_frame_is_a_real_jpeg_and_every_second_hand_a_mirrored_one():
    jpeg = jpeg_image()
    image = decode(jpeg)
    assert image.shape == (*IMAGE_SIZE, 3) and 20_000 < len(jpeg) < 200_000
    assert (jpeg_image() == jpeg).all()
    found = crops(image, 9, 64)
    assert found.shape == (9, 3, 64, 64) and found.dtype == np.uint8
    assert (found[0] == found[8]).all()  # the positions repeat
    # Pixel centres: mirrored about the crop's middle, 32, column x is column 64 - x.
    plain = warp(image, crop_affine(np.array([330, 240]), 300.0, 64), 64).transpose(2, 0, 1)
    assert np.abs(found[1][:, :, 1:].astype(int) - plain[:, :, :0:-1]).max() <= 1


def test_a_model_without_the_usual_parts_cannot_be_staged():
    with pytest.raises(ValueError, match="normalise, backbone, decoder, hand"):
        stage_modules(nn.Linear(2, 2))
