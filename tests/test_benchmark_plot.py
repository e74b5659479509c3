"""The chart of accuracy against speed: it shows what eval and the benchmark wrote, where the axes say."""

import json

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from fasthamer.benchmark.plot import COLOURS, SIZE, Point, points, read_scores, tradeoff
from fasthamer.render.figure import pixels


def row(model, backend="torch", precision="fp32", fps=10.0, **more):
    row = {"model": model, "decoder": "mano full", "backend": backend, "precision": precision, "fps": fps}
    return row | {"batch": 1, "stage": "model", "params_m": 4.0} | more


def disc(image, index):
    """Rows and columns of the pixels in a model's colour."""
    return np.nonzero((image == np.round(255 * np.array(to_rgb(COLOURS[index])))).all(2))


def test_a_point_is_the_fastest_backend_and_the_eager_one():
    rows = [row("a", fps=10.0), row("a", "onnxruntime", "bf16", fps=40.0), row("a", "folded", fps=20.0)]
    rows += [row("a", "onnxruntime", "int8", fps=80.0)]  # no score is one of its answers
    rows += [row("a", "onnxruntime", fps=99.0, stage="whole"), row("a", "onnxruntime", fps=99.0, batch=8), row("b")]
    assert points(rows, {("a", "mano full"): 7.5}) == [Point("a", 40.0, 7.5, 4.0, 10.0)]


def test_decoders_of_one_student_are_points_of_their_own():
    rows = [row("a"), row("a", decoder="mano tiny", backend="folded")]
    found = points(rows, {("a", "mano full"): 7.5, ("a", "mano tiny"): 8.5})
    assert [(point.name, point.error_mm) for point in found] == [("a, mano full", 7.5), ("a, mano tiny", 8.5)]
    assert found[1].eager_fps is None


def test_a_score_without_a_speed_is_reported():
    with pytest.raises(ValueError, match=r"no speed of a to draw.*--batch 1"):
        points([row("a", batch=8)], {("a", "mano full"): 7.5})


def test_faster_lies_to_the_right_worse_lies_above_and_area_is_parameters():
    image = pixels(tradeoff([Point("slow and good", 2.0, 5.0, 90.0), Point("fast and rough", 200.0, 9.0, 10.0)]))
    assert image.shape == (SIZE[1], SIZE[0], 3)
    slow, fast = disc(image, 0), disc(image, 1)
    assert slow[1].mean() + 300 < fast[1].mean()
    assert slow[0].mean() > 200 + fast[0].mean()  # rows count downward
    # Areas as 9 to 1, so widths as 120 to 40 pixels; the outline and its soft edges take some 4 of each.
    assert np.ptp(slow[1]) == pytest.approx(116, abs=3)
    assert np.ptp(fast[1]) == pytest.approx(36, abs=3)


def test_models_of_one_speed_and_one_score_are_drawn_too():
    tradeoff([Point("only", 50.0, 7.0, 4.0, 50.0)])
    with pytest.raises(ValueError, match="no model with a score"):
        tradeoff([])


def test_names_overlap_neither_each_other_nor_circles_where_there_is_space():
    models = [Point("one", 10.0, 5.0, 90.0), Point("two", 30.0, 5.0, 40.0), Point("three", 100.0, 5.6, 4.0, 20.0)]
    axes = tradeoff(models).axes[0]
    names = {text.get_text(): text.get_window_extent() for text in axes.texts if "  " in text.get_text()}
    assert list(names) == ["one  90 M", "two  40 M", "three  4 M"]
    boxes = list(names.values())
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    for box in boxes:
        for model, diameter in zip(models, (120, 80, 26), strict=True):
            x, y = axes.transData.transform((model.fps, model.error_mm))
            near = np.clip([x, y], box.min, box.max)  # the label's point nearest to the circle's centre
            assert np.hypot(*(near - [x, y])) > diameter / 2 - 1


def test_scores_are_read_from_the_file_or_its_folder(tmp_path):
    (tmp_path / "scores.json").write_text(json.dumps({"pa_mpjpe_mm": 6.5, "n": 3}))
    pairs = [f"a={tmp_path}", f"b/mano tiny={tmp_path / 'scores.json'}"]
    timed = [("a", "mano full"), ("b", "mano full"), ("b", "mano tiny")]
    assert read_scores(pairs, timed) == {("a", "mano full"): 6.5, ("b", "mano tiny"): 6.5}
    with pytest.raises(ValueError, match="several decoders; name one of b/mano full or b/mano tiny"):
        read_scores([f"b={tmp_path}"], timed)


@pytest.mark.parametrize(
    ("pair", "content", "message"),
    [
        ("scores.json", None, "expected NAME=path"),
        ("resnet5O={file}", {"pa_mpjpe_mm": 6.0}, "did you mean 'resnet50'"),
        ("resnet50=nowhere/scores.json", None, "no scores nowhere"),
        ("resnet50={file}", {"n": 3}, "no number 'pa_mpjpe_mm'"),
        ("resnet50={file}", {"pa_mpjpe_mm": None}, "no number 'pa_mpjpe_mm'"),
        ("resnet50={file}", [1, 2], "no number 'pa_mpjpe_mm'"),
        ("resnet50={file}", {"pa_mpjpe_mm": float("nan")}, "is nan; expected millimetres above 0"),
        ("resnet50={file}", "not json", "what tools/eval.py writes"),
    ],
)
def test_scores_that_cannot_be_used_are_named(tmp_path, pair, content, message):
    file = tmp_path / "scores.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises((ValueError, KeyError, FileNotFoundError)) as error:
        read_scores([pair.format(file=file)], [("resnet50", "mano full")])
    assert message in str(error.value.args[0])
