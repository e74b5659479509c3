"""The readers of weights, hand models, exported models, teacher caches and run directories."""

from __future__ import annotations

import json
import pickle
import shutil
from collections import OrderedDict
from functools import cache
from pathlib import Path

import numpy as np
import torch
from fuzzing.labels import embedded
from fuzzing.sandbox import Target
from miniatures_images import ImageDataset, LabelTeacher
from safetensors.torch import save_file
from yacs.config import CfgNode

from fasthamer.benchmark.plot import read_score
from fasthamer.distill.report.training_log import read_training_log
from fasthamer.files.safe_checkpoint import read_state_dict
from fasthamer.hand.mano_files import read_hand_arrays
from fasthamer.runtime.contract import Contract
from fasthamer.runtime.onnx_sessions import OnnxSession
from fasthamer.runtime.session import Setting
from fasthamer.students.backbone import read_state
from fasthamer.students.fast_hamer_checkpoint import load_fast_hamer
from fasthamer.students.files import box_shape_of, load_student, save_student
from fasthamer.students.tokenhand.files import load_tokenizer, save_tokenizer
from fasthamer.teachers.cache.cached_teacher import CachedTeacher
from fasthamer.teachers.cache.manifest import CacheRequest
from fasthamer.training.checkpoint import Trainable, load_checkpoint, save_checkpoint
from fasthamer.training.run_dir import continued, last_checkpoint, resumed_config

CONTRACT = Contract(64, (-0.5, -0.5, 0.5, 0.5), ("vertices",), "fp32", "x", "embedded", None, (0, 0, 0), (1, 1, 1))


def _write_checkpoints(folder: Path) -> None:
    weights = OrderedDict(weight=torch.arange(6.0).reshape(2, 3), bias=torch.zeros(2, dtype=torch.float16))
    torch.save(weights, folder / "bare.pt")
    settings = CfgNode({"MODEL": CfgNode({"IMAGE_SIZE": 256})})
    content = {"epoch": 1, "state_dict": weights, "hyper_parameters": {"cfg": settings}, "best": np.float64(2.0)}
    torch.save(content, folder / "lightning.ckpt")


class _Chumpy:
    """Pickled as chumpy's arrays are in MANO's file."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x


def _write_hands(folder: Path) -> None:
    arrays = {key: value.astype("f2" if value.dtype.kind == "f" else "i2") for key, value in _thin_hand().items()}
    np.savez_compressed(folder / "hand.npz", **arrays)
    sparse = {"v_template": _Chumpy(arrays["v_template"]), "shapedirs": _Chumpy(arrays["shapedirs"])}
    _Chumpy.__module__, _Chumpy.__name__, _Chumpy.__qualname__ = "chumpy.ch", "Ch", "Ch"
    (folder / "hand.pkl").write_bytes(_pickled(arrays | sparse))
    names = {"v_template": "v_template", "faces_tensor": "f", "lbs_weights": "weights", "J_regressor": "J_regressor"}
    buffers = {f"mano.{new}": torch.from_numpy(arrays[old].astype("f4")) for new, old in names.items()}
    buffers["mano.shapedirs"] = torch.from_numpy(arrays["shapedirs"])
    buffers["mano.posedirs"] = torch.from_numpy(arrays["posedirs"].reshape(-1, 135).T.copy())
    buffers["mano.parents"] = torch.from_numpy(arrays["kintree_table"][0].astype("i8"))
    buffers["mano.hand_mean"] = torch.from_numpy(arrays["hands_mean"].astype("f4"))
    torch.save({"state_dict": buffers}, folder / "hand.ckpt")


def _pickled(content: object) -> bytes:
    import sys
    from types import ModuleType

    sys.modules["chumpy"], sys.modules["chumpy.ch"] = ModuleType("chumpy"), ModuleType("chumpy.ch")
    sys.modules["chumpy.ch"].Ch = _Chumpy  # type: ignore[attr-defined]
    return pickle.dumps(content, 2).replace(b"cnumpy._core.", b"cnumpy.core.")


@cache
def _thin_hand() -> dict[str, np.ndarray]:
    arrays = read_hand_arrays("embedded")
    return arrays | {"kintree_table": arrays["kintree_table"].clip(-1, 100)}


def _write_tensors(folder: Path) -> None:
    from tiny_tokenizers import tiny_tokenizer

    from fasthamer.students import build_student

    torch.manual_seed(0)
    student = build_student("timm:test_resnet", decoder_size="tiny", image_size=64, hand=embedded())
    save_student(folder / "student.safetensors", student, {"metrics": {"pa_mpjpe_mm": 5.0}}, "fp16")
    save_tokenizer(folder / "tokenizer.safetensors", tiny_tokenizer(embedded()), {"config": {}}, "fp16")
    save_file({"a": torch.zeros(2, 3), "b": torch.ones(4, dtype=torch.int64)}, folder / "backbone.safetensors")


def _read_tensors(folder: Path, path: Path) -> None:
    if path.name == "student.safetensors":
        box_shape_of(path)
        load_student(path, embedded())
    elif path.name == "tokenizer.safetensors":
        load_tokenizer(path, embedded())
    else:
        read_state(path)


def _read_checkpoint(folder: Path, path: Path) -> None:
    read_state(path) if path.suffix == ".pt" else None
    for value in read_state_dict(path).values():
        value.float().clone()
    if path.suffix == ".ckpt":
        try:
            load_fast_hamer(path)
        except ValueError as error:  # it is none, as the message has to say
            assert str(path) in str(error)


def write_onnx(folder: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((1, 3, 1, 1), np.float32), "weight")
    nodes = [
        helper.make_node("Cast", ["image"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["numbers", "weight"], ["vertices"]),
    ]
    shape = ["batch", 3, 64, 64]
    graph = helper.make_graph(
        nodes,
        "hand",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("vertices", TensorProto.FLOAT, shape)],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {"fasthamer": CONTRACT.to_json()})
    onnx.save(model, folder / "hand.onnx")
    (folder / "contract.json").write_text(CONTRACT.to_json())


def _read_onnx(folder: Path, path: Path) -> None:
    if path.suffix == ".json":
        Contract.from_json(path.read_text(encoding="utf-8", errors="replace"), str(path))
    else:
        OnnxSession(path, Setting("onnxruntime", "auto", "cpu", 1, 1))


def _write_pt2(folder: Path) -> None:
    from fasthamer.runtime.pt2_archive import save_pt2

    class Scale(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3, 1, 1))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image.float() * self.weight

    save_pt2(Scale().eval(), torch.zeros(2, 3, 8, 8, dtype=torch.uint8), CONTRACT, folder / "hand.pt2")


def _read_pt2(folder: Path, path: Path) -> None:
    from fasthamer.runtime.pt2_archive import load_pt2

    load_pt2(path)


def _open_cache(folder: Path) -> CachedTeacher:
    images = ImageDataset(length=6)
    return CachedTeacher(folder, LabelTeacher(images), images, CacheRequest(maps=True, channels=3, rows=4))


def _write_cache(folder: Path) -> None:
    _open_cache(folder).build(batch=3, workers=0, report=lambda text: None)


def _read_cache(folder: Path, path: Path) -> None:
    cached = _open_cache(folder)
    if not path.name.startswith("shard"):
        cached._open()
        for number, mark in enumerate(cached.rows["map_checksum"]):
            cached.shards.read_map(cached.maps, number, int(mark))


def _trainable() -> Trainable:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return Trainable({"learner": model}, {"main": optimizer})


def _write_run(folder: Path) -> None:
    origin = {"command": [], "revision": "", "packages": {}, "data": "x", "hand": "y"}
    (folder / "provenance.json").write_text(json.dumps(origin))
    (folder / "config.yaml").write_text("TRAIN:\n  STEPS: 10\n")
    lines = [{"step": step, "phase": "train", "total": 1.5} for step in (2, 4)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "scores.json").write_text(json.dumps({"pa_mpjpe_mm": 6.5, "samples": 3}))
    for step in (3, 4):
        save_checkpoint(folder / "checkpoints", step, _trainable(), {"place": [1, 2]})
    (folder / "checkpoints" / "step_4" / "SHA256SUMS").unlink()  # who makes a hostile file gives it its checksum


def _read_run(folder: Path, path: Path) -> None:
    origin = {"command": [], "revision": "", "packages": {}, "data": "x", "hand": "y"}
    if path.name == "scores.json":
        read_score(path)
    elif path.name == "metrics.jsonl":
        read_training_log(folder, "run")
    elif path.name == "config.yaml":
        resumed_config(folder, [])
    elif path.name == "provenance.json":
        continued(folder, origin, Path("step_4"))
    else:
        last_checkpoint(folder)
        load_checkpoint(path.parent, _trainable())


RECORDED_RUN = {"video": "clip.mp4", "models": []}


def _write_records(folder: Path) -> None:
    from fasthamer.detect.landmark_reader import Landmarks
    from fasthamer.video.follow import Computed
    from fasthamer.video.records import FrameRecords
    from fasthamer.video.tracker import Observed

    hands = Landmarks(np.zeros((1, 21, 2)), np.ones(1), np.ones(1), np.zeros((1, 21, 3)))
    records = FrameRecords(folder / "frames", RECORDED_RUN, [])
    for _ in range(3):
        records.append(Computed(Observed(hands, True), []))
    records.close()


def _read_records(folder: Path, path: Path) -> None:
    """A copy, since what is damaged is written anew."""
    from fasthamer.video.records import FrameRecords

    copy = folder / "copy"
    shutil.copy(path, copy)
    records = FrameRecords(copy, RECORDED_RUN, [])
    while records.read() is not None:
        pass
    records.close()


TARGETS = (
    Target("checkpoint", _write_checkpoints, _read_checkpoint),
    Target("hand_model", _write_hands, lambda f, p: read_hand_arrays(p)),
    Target("safetensors", _write_tensors, _read_tensors),
    Target("onnx", write_onnx, _read_onnx, needs=("onnx", "onnxruntime")),
    Target("pt2", _write_pt2, _read_pt2),
    Target("teacher_cache", _write_cache, _read_cache),
    Target("video_records", _write_records, _read_records, ("frames",)),
    Target("run", _write_run, _read_run),
)
