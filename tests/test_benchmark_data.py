"""`tools/benchmark_data.py`: rates of any set, and of images that it makes itself."""

import re
from itertools import islice

import cv2
import pytest
import torch
from miniatures_tars import write_shards

from fasthamer.data.readers.tars import TarDataset
from fasthamer.hand.mano import Hand, load_hand
from fasthamer.hand.mano_files import read_hand_arrays
from fasthamer.tools import benchmark_data
from fasthamer.types import ManoParams

FAST = ["--count", "8", "--image-size", "64", "--images", "2"]


@pytest.fixture(autouse=True)
def threads():
    """`measure` sets torch to one thread."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_it_runs_for_anybody_and_tells_time_on_the_clock_and_of_the_processor(capsys):
    assert benchmark_data.main([*FAST, "--workers", "0,2"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    form = r"workers (\d): (\d+) crops/s of 64 px on the clock; ([\d.]+) ms of processor time each, so (\d+) a second"
    (zero, two) = (re.match(form, line).groups() for line in lines)
    assert (zero[0], two[0]) == ("0", "2")
    for cores, printed in ((1, zero), (2, two)):  # milliseconds are printed to a hundredth
        fastest, slowest = (1000 * cores / (float(printed[2]) + half) for half in (-0.005, 0.005))
        assert slowest - 1 <= int(printed[3]) <= fastest + 1
    assert "on 2 undisturbed cores" in lines[1]


def test_any_set_can_be_measured_and_shown(tmp_path, capsys):
    write_shards(tmp_path / "tars", shards=1, samples=4)
    options = ["--data", "tars", "--data-root", str(tmp_path / "tars"), "--sheet", str(tmp_path / "sheet.png")]
    assert benchmark_data.main([*FAST, "--workers", "0", *options]) == 0
    assert cv2.imread(str(tmp_path / "sheet.png")).shape == (6 * 144, 8 * 144, 3)
    assert benchmark_data.main([*FAST, "--workers", "0", "--data", "synthetic", "DATA.SYNTHETIC_SIZE", "3"]) == 0
    assert "crops/s of 64 px" in capsys.readouterr().out


def test_the_images_it_makes_have_labels_that_fit(tmp_path):
    embedded, mano = load_hand("embedded"), Hand(read_hand_arrays("embedded"), "a MANO file")
    benchmark_data.write_images(tmp_path / "a.tar", embedded, images=2)
    for item, _ in islice(TarDataset(tmp_path, mano, 64).walk(0, 1, None, []), 4):
        _, joints = mano(ManoParams(item.global_orient[None], item.hand_pose[None], item.betas[None]))
        ours = item.joints[:, :3] - item.joints[0, :3]
        torch.testing.assert_close(joints[0] - joints[0, 0], ours, atol=1e-5, rtol=0)
        assert item.keypoints_2d[:, :2].abs().max() < 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "two"], "invalid literal"),
        (["--count", "0"], "at least one crop"),
        (["--images", "0"], "at least one image"),
        (["--data", "freihnad"], "did you mean 'freihand'"),
        (["--data", "tars", "--data-root", "/nowhere"], "no folder /nowhere"),
        (["--sheet", "sheet.gifx"], "no image format '.gifx'"),
        (["--data", "synthetic", "--image-size", "3"], "image_size is 3"),
    ],
)
def test_wrong_flags_are_explained_in_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        benchmark_data.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_unreadable_shards_are_one_line_and_exit_1(tmp_path, capsys):
    (tmp_path / "a.tar").write_bytes(b"nothing" * 300)
    assert benchmark_data.main([*FAST, "--workers", "0", "--data", "tars", "--data-root", str(tmp_path)]) == 1
    assert "not one sample can be read" in capsys.readouterr().err
