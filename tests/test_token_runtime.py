"""Token students, deployed: the training graph's hands in every runtime, and honest costs."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from tiny_tokenizers import tiny_tokenizer
from torch import nn

from fasthamer.benchmark.passes import stage_modules
from fasthamer.config import defaults
from fasthamer.distill.benchmark_models import BenchmarkRequest, benchmark_models
from fasthamer.hand.mano import load_hand
from fasthamer.hand.posed_joints import joints_of_vertices
from fasthamer.predict import HandMesh
from fasthamer.runtime.contract import MESH
from fasthamer.runtime.export import contract_of, export
from fasthamer.runtime.sessions import open_session
from fasthamer.students import build_student, save_student
from fasthamer.students.backbone import Backbone
from fasthamer.students.tokenhand import token_decoder
from fasthamer.students.tokenhand.token_classifier import GENERATORS
from fasthamer.students.tokenhand.token_decoder import TokenDecoder, token_decoder_params
from fasthamer.students.tokenhand.tokenizer import FRAMES, spec_of
from fasthamer.students.zoo import parameter_count
from fasthamer.tools import benchmark_fps
from fasthamer.tools import export as command

BACKBONE = "timm:test_resnet"
IMAGE_SIZE = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
BOXES = [[100.0, 60.0, 200.0, 140.0], [20.0, 30.0, 90.0, 120.0]]
HUNDREDTH_MM = 1e-5  # metres
# Both graphs round: against the same in doubles, each of them is some ten-thousandths of a millimetre off.
ROUNDING = 1e-6


@pytest.fixture(scope="module")
def hand():
    return load_hand("embedded")


@pytest.fixture(scope="module", autouse=True)
def fitted_once(hand):
    """The rows that read joints off the mesh are fitted for each decoder, a second or two that tests can share."""
    rows = joints_of_vertices(hand)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_decoder, "joints_of_vertices", lambda _: rows.clone())
        yield


@pytest.fixture(scope="module")
def tokenizers(hand):
    shape = {"tokens": [6, 20, 12], "widths": [32, 64, 8], "blocks": 2}
    return {frame: tiny_tokenizer(hand, frame=frame, **shape) for frame in FRAMES}


@pytest.fixture(scope="module")
def student(hand, tokenizers):
    """Its map has 7 x 7 cells, which the summary's 4 x 4 do not divide."""
    return as_trained(build_student(BACKBONE, "token", image_size=224, hand=hand, tokenizer=tokenizers["palm"]))


@pytest.fixture(scope="module")
def exported(student, tmp_path_factory):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="needs the extra [export]")
    path = tmp_path_factory.mktemp("exported") / "hand.onnx"
    export(student, path)
    return path


def as_trained(module: nn.Module, spread: float = 0.01) -> nn.Module:
    """No norm is neutral, no read-out as it starts: images differ in codes, joints and rotation (by `spread`)."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, part in module.named_modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                part.running_mean.normal_(0, 0.1, generator=generator)
                part.running_var.uniform_(0.1, 1.5, generator=generator)
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm) and part.weight is not None:
                part.weight.uniform_(0.5, 1.5, generator=generator)
                part.bias.normal_(0, 0.2, generator=generator)
            if name.endswith(("keypoints", "rotation")):
                part.weight.normal_(0, spread, generator=generator)
            if isinstance(part, TokenDecoder):
                part.names.normal_(generator=generator)
                part.classes[1].weight.mul_(5)
    return module.eval()


def crops(batch: int, size: int) -> np.ndarray:
    return np.random.default_rng(batch).integers(0, 256, (batch, 3, size, size), dtype=np.uint8)


def farthest(found, expected) -> float:
    """Metres between vertices."""
    return float(np.linalg.norm(np.asarray(found) - np.asarray(expected), axis=-1).max())


def in_crop(camera) -> np.ndarray:
    """Scale and shift in crop widths: of a random mesh, hardly like its joints, the camera itself is ill determined."""
    camera = np.asarray(camera)
    return np.concatenate((camera[:, :1], camera[:, :1] * camera[:, 1:]), axis=1)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("generator", GENERATORS)
def test_but_for_rounding_the_folded_decoder_is_the_decoder(hand, tokenizers, generator, frame):
    decoder = as_trained(TokenDecoder(40, tokenizers[frame], hand, generator, view=0.8), spread=0.3).double()
    features = torch.randn(5, 40, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for decoder.hard in (False, True):
        head, mesh, outputs = decoder.fold(torch.float64)
        assert outputs == MESH
        with torch.no_grad():
            expected, found = decoder(features, hand), mesh(*head(features), features)
        assert expected.keypoints_2d.abs().max() > 0.4, "no joint is outside the map: nothing tests its border"
        assert (expected.vertices[0] - expected.vertices[1]).abs().max() > 1e-3
        for name, same in expected._asdict().items():
            if same is not None:
                torch.testing.assert_close(getattr(found, name), same, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("frame", FRAMES)
def test_a_deployed_student_gives_the_same_hands_at_any_batch(hand, tokenizers, generator, frame):
    options = {"image_size": 64, "view": 0.7, "hand": hand, "tokenizer": tokenizers[frame], "generator": generator}
    student = as_trained(build_student(BACKBONE, "token", **options))
    graph = student.deploy()
    for batch in (1, 3, 8):
        image = torch.from_numpy(crops(batch, 96))
        with torch.no_grad():
            expected, found = student(image), graph(image)
        assert farthest(found.vertices, expected.vertices) < ROUNDING
        assert farthest(found.joints, expected.joints) < ROUNDING
        assert found.mano is None
        torch.testing.assert_close(found.keypoints_2d, expected.keypoints_2d, atol=1e-5, rtol=0)
        np.testing.assert_allclose(in_crop(found.camera), in_crop(expected.camera), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.logits, expected.logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found.features, expected.features, atol=1e-4, rtol=1e-4)


def test_whether_tokens_are_hard_is_settled_when_it_is_deployed(student):
    image = torch.from_numpy(crops(2, 224))
    soft = student.deploy()
    try:
        student.decoder.hard = True
        with torch.no_grad():
            expected, mixed, found = (model(image).vertices for model in (student, soft, student.deploy()))
    finally:
        student.decoder.hard = False
    assert farthest(found, expected) < ROUNDING
    assert farthest(mixed, expected) > 1e-4


def test_deploying_leaves_the_student_as_it_was_and_half_precision_leaves_the_mesh(student):
    before = {name: value.clone() for name, value in student.state_dict().items()}
    graph = student.deploy()
    assert all(torch.equal(before[name], value) for name, value in student.state_dict().items())
    assert all(each.requires_grad for each in student.decoder.mixers.parameters())
    half, image = graph.in_precision(torch.bfloat16), torch.from_numpy(crops(2, 224))
    assert {each.dtype for each in graph.parameters()} == {torch.float32}
    assert half.head.mixers[0].channels[0].weight.dtype == torch.bfloat16
    assert {each.dtype for each in half.mesh.parameters()} == {torch.float32}
    exact, rounded = graph(image), half(image)
    assert rounded.vertices.dtype == rounded.keypoints_2d.dtype == rounded.logits.dtype == torch.float32
    assert 1e-6 < farthest(rounded.vertices, exact.vertices) < 2e-2


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_exported_file_gives_the_training_graphs_hands(student, exported, backend):
    pytest.importorskip(backend)
    session = open_session(exported, backend, threads=1)
    original = open_session(student, "torch")
    for batch in (1, 3, 8):
        found, expected = session(crops(batch, 224)), original(crops(batch, 224))
        assert tuple(found) == tuple(expected) == MESH
        assert farthest(found["vertices"], expected["vertices"]) < ROUNDING
        assert farthest(found["joints"], expected["joints"]) < ROUNDING
        np.testing.assert_allclose(found["keypoints_2d"], expected["keypoints_2d"], atol=1e-5)
        np.testing.assert_allclose(in_crop(found["camera"]), in_crop(expected["camera"]), rtol=1e-4, atol=1e-4)


def test_the_python_interface_opens_it_without_torch(student, exported, tmp_path):
    np.save(tmp_path / "image.npy", IMAGE_SIZE)
    code = """
        import sys
        sys.modules.update(dict.fromkeys(("torch", "torchvision", "timm", "smplx", "safetensors", "yacs", "onnx")))
        import numpy
        from fasthamer.predict import HandMesh
        image = numpy.load(sys.argv[2] + "/image.npy")
        found = HandMesh(sys.argv[1])(image, [[100, 60, 200, 140], [20, 30, 90, 120]], [True, False])
        found.save(sys.argv[2] + "/found.npz")
    """
    run = [sys.executable, "-c", textwrap.dedent(code), str(exported), str(tmp_path)]
    finished = subprocess.run(run, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    save_student(tmp_path / "student.safetensors", student, {})
    expected = HandMesh(tmp_path, device="cpu")(IMAGE_SIZE, BOXES, [True, False])
    with np.load(tmp_path / "found.npz") as found:
        assert farthest(found["vertices"], expected.vertices) < HUNDREDTH_MM
        np.testing.assert_allclose(found["keypoints_2d"], expected.keypoints_2d, atol=0.01)  # pixels
        np.testing.assert_allclose(found["translation"], expected.translation, rtol=1e-3)
        np.testing.assert_array_equal(found["faces"][0], expected.faces)


def test_the_contract_names_what_comes_out_and_the_licence_of_the_mesh(student):
    contract = contract_of(student.deploy(), "fp32")
    header = json.loads(contract.to_json())
    assert header["outputs"] == list(header["meaning"]) == list(MESH)
    assert len(header["faces"]) == 1538 and "MIT" in header["licence"]
    assert "non-commercial" in json.loads(contract._replace(hand_name="MANO_RIGHT").to_json())["licence"]


def test_the_command_reports_differences_without_rotations_and_knows_no_export_without_mesh(
    hand, tokenizers, tmp_path, capsys
):
    options = {"image_size": 64, "hand": hand, "tokenizer": tokenizers["palm"]}
    save_student(tmp_path / "student.safetensors", as_trained(build_student(BACKBONE, "token", **options)), {})
    out = tmp_path / "out" / "hand.pt2"
    given = [str(tmp_path), "--format", "torch", "--out", str(out), "--crops", "3"]
    assert command.main(given) == 0
    report = json.loads(out.with_name("hand.pt2.report.json").read_text())
    assert report["outputs"] == list(MESH)
    assert 0 <= report["differences"]["vertices_mm_max"] < 0.001
    assert {"camera_max", "joints_mm_max"} < set(report["differences"])
    assert not {"betas_max", "rotations_degrees_max"} & set(report["differences"])
    assert report["cost"]["pa_mpvpe_mm_cost"] == pytest.approx(0, abs=1e-3)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        command.main([*given[:3], "--out", str(tmp_path / "bare" / "hand.pt2"), "--without-mano"])
    assert stop.value.code == 2
    assert "a token decoder has none" in (message := capsys.readouterr().err.splitlines()[-1])
    assert "fasthamer.hand.fit.fit_mano" in message
    assert not (tmp_path / "bare").exists()


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("frame", FRAMES)
def test_parameters_are_counted_without_building_anything(hand, tokenizers, generator, frame):
    spec = tokenizers[frame].spec
    decoder = TokenDecoder(24, tokenizers[frame], hand, generator)
    assert token_decoder_params(24, spec, generator) == parameter_count(decoder)
    stored = sum(value.numel() for value in decoder.state_dict().values())
    statistics = sum(value.numel() for name, value in decoder.state_dict().items() if "running" in name)
    batches = sum("num_batches" in name for name in decoder.state_dict())
    assert stored - statistics - batches == parameter_count(decoder)  # codes included


def test_token_students_come_by_name_in_their_one_size():
    request = BenchmarkRequest([BACKBONE], ("token", "flat"), ("tiny", "small"))
    found, _ = benchmark_models(request, torch.device("cpu"))
    assert [each.decoder for each in found] == ["token full", "flat tiny", "flat small"]
    assert {each.weights for each in found} == {"random"}


def test_the_benchmark_times_token_students_stage_by_stage(tmp_path):
    threads = torch.get_num_threads()
    asked = ["--models", BACKBONE, "--decoder", "token", "--backends", "torch,folded", "--device", "cpu"]
    quick = ["--rounds", "3", "--seconds", "0.01", "--threads", "1", "--peak-sides", "64", "--peak-mb", "1,2"]
    quick += ["--out", str(tmp_path)]
    try:
        assert benchmark_fps.main([*asked, "--stages", "backbone,head,mesh,model", *quick]) == 0
    finally:
        torch.set_num_threads(threads)
    rows = json.loads((tmp_path / "benchmark.json").read_text())
    by = {(row["backend"], row["stage"]): row for row in rows}
    assert len(by) == 8 and all(row["median_ms"] > 0 and row["weights"] == "random" for row in by.values())
    for backend in ("torch", "folded"):
        parts = [by[backend, part]["gflops"] for part in ("backbone", "head", "mesh")]
        assert sum(parts) == pytest.approx(by[backend, "model"]["gflops"], rel=1e-3)
    # Of softmax(L) C and its reduction, 48 x 512 x 512 and 48 x 512 x 256 multiply-adds, the second remains.
    assert by["folded", "model"]["gflops"] < by["torch", "model"]["gflops"] - 2 * 48 * 512 * 512 / 1e9
    backbone = Backbone(BACKBONE.removeprefix("timm:"), 256)
    expected = parameter_count(backbone) + token_decoder_params(backbone.channels, spec_of(defaults().TOKENIZER))
    assert by["torch", "model"]["params_m"] == pytest.approx(expected / 1e6, rel=1e-4)


def test_the_stages_of_the_training_graph_are_its_mesh_decoder_and_what_places_the_mesh(student):
    assert list(stage_modules(student)) == ["normalise", "backbone", "decoder", "mesh", "placing"]
    assert list(stage_modules(student.deploy())) == ["normalise", "backbone", "head", "mesh"]
