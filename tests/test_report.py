"""The HTML report: what it holds equals the scores and the predictions, it loads nothing, and no text escapes."""

import csv
import json
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from test_eval_command import SMALL, evaluation, freihand_folder

from fasthamer.data.dataset import DatasetInfo, HandDataset
from fasthamer.distill.evaluate import Predicted, Rules, hands, truth
from fasthamer.distill.report import charts
from fasthamer.distill.report.entry import ROWS, affordable_rows, entry_of
from fasthamer.distill.report.errors import area, by_joint, errors_of, flexion, joints_pck, palm_angle
from fasthamer.distill.report.page import write_report
from fasthamer.distill.report.samples import choose
from fasthamer.distill.report.training_log import read_training_log
from fasthamer.distill.score_table import comparison_table
from fasthamer.distill.scoring import score_model
from fasthamer.metrics.alignment import procrustes
from fasthamer.students import build_student, save_student
from fasthamer.tools import eval as command
from fasthamer.types import Batch

HOSTILE = '</script><img src="http://evil.example/x" onerror=alert(1)>&"'
EMPTY = ("meta", "img", "br")
MIB = 2**20


class Parsed(HTMLParser):
    """A page: its elements are closed in order; JSON blocks by id, the text outside scripts, every attribute."""

    def __init__(self, text):
        super().__init__()
        self.open, self.blocks, self.visible, self.attributes, self.id = [], {}, [], [], None
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.attributes += [(tag, *pair) for pair in attributes]
        if tag not in EMPTY:
            self.open.append(tag)
        self.id = dict(attributes).get("id") if tag == "script" else None

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            if self.id:
                self.blocks[self.id] = self.blocks.get(self.id, "") + data
        elif self.open and self.open[-1] != "style":
            self.visible.append(data)

    @property
    def text(self):
        return " ".join(self.visible)

    def json(self, name):
        return json.loads(self.blocks[name])

    @property
    def figures(self):
        return [json.loads(text) for name, text in self.blocks.items() if name.startswith("figure-")]


def parsed(path):
    page = Parsed(path.read_text(encoding="utf-8"))
    for tag, name, value in page.attributes:
        if name in ("src", "href", "srcset", "action", "data"):
            assert value.startswith(("data:image/jpeg;base64,", "#")), (tag, name, value[:80])
        assert not name.startswith("on"), (tag, name)
    assert {tag for tag, name, _ in page.attributes if name == "src"} <= {"img"}
    return page


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two untrained students; the folder of the first has a hostile name, the second is a run with a log."""
    folder = tmp_path_factory.mktemp("models")
    first, second = folder / "<img src=x onerror=alert(1)>&amp;" / "student.safetensors", folder / "second"
    for seed, path in enumerate((first, second / "student.safetensors")):
        torch.manual_seed(seed)
        save_student(path, build_student("timm:test_resnet", decoder_size="tiny", image_size=64), {})
    lines = [{"step": step, "phase": "train", "total": 3.0 / step, "joints": 1.0 / step} for step in (10, 20)]
    lines += [{"step": 20, "phase": "eval", "pa_mpjpe_mm": 12.0}]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 30, "pha'
    (second / "metrics.jsonl").write_text(text)
    return first, second


@pytest.fixture(scope="module")
def compared(models, tmp_path_factory):
    """The output folder of two models on two datasets."""
    root, out = freihand_folder(tmp_path_factory.mktemp("data") / "set"), tmp_path_factory.mktemp("out")
    given = ["--model", str(models[0]), "--model", str(models[1]), "--data", "synthetic"]
    given += ["--data", "freihand", "--data-root", str(root), "--report", "--out", str(out), *SMALL]
    assert command.main(given) == 0
    return out


def scores_of(compared):
    return {
        (model, data): json.loads((compared / model / data / "scores.json").read_text())
        for model in ("<img src=x onerror=alert(1)>&amp;", "second")
        for data in ("synthetic-evaluation", "freihand-evaluation")
    }


def test_each_model_and_dataset_has_its_files_and_a_row_of_the_csv(compared):
    scores = scores_of(compared)
    assert [each["n"] for each in scores.values()] == [5, 3, 5, 3]
    with (compared / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["data"] for row in rows] == ["synthetic", "synthetic", "freihand", "freihand"]
    for row in rows:
        model = "second" if row["model"].endswith("second") else "<img src=x onerror=alert(1)>&amp;"
        each = scores[model, f"{row['data']}-evaluation"]
        assert float(row["pa_mpjpe_mm"]) == each["pa_mpjpe_mm"]
        assert [float(row["pa_mpjpe_mm_low"]), float(row["pa_mpjpe_mm_high"])] == each["pa_mpjpe_mm_ci95"]
        assert (row["pa_mpvpe_mm"] == "") == (row["data"] == "freihand")
    assert len(list(compared.rglob("pred.json"))) == 4


def test_the_page_shows_the_scores_of_the_json_files(compared):
    page = parsed(compared / "report.html")
    scores = list(scores_of(compared).values())
    for each in scores:
        assert each in page.json("scores")
        for key in ("pa_mpjpe_mm", "mpjpe_rel_mm"):
            low, high = each[f"{key}_ci95"]
            assert f"{each[key]:.2f}" in page.text and f"{low:.2f} to {high:.2f}" in page.text
        curves = [trace["name"] for figure in page.figures for trace in figure["data"] if "AUC" in trace["name"]]
        assert any(name.endswith(f"joints, AUC {each['auc_joints']:.3f}") for name in curves)
    assert "synthetic-evaluation" in page.text and "freihand-evaluation" in page.text
    assert (compared / "report.html").stat().st_size < 8 * MIB


def test_hostile_names_stay_text(compared):
    raw, page = (compared / "report.html").read_text(encoding="utf-8"), parsed(compared / "report.html")
    assert "<img src=x" not in raw and "<img src=x onerror=alert(1)>&amp;" in page.text
    legend = [trace["name"] for figure in page.figures for trace in figure["data"]]
    assert not [name for name in legend if "<" in name]  # plotly reads a part of HTML in its texts


def test_a_run_among_the_models_shows_its_whole_log_lines(compared):
    page = parsed(compared / "report.html")
    loss = [trace for figure in page.figures for trace in figure["data"] if trace["name"] in ("total", "joints")]
    assert [(trace["name"], trace["x"], trace["y"]) for trace in loss] == [
        ("total", [10, 20], [0.3, 0.15]),
        ("joints", [10, 20], [0.1, 0.05]),
    ]


def test_a_broken_log_names_its_file(tmp_path):
    assert read_training_log(tmp_path, "run") is None
    (tmp_path / "metrics.jsonl").write_text('{"loss": 1}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl: expected lines of JSON with step and phase"):
        read_training_log(tmp_path, "run")


def test_the_provenance_is_complete(compared):
    text = parsed(compared / "report.html").text
    assert torch.__version__.split("+")[0] in text and "SYNTHETIC_EVAL_SIZE: 5" in text
    assert "data / synthetic-evaluation" in text and "data / freihand-evaluation" in text


def grown_and_bent(points):
    """Not a similarity: an error that alignment leaves."""
    return points * torch.tensor([1.3, 1.0, 0.8])


def test_embedded_meshes_are_the_aligned_predictions(tmp_path):
    known = evaluation(grown_and_bent)
    scores, predicted = score_model(known, tmp_path, rows=1)
    about = "stub", "synthetic", scores, known.dataset, predicted, known.rules, known.model.hand
    entry = entry_of(*about, rows=1)
    write_report(tmp_path / "report.html", "One", [entry], {}, "")
    views = parsed(tmp_path / "report.html").json("views")
    assert np.array_equal(np.transpose(views["faces"][0]), known.model.hand.faces)
    assert [title for title, _ in entry.chosen] == ["best", "typical", "worst"] and len(views["samples"]) == 3
    for view, (_, index) in zip(views["samples"], entry.chosen, strict=True):
        true = predicted.true_vertices[index].astype(float)
        aligned = procrustes(predicted.vertices[index][None], true[None])[0]
        shown, shown_true = (np.stack([view[name][axis] for axis in "xyz"], 1) for name in ("prediction", "truth"))
        np.testing.assert_allclose(shown, 1000 * (aligned - true.mean(0)), atol=0.0501)
        np.testing.assert_allclose(shown_true, 1000 * (true - true.mean(0)), atol=0.0501)
        np.testing.assert_allclose(view["error"], 1000 * np.linalg.norm(aligned - true, axis=1), atol=0.0501)
    worst = entry.samples[-1].error
    assert worst == max(entry.errors.samples) and f"{worst:.1f} mm" in parsed(tmp_path / "report.html").text


def test_the_curves_and_bars_agree_with_the_scores(tmp_path):
    known = evaluation(grown_and_bent)
    scores, predicted = score_model(known, tmp_path, rows=1)
    errors = errors_of(predicted, known.rules, predicted.joints)
    assert area(joints_pck(errors), errors.thresholds) == pytest.approx(scores["auc_joints"], abs=1e-9)
    assert area(errors.vertices_pck, errors.thresholds) == pytest.approx(scores["auc_vertices"], abs=1e-9)
    assert errors.samples.mean() == pytest.approx(scores["pa_mpjpe_mm"], abs=1e-6)
    bars = by_joint(errors)
    assert bars.mean.mean() == pytest.approx(scores["pa_mpjpe_mm"], abs=1e-6)
    assert (bars.low <= bars.mean).all() and (bars.mean <= bars.high).all()
    assert hands(predicted, "hamer", np.zeros((16, 778))).joints.shape == truth(predicted).joints.shape


class Named(HandDataset):
    """Grey images whose samples have a hostile name."""

    info = DatasetInfo("Named", protocol="hint")

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, key):
        empty = {name: torch.zeros(1) for name in Batch._fields}
        return Batch(**{**empty, "image": torch.full((3, 64, 64), 128, dtype=torch.uint8)})

    def sample_name(self, index):
        return HOSTILE


def predicted_2d(count, visible=1.0, off=10.0):
    """Predictions `off` pixels right of the labels, for boxes of 100 pixels; a part of the keypoints is labelled."""
    rng = np.random.default_rng(0)
    true = np.concatenate([rng.uniform(0, 64, (count, 21, 2)), rng.random((count, 21, 1)) < visible], axis=2)
    return Predicted(
        joints=rng.normal(0, 0.05, (count, 21, 3)),
        vertices=rng.normal(0, 0.05, (count, 778, 3)),
        camera=np.tile([5.0, 0, 0], (count, 1)),
        keypoints=true[..., :2] + [off, 0],
        true_joints=np.zeros((count, 21, 4)),
        true_vertices=None,
        true_keypoints=true,
        crop=np.tile(np.eye(3)[:2], (count, 1, 1)),
        hand_size=np.full(count, 100.0),
        mirrored=np.zeros(count),
    )


def page_2d(path, embedded, predicted, scores):
    count = len(predicted.joints)
    about = HOSTILE, HOSTILE, {"n": count, "protocol": "hint", "joints": "hamer", **scores}
    entry = entry_of(*about, Named(count), predicted, Rules("hint", "hamer"), embedded)
    write_report(path, HOSTILE, [entry], {"command": HOSTILE, "data": {HOSTILE: HOSTILE}}, HOSTILE)
    return entry, parsed(path)


def test_a_set_of_2d_labels_has_no_meshes_and_says_so(embedded, tmp_path):
    scores = {"pck_10": 1.0, "pck_10_ci95": [1.0, 1.0]}
    entry, page = page_2d(tmp_path / "report.html", embedded, predicted_2d(20, visible=0.7), scores)
    assert "There is no 3D view: the labels have no 3D joints" in page.text
    assert "pose is left out" in page.text and "occlusion is left out" not in page.text
    assert page.json("views")["samples"] == [] and not [1 for _, name, _ in page.attributes if name == "data-view"]
    assert entry.errors.unit == "% of box" and entry.errors.samples == pytest.approx(np.full(20, 10.0))
    curve = joints_pck(entry.errors)
    assert curve[entry.errors.thresholds < 9.9].max() == 0 and curve[entry.errors.thresholds > 10.1].min() == 1
    assert HOSTILE in page.text and "evil.example" not in [value for _, _, value in page.attributes]
    assert not any(tag == "img" and name == "onerror" for tag, name, _ in page.attributes)


def test_labels_without_hidden_keypoints_leave_occlusion_out(embedded, tmp_path):
    _, page = page_2d(tmp_path / "report.html", embedded, predicted_2d(4), {})
    assert "the labels mark no keypoint as hidden" in page.text


def test_a_set_without_labels_shows_its_samples_only(embedded, tmp_path):
    entry, page = page_2d(tmp_path / "report.html", embedded, predicted_2d(9, visible=0.0), {"n": 0})
    assert "there are no errors to show" in page.text and page.figures == []
    assert [title for title, _ in entry.chosen] == ["unlabelled"] * ROWS


def test_choose_takes_best_middle_and_worst_once_each_and_never_an_unlabelled_one():
    errors = np.array([5.0, np.nan, 1, 9, 3, 7, 4, 6, 2, 8])
    chosen = choose(errors, 2)
    assert chosen == [("best", 2), ("best", 8), ("typical", 0), ("typical", 7), ("worst", 3), ("worst", 9)]
    assert sorted(index for _, index in choose(errors[:3], 2)) == [0, 2]


def test_flexion_and_palm_angle_of_known_hands(embedded):
    straight = np.zeros((1, 21, 3))
    for finger in range(5):
        straight[0, 1 + 4 * finger : 5 + 4 * finger] = np.outer(np.arange(1, 5), [(finger - 2) / 4, -1, 0])
    assert flexion(straight)[0] == pytest.approx(0, abs=1e-5)
    bent = straight.copy()
    for finger in range(1, 5):  # the last bone at a right angle: one of three angles
        bent[0, 4 + 4 * finger] = bent[0, 3 + 4 * finger] + [0, 0, 1]
    assert flexion(bent)[0] == pytest.approx(30, abs=1e-5)
    # A right hand upright with its thumb on the image's left shows its back.
    assert palm_angle(straight)[0] == pytest.approx(180, abs=1e-5)
    assert palm_angle(straight * [-1, 1, 1])[0] == pytest.approx(0, abs=1e-5)
    assert palm_angle(straight[..., [2, 1, 0]])[0] == pytest.approx(90, abs=1e-5)


def test_long_logs_are_thinned_and_empty_ones_give_no_chart():
    lines = [{"step": step, "phase": "train", "total": 1.0} for step in range(5000)]
    trace = charts.loss_chart(lines).data[0]
    assert len(trace.x) == charts.POINTS and trace.x[0] == 0 and trace.x[-1] == 4999
    assert charts.loss_chart([]) is None and charts.evaluation_chart(lines) is None


def test_pages_of_many_models_show_fewer_samples():
    assert affordable_rows(1, 1) == ROWS and affordable_rows(40, 4) == 1


def test_a_table_of_several_has_a_column_for_each_main_score_of_any():
    rows = [
        {"model": "a", "data": "x", "split": "evaluation", "n": 5, "pa_mpjpe_mm": 6.0},
        {"model": "long name", "data": "y", "split": "test", "n": 12, "pck_05": 0.5},
    ]
    assert comparison_table(rows).splitlines() == [
        "data           model       n  PA-MPJPE, mm  PCK@0.05",
        "x, evaluation  a           5          6.00         -",
        "y, test        long name  12             -     0.500",
    ]
