"""WiLoR as a teacher: its network against a definition by hand, its inference graph, and distillation from it."""

import json

import numpy as np
import pytest
import torch
from tiny_wilor import WIDTH, checkpoint, gathered_by_hand, published_state, reference, tiny_wilor

from fasthamer.benchmark.passes import stage_modules
from fasthamer.distill.benchmark_models import BenchmarkRequest, benchmark_models
from fasthamer.nn.normalise import IMAGENET_MEAN, IMAGENET_STD
from fasthamer.predict import HandMesh, open_model
from fasthamer.runtime.contract import OUTPUTS
from fasthamer.runtime.export import export
from fasthamer.runtime.sessions import open_session
from fasthamer.students.files import student_metadata
from fasthamer.teachers import Teacher, build_teacher, hand_for, notice_of, resolve_teacher
from fasthamer.teachers.wilor_checkpoint import to_ours
from fasthamer.teachers.wilor_refinement import gather
from fasthamer.teachers.zoo import HAMER_VARIABLE, WILOR_VARIABLE
from fasthamer.tools.distill import main as distill
from fasthamer.tools.eval import main as evaluate
from fasthamer.types import View

HUNDREDTH_MM = 1e-5


@pytest.fixture
def model(embedded):
    """A small WiLoR with seeded weights under which nothing is without effect."""
    wilor = tiny_wilor(embedded)
    wilor.load_state_dict(to_ours(published_state(wilor)))
    return wilor.eval()


@pytest.fixture(autouse=True)
def no_checkpoints(monkeypatch):
    monkeypatch.delenv(HAMER_VARIABLE, raising=False)
    monkeypatch.delenv(WILOR_VARIABLE, raising=False)


@pytest.fixture
def tiny_file(tmp_path, monkeypatch, embedded):
    """A checkpoint of a small WiLoR, which the loader takes for the published size."""
    monkeypatch.setattr("fasthamer.teachers.wilor_checkpoint.hollow_wilor", tiny_wilor)
    return str(checkpoint(tmp_path / "wilor_final.ckpt", published_state(tiny_wilor(embedded))))


def crops(batch: int, seed: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (batch, 3, 256, 256), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_wilor_equals_its_definition_written_by_hand(model, embedded):
    image = crops(2)
    mean, std = torch.tensor(IMAGENET_MEAN)[:, None, None], torch.tensor(IMAGENET_STD)[:, None, None]
    seen = ((image / 255 - mean) / std)[:, :, :, 32:-32]
    expected = reference(published_state(model), seen, embedded)
    with torch.no_grad():
        found = model(image)
    for name in ("features", "vertices", "joints", "camera"):
        torch.testing.assert_close(getattr(found, name), expected[name], atol=2e-5, rtol=1e-4, msg=name)
    torch.testing.assert_close(found.mano.betas, expected["betas"], atol=2e-5, rtol=1e-4)
    s, tx, ty = found.camera.unbind(1)
    placed = found.joints + torch.stack((tx, ty, 2 * 5000 / (256 * s)), 1)[:, None]
    torch.testing.assert_close(found.keypoints_2d, 5000 / 256 * placed[..., :2] / placed[..., 2:])


def test_vertices_are_sampled_around_the_top_left_cell_also_off_the_map():
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 3, height, 3 * height // 4, generator=generator) for height in (64, 32, 16)]
    vertices = 0.1 * torch.randn(2, 40, 3, generator=generator)
    for camera in ([[4.0, 0.0, 0.0]], [[60.0, 0.1, -0.05]], [[200.0, 0.3, 0.3]]):  # within half a cell; 3; 15
        camera = torch.tensor(camera).expand(2, 3)
        expected = gathered_by_hand(maps, vertices, camera)
        torch.testing.assert_close(gather(maps, vertices, camera), expected, atol=1e-4, rtol=1e-4)


def test_the_view_is_the_middle_three_quarters_of_the_crop(model):
    teacher = Teacher(model, "fp32")
    assert teacher.view == View(-0.375, -0.5, 0.375, 0.5) and teacher.feature_channels == WIDTH
    image = crops(1)
    outside = image.clone()
    outside[..., :32] = 0
    outside[..., -32:] = 0
    assert torch.equal(teacher(image).vertices, teacher(outside).vertices)
    outside[..., 32] = 255 - outside[..., 32]
    changed = (teacher(image).features - teacher(outside).features).abs().amax((0, 1))
    assert changed[:, 0].min() > changed[:, 1:].max()  # the first column of the map sees the first column of pixels


def test_bf16_is_the_backbones_alone(model):
    image = crops(1)
    exact, rounded = Teacher(model, "fp32")(image), Teacher(model, "bf16")(image)
    assert rounded.features.dtype == rounded.vertices.dtype == torch.float32
    difference = (rounded.features - exact.features).abs().mean() / exact.features.abs().mean()
    assert 1e-4 < difference < 0.1
    assert all(parameter.dtype == torch.float32 for parameter in model.decoder.parameters())


def test_the_inference_graph_gives_the_same_hands(model):
    graph = model.deploy()
    assert graph.outputs == OUTPUTS and stage_modules(graph).keys() == {"normalise", "backbone", "head", "mesh"}
    assert stage_modules(model).keys() == {"normalise", "backbone", "decoder", "hand"}
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in graph.modules())
    assert any(isinstance(part, torch.nn.BatchNorm2d) for part in model.modules())
    image = crops(3)
    with torch.no_grad():
        expected, found = model(image), graph(image)
        half = graph.in_precision(torch.bfloat16)(image)
    assert (expected.vertices - found.vertices).norm(dim=-1).max() < HUNDREDTH_MM
    for name in ("joints", "keypoints_2d", "camera", "features"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=1e-5, rtol=1e-5)
    assert half.vertices.dtype == torch.float32 and half.vertices.isfinite().all()


def test_torchs_archive_gives_the_same_hands_and_names_the_licence(model, tmp_path):
    contract = export(model, tmp_path / "hand.pt2")
    assert "CC BY-NC-ND 4.0" in json.loads(contract.to_json())["licence"]
    assert_same_hands(open_session(tmp_path / "hand.pt2", "folded")(crops(3).numpy()), model)


def test_onnx_gives_the_same_hands_in_onnxruntime_and_openvino(model, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="needs the extra [export]")
    export(model, tmp_path / "hand.onnx")
    images = crops(3).numpy()
    assert_same_hands(open_session(tmp_path / "hand.onnx", "onnxruntime")(images), model)
    openvino = pytest.importorskip("openvino", reason="needs the extra [export]")
    results = openvino.Core().compile_model(tmp_path / "hand.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(
        {"image": images}
    )
    assert_same_hands({name: value for key, value in results.items() for name in key.get_names()}, model)


def assert_same_hands(found, model):
    expected = open_session(model, "torch")(crops(3).numpy())
    assert set(OUTPUTS) <= set(found)
    assert np.linalg.norm(found["vertices"] - expected["vertices"], axis=-1).max() < 10 * HUNDREDTH_MM
    for name in ("camera", "betas", "keypoints_2d"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4)


def test_an_export_without_the_hand_model_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match="--without-mano leaves the hand model out, but this network needs it"):
        export(model, tmp_path / "hand.pt2", with_mesh=False)
    assert not list(tmp_path.iterdir())


def test_students_learn_from_a_wilor_through_the_command(tiny_file, tmp_path, capsys):
    run = tmp_path / "run"
    command = [
        *("--student", "timm:test_resnet", "--decoder-size", "tiny", "--steps", "2", "--kd", "hybrid"),
        *("IMAGE_SIZE", "64", "STUDENT.IMAGE_SIZE", "64", "STUDENT.PRETRAINED", "False", "DEVICE", "cpu"),
        *("DATA.WORKERS", "0", "DATA.SYNTHETIC_SIZE", "4", "DATA.SYNTHETIC_EVAL_SIZE", "2", "TRAIN.BATCH", "2"),
        *("--teacher", "wilor", "--teacher-ckpt", tiny_file, "--out", str(run)),
    ]
    assert distill(command) == 0
    announced = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert "wilor: as given; WiLoR's weights are under CC BY-NC-ND 4.0" in announced["teacher"]
    assert "wilor_final" in announced["hand"]  # the MANO of the checkpoint
    terms = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    trained = next(line for line in terms if line["phase"] == "train")
    assert trained["kd_features"] > 0 and trained["kd_joints"] > 0
    config = student_metadata(run / "student.safetensors")["metadata"]["config"]
    assert "NAME: wilor" in config


def test_evaluation_and_the_python_interface_open_it(tiny_file, tmp_path, capsys):
    command = [
        *("--model", "wilor", "--teacher-ckpt", tiny_file, "--out", str(tmp_path / "scores")),
        *("DATA.SYNTHETIC_EVAL_SIZE", "2", "DATA.WORKERS", "0", "DEVICE", "cpu"),
    ]
    assert evaluate(command) == 0
    assert json.loads((tmp_path / "scores" / "scores.json").read_text())["n"] == 2
    hands = HandMesh("wilor", checkpoint=tiny_file, device="cpu")
    image = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
    found = hands(image, [[100.0, 60.0, 200.0, 140.0], [20.0, 30.0, 90.0, 120.0]], [True, False])
    assert found.vertices.shape == (2, 778, 3) and np.isfinite(found.vertices).all()
    folded = HandMesh("wilor", checkpoint=tiny_file, device="cpu", backend="folded")
    same = folded(image, [[100.0, 60.0, 200.0, 140.0]])
    np.testing.assert_allclose(same.vertices[0], found.vertices[0], atol=HUNDREDTH_MM)


def test_it_is_found_by_name_and_by_its_variable(monkeypatch):
    assert resolve_teacher("wilor") == ("wilor", "as given")
    monkeypatch.setenv(WILOR_VARIABLE, "there/wilor_final.ckpt")
    name, why = resolve_teacher("auto")
    assert name == "wilor" and WILOR_VARIABLE in why and "there/wilor_final.ckpt" in why
    assert hand_for("wilor") == "there/wilor_final.ckpt"
    assert hand_for("wilor", "here.ckpt") == "here.ckpt"
    assert hand_for("hamer") == "embedded"
    monkeypatch.setenv(HAMER_VARIABLE, "there/hamer.ckpt")
    assert resolve_teacher("auto")[0] == "hamer"
    assert "NC-ND" in notice_of("wilor") and notice_of("hamer") == notice_of("embedded") == ""


def test_without_a_checkpoint_it_explains_how_to_get_it_and_names_the_terms(embedded):
    with pytest.raises(FileNotFoundError, match=r"wilor_final\.ckpt.*--teacher-ckpt.*CC BY-NC-ND 4\.0.*MANO"):
        build_teacher("wilor", "", embedded)
    with pytest.raises(FileNotFoundError, match=r"no WiLoR checkpoint .nowhere\.ckpt"):
        open_model("wilor", checkpoint="nowhere.ckpt")
    with pytest.raises(FileNotFoundError, match=r"give .*embedded, hamer, wilor, a student"):
        open_model("nothing")


def test_the_benchmark_times_it_with_random_weights_where_there_is_no_checkpoint(tiny_file):
    cpu = torch.device("cpu")
    (timed,), reference_name = benchmark_models(BenchmarkRequest(["wilor"]), cpu)
    assert timed[:3] == ("wilor", "refinement", "random") and reference_name == "wilor"
    (timed,), _ = benchmark_models(BenchmarkRequest(["wilor"], checkpoint=tiny_file), cpu)
    assert timed[:3] == ("wilor", "refinement", "trained")
