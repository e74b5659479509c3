"""Exported files: same hands without torch, self-describing, whole or not there, and safe to open."""

import json
import shutil
import subprocess
import sys
import textwrap
import zipfile

import cv2
import numpy as np
import pytest
import torch
from full_disk import full_disk
from torch import nn

from fasthamer.predict import HandMesh
from fasthamer.runtime.calibration import LabelledCrops, image_crops, synthetic_crops
from fasthamer.runtime.contract import OUTPUTS, PARAMETERS, Contract
from fasthamer.runtime.deploy import inference_graph
from fasthamer.runtime.export import export
from fasthamer.runtime.parity import cost, differences
from fasthamer.runtime.sessions import open_session
from fasthamer.students import build_student, save_student
from fasthamer.tools import export as command

IMAGE_SIZE = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
BOXES = [[100.0, 60.0, 200.0, 140.0], [20.0, 30.0, 90.0, 120.0]]
HUNDREDTH_MM = 1e-5


@pytest.fixture(scope="module")
def student():
    torch.manual_seed(0)
    return build_student("timm:test_resnet", decoder_size="tiny", image_size=64, view=0.6667).eval()


@pytest.fixture(scope="module")
def archive(student, tmp_path_factory):
    """A student in torch's format, which is quick to write."""
    path = tmp_path_factory.mktemp("archive") / "hand.pt2"
    export(student, path)
    return path


def crops(batch: int, size: int) -> np.ndarray:
    return np.random.default_rng(batch).integers(0, 256, (batch, 3, size, size), dtype=np.uint8)


def without(packages: tuple[str, ...], code: str, *arguments: object) -> str:
    """The output of `code` in a Python in which the packages cannot be imported."""
    blocked = f"import sys\nsys.modules.update(dict.fromkeys({packages!r}))\n"
    finished = subprocess.run(
        [sys.executable, "-c", blocked + textwrap.dedent(code), *map(str, arguments)], capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_an_archive_written_on_the_cpu_runs_on_another_device(archive):
    session = open_session(archive, "folded", "auto", "meta")
    size = session.image_size
    found = session(torch.zeros(2, 3, size, size, dtype=torch.uint8, device="meta"))
    assert {value.device.type for value in found.values()} == {"meta"}
    assert found["vertices"].shape == (2, 778, 3)


def test_the_file_runs_with_onnxruntime_and_numpy_alone(exported_teacher, tmp_path):
    teacher, path = exported_teacher
    image = crops(3, 224)
    np.save(tmp_path / "crops.npy", image)
    code = """
        import numpy, onnxruntime
        session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
        names = [each.name for each in session.get_outputs()]
        found = dict(zip(names, session.run(None, {"image": numpy.load(sys.argv[2] + "/crops.npy")})))
        numpy.savez(sys.argv[2] + "/found.npz", **found)
        assert not {"torch", "cv2", "fasthamer"} & set(name for name, module in sys.modules.items() if module)
    """
    without(("torch", "timm", "smplx", "cv2", "fasthamer"), code, path, tmp_path)
    expected = open_session(teacher)(image)
    with np.load(tmp_path / "found.npz") as found:
        assert set(found) == set(OUTPUTS)
        assert np.linalg.norm(found["vertices"] - expected["vertices"], axis=-1).max() < HUNDREDTH_MM


def test_the_python_interface_opens_it_without_torch(exported_teacher, tmp_path):
    _, path = exported_teacher
    np.save(tmp_path / "image.npy", IMAGE_SIZE)
    code = """
        import numpy
        from fasthamer.predict import HandMesh
        image = numpy.load(sys.argv[2] + "/image.npy")
        found = HandMesh(sys.argv[1])(image, [[100, 60, 200, 140], [20, 30, 90, 120]], [True, False])
        found.save(sys.argv[2] + "/found.npz")
    """
    heavy = ("torch", "torchvision", "timm", "smplx", "safetensors", "yacs", "scipy", "PIL", "onnx", "openvino")
    without(heavy, code, path, tmp_path)
    expected = HandMesh("embedded", device="cpu")(IMAGE_SIZE, BOXES, [True, False])
    with np.load(tmp_path / "found.npz") as found:
        assert np.linalg.norm(found["vertices"] - expected.vertices, axis=-1).max() < HUNDREDTH_MM
        np.testing.assert_allclose(found["keypoints_2d"], expected.keypoints_2d, atol=0.01)  # pixels
        np.testing.assert_allclose(found["translation"], expected.translation, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(found["faces"][0], expected.faces)
    assert (HandMesh(path).__call__(IMAGE_SIZE, BOXES).draw(IMAGE_SIZE) != IMAGE_SIZE).any()


def test_the_file_says_what_it_takes_and_gives(exported_teacher):
    onnx = pytest.importorskip("onnx")
    teacher, path = exported_teacher
    model = onnx.load(path)
    header = json.loads(next(entry.value for entry in model.metadata_props if entry.key == "fasthamer"))
    assert header["image_size"] == 224 and header["precision"] == "fp32"
    assert header["hand"] == teacher.hand.fingerprint and header["hand_name"] == "embedded"
    assert header["outputs"] == list(OUTPUTS) == [each.name for each in model.graph.output]
    assert "OpenPose" in header["meaning"]["joints"] and "metres" in header["meaning"]["vertices"]
    assert "uint8 RGB" in header["input"] and "MIT" in header["licence"]
    # The normalisation that is inside, applied by hand: what the graph's own does to a pixel of 200.
    mean, std = np.array(header["mean"]), np.array(header["std"])
    normalise = inference_graph(teacher).normalise
    inside = 200 * normalise.scale.flatten() + normalise.shift.flatten()
    np.testing.assert_allclose((200 / 255 - mean) / std, inside, rtol=1e-5)
    assert [dim.dim_param for dim in model.graph.input[0].type.tensor_type.shape.dim][:1] == ["batch"]
    assert "/fasthamer/" not in path.read_bytes().decode("latin-1"), "a path of the exporting machine is in the file"


def test_the_licence_follows_the_hand():
    contract = Contract(64, (0, 0, 0, 0), OUTPUTS, "fp32", "abc", "MANO_RIGHT", [[0, 1, 2]], (0, 0, 0), (1, 1, 1))
    assert "non-commercial" in json.loads(contract.to_json())["licence"]
    assert "MIT" in json.loads(contract._replace(hand_name="embedded").to_json())["licence"]
    bare = contract._replace(faces=None, outputs=PARAMETERS)
    assert "No hand model" in json.loads(bare.to_json())["licence"]
    assert Contract.from_json(bare.to_json(), "x") == bare


def test_torchs_archive_opens_in_the_same_interface(student, archive, tmp_path):
    save_student(tmp_path / "student.safetensors", student, {})
    for batch in (1, 4):
        found, expected = (open_session(each, "folded")(crops(batch, 96)) for each in (archive, student))
        np.testing.assert_allclose(found["vertices"], expected["vertices"], atol=1e-7)
    found, expected = (HandMesh(each, device="cpu")(IMAGE_SIZE, BOXES) for each in (archive, tmp_path))
    np.testing.assert_allclose(found.vertices, expected.vertices, atol=1e-6)


def test_without_the_mesh_the_users_hand_makes_it(student, tmp_path):
    path = tmp_path / "parameters.pt2"
    contract = export(student, path, with_mesh=False)
    assert contract.outputs == PARAMETERS and contract.faces is None
    written, mesh = path.read_bytes(), student.deploy().mesh.skinning
    for array in (student.hand.layer.v_template, mesh.rest, mesh.blend, mesh.weights, mesh.joints_blend):
        assert array.numpy().tobytes()[:400] not in written, "the hand's arrays are in the file"
    save_student(tmp_path / "student.safetensors", student, {})
    expected = HandMesh(tmp_path, device="cpu")(IMAGE_SIZE, BOXES, [True, False])
    found = HandMesh(path, hand="embedded")(IMAGE_SIZE, BOXES, [True, False])
    np.testing.assert_allclose(found.vertices, expected.vertices, atol=1e-6)
    np.testing.assert_allclose(found.keypoints_2d, expected.keypoints_2d, atol=0.01)
    np.testing.assert_array_equal(found.faces, expected.faces)
    with pytest.raises(ValueError, match=r"without the hand's mesh: give the hand .*'embedded'"):
        HandMesh(path)


def test_a_file_with_its_own_hand_takes_no_other(exported_teacher):
    with pytest.raises(ValueError, match="has its hand model inside"):
        HandMesh(exported_teacher[1], hand="embedded")
    with pytest.raises(ValueError, match="runs in onnxruntime, not in folded"):
        HandMesh(exported_teacher[1], backend="folded")


def test_openvinos_format_carries_the_contract(student, tmp_path):
    pytest.importorskip("openvino")
    contract = export(student, tmp_path / "hand.xml", "fp16")
    session = open_session(tmp_path / "hand.xml", "openvino", "auto")
    assert session.contract == contract and session.setting.precision == "fp16"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["hand.bin", "hand.xml"]
    graph = student.deploy().parts(("normalise", "backbone", "head", "mesh"))
    exact_bytes = sum(value.nbytes for value in (*graph.parameters(), *graph.buffers()))
    assert session.size_bytes < 0.6 * exact_bytes
    images = crops(2, contract.image_size)
    expected = open_session(student)(images)
    exact = open_session(tmp_path / "hand.xml", "openvino", "fp32")(images)  # fp16 weights, fp32 arithmetic
    assert 0 < np.linalg.norm(exact["vertices"] - expected["vertices"], axis=-1).max() < 1e-3


class Bessel(nn.Module):
    """An operator that ONNX does not have."""

    def forward(self, image):
        return torch.special.bessel_j0(image[..., 16:-16, 16:-16].float())


def test_an_operator_that_onnx_lacks_is_named_and_nothing_is_left(student, tmp_path):
    graph = student.deploy()
    bessel = Bessel()
    bessel.share, bessel.size = graph.normalise.share, graph.normalise.size
    bessel.scale, bessel.shift = graph.normalise.scale, graph.normalise.shift
    graph.normalise = bessel
    with pytest.raises(ValueError, match=r"cannot be written as ONNX: .*bessel_j0"):
        export(graph, tmp_path / "hand.onnx")
    assert not list(tmp_path.iterdir())


def test_requests_that_cannot_be_met_are_explained(student, tmp_path, monkeypatch):
    for name, precision, message in (
        ("hand.tflite", "fp32", r"called \*\.onnx, \*\.xml, \*\.pt2"),
        ("hand.onnx", "bf16", r"\.onnx file is written in fp32, fp16, int8, not in bf16"),
        ("hand.pt2", "int8", r"\.pt2 file is written in"),
        ("hand.onnx", "int8", "int8 is calibrated"),
    ):
        with pytest.raises(ValueError, match=message):
            export(student, tmp_path / name, precision)
    for package in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(ImportError, match=r"onnx, onnxscript, onnxruntime is not installed: pip install"):
        export(student, tmp_path / "hand.onnx")
    assert not list(tmp_path.iterdir())


def tampered(source, target, member: str, change):
    """A copy of an archive with one member's text changed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            new.writestr(entry, change(content) if entry.filename.endswith(member) else content)
    return target


@pytest.mark.parametrize(
    ("member", "change", "message"),
    [
        ("model.json", lambda text: text.replace(b"torch.ops.aten.gelu.default", b"torch.os.system"), "os.system"),
        ("model.json", lambda text: text.replace(b"Symbol('s", b"__import__('s"), "expr_str"),
        ("model.json", lambda text: text.replace(b'"guards_code": []', b'"guards_code": ["print(1)"]'), "guards"),
        ("weights_config.json", lambda text: text.replace(b'"use_pickle": false', b'"use_pickle": true'), "no plain"),
        ("weights_config.json", lambda text: text.replace(b'"weight_0"', b'"../weight_0"'), "no plain"),
        ("sample_inputs/model.pt", lambda text: b"cos\nsystem\n(S'true'\ntR.", "not an archive of torch.export"),
        ("model.json", lambda text: text[:1000], "damaged"),
    ],
)
def test_an_archive_that_would_run_code_is_not_opened(archive, tmp_path, member, change, message):
    bad = tampered(archive, tmp_path / "bad.pt2", member, change)
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(bad) as new:
        assert any(old.read(name) != new.read(name) for name in old.namelist()), "nothing was changed"
    with pytest.raises(ValueError, match=message):
        open_session(bad, "folded")


def test_an_archive_with_more_in_it_is_not_opened(archive, tmp_path):
    bad = tmp_path / "bad.pt2"
    shutil.copy(archive, bad)
    with zipfile.ZipFile(bad, "a") as more:
        more.writestr("hand/data/constants/custom_obj_0", b"anything")
    with pytest.raises(ValueError, match="it holds 'data/constants/custom_obj_0'"):
        open_session(bad, "folded")


def test_an_archive_on_a_full_disk_leaves_nothing(student, tmp_path):
    with full_disk(), pytest.raises(OSError, match="File too large"):
        export(student, tmp_path / "hand.pt2")
    assert not list(tmp_path.iterdir())


def test_differences_and_costs_are_those_of_the_definition():
    generator = np.random.default_rng(0)
    eye = np.broadcast_to(np.eye(3), (2, 15, 3, 3)).copy()
    first = {
        "vertices": generator.normal(size=(2, 778, 3)),
        "joints": generator.normal(size=(2, 21, 3)),
        "keypoints_2d": np.zeros((2, 21, 2)),
        "global_orient": eye[:, :1],
        "hand_pose": eye,
        "betas": np.zeros((2, 10)),
        "camera": np.zeros((2, 3)),
    }
    second = {name: value.copy() for name, value in first.items()}
    second["vertices"][0, 5] += [0.003, 0, 0.004]  # 5 mm
    turn = np.radians(2.0)
    second["hand_pose"][1, 3, :2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    second["camera"][0, 1] = -0.25
    found = differences(first, second)
    assert found["vertices_mm_max"] == pytest.approx(5.0)
    assert found["vertices_mm_mean"] == pytest.approx(5.0 / (2 * 778))
    assert found["joints_mm_max"] == found["betas_max"] == 0
    assert found["rotations_degrees_max"] == pytest.approx(2.0)
    assert found["camera_max"] == 0.25
    truth = LabelledCrops(np.zeros((2, 3, 8, 8), np.uint8), first["joints"], first["vertices"])
    moved = {**second, "joints": 2 * first["joints"] + 1}  # a similarity costs nothing
    assert cost(first, moved, truth)["pa_mpjpe_mm_cost"] == pytest.approx(0, abs=1e-4)
    assert cost(first, moved, truth)["pa_mpvpe_mm_exported"] > 0
    assert cost(first, {"betas": second["betas"]}, truth) == {}


def test_images_are_cropped_whole(tmp_path, student):
    cv2.imwrite(str(tmp_path / "a.png"), IMAGE_SIZE[..., ::-1])
    (tmp_path / "notes.txt").write_text("no image")
    found = image_crops(tmp_path, 64)
    assert found.shape == (1, 3, 64, 64)
    # 320 wide in a box of aspect 3:4: a side of 320 * 4 / 3 = 426.7, in which 240 rows fill 0.5625 of 64 = 36 rows.
    assert (found[0].sum((0, 2)) > 0).sum() == pytest.approx(36, abs=2)
    with pytest.raises(FileNotFoundError, match="no images"):
        image_crops(tmp_path / "nowhere", 64)
    first, other = (synthetic_crops(student.hand, 2, 32, seed).images for seed in (1, 2))
    assert first.shape == (2, 3, 32, 32) and (first != other).any()


def test_the_command_writes_the_file_and_its_report(student, tmp_path, capsys):
    save_student(tmp_path / "student.safetensors", student, {})
    cv2.imwrite(str(tmp_path / "a.png"), IMAGE_SIZE)
    given = [str(tmp_path), "--format", "torch", "--out", str(tmp_path / "out.pt2"), "--crops", "3"]
    assert command.main([*given, "--images", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "out.pt2.report.json").read_text())
    assert report["differences"]["vertices_mm_max"] < 0.001
    assert report["compared_on"].startswith("1 images of")
    assert report["cost"]["pa_mpjpe_mm_cost"] == pytest.approx(0, abs=1e-3)
    assert "vertices_mm_max" in capsys.readouterr().out
    for wrong, message in (
        (["--out", "hand.onnx"], r"a torch export is called *.pt2"),
        (["--images", str(tmp_path / "gone")], "no images"),
        (["--precision", "int8"], "not in int8"),
        (["--crops", "0"], "at least 1"),
    ):
        with pytest.raises(SystemExit) as stop:
            command.main([*given, *wrong])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_one_line(student, tmp_path, capsys):
    save_student(tmp_path / "student.safetensors", student, {})
    (tmp_path / "file").touch()
    given = [str(tmp_path), "--format", "torch", "--crops", "1"]
    assert command.main([*given, "--out", str(tmp_path / "file" / "out.pt2")]) == 1
    (tmp_path / "out.pt2.report.json").mkdir()
    (tmp_path / "out.pt2.report.json" / "other").touch()
    assert command.main([*given, "--out", str(tmp_path / "out.pt2")]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("export: ") and str(tmp_path / "file") in first
    assert second.startswith("export: ") and "out.pt2.report.json" in second
