"""Files made to execute code, fill the memory, never end or reach outside: one clear error, and nothing happens."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from miniatures_2d import write_coco
from miniatures_tars import hand_record, image
from refusals import refused
from safetensors.torch import save_file

from fasthamer.config import load_config
from fasthamer.data.file_checks import incomplete
from fasthamer.data.readers.coco import CocoHands
from fasthamer.data.readers.tar_members import members
from fasthamer.data.readers.tars import TarDataset
from fasthamer.files import safe_pickle
from fasthamer.files.headed_tensors import Kind, read_header
from fasthamer.files.images import read_image, read_image_size
from fasthamer.files.json_records import JsonRecords
from fasthamer.files.json_stream import JsonStream
from fasthamer.files.safe_checkpoint import read_state_dict
from fasthamer.files.safe_json import read_json
from fasthamer.files.safe_npz import read_npz, unpack_npz
from fasthamer.files.safe_yaml import read_yaml
from fasthamer.hand.mano_files import read_hand_arrays
from fasthamer.students.backbone import read_state

DEEP = 100_000


class Command:
    """Unpickled by pickle, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def bomb(path: Path, name: str, head: bytes, megabytes: int) -> Path:
    """An archive with a member that unpacks to `head` and megabytes of zeros, a thousandth of that on the disk."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    zeros = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, start + zeros * megabytes + packer.flush())
    content = bytearray(path.read_bytes())
    size = struct.pack("<I", len(head) + (megabytes << 20))
    for at, method in ((0, 8), (content.index(b"PK\1\2"), 10)):  # the member's two headers: deflated, its true size
        content[at + method : at + method + 2] = b"\x08\0"
        content[at + method + 14 : at + method + 18] = size
    path.write_bytes(content)
    return path


def npy_head(shape: str, descr: str = "|u1") -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode()


# Code


@pytest.mark.parametrize("form", ["pkl", "npz", "ckpt", "pt", "pd"])
def test_nothing_in_a_pickle_is_executed(tmp_path, form):
    canary, path = tmp_path / "canary", tmp_path / f"file.{form}"
    if form == "npz":
        np.savez(path, v_template=np.array([Command(canary)], object))
        refused(read_hand_arrays, path, "pickled objects")
    elif form == "pkl":
        path.write_bytes(pickle.dumps({"v_template": Command(canary)}))
        refused(read_hand_arrays, path, "posix.system")
    elif form == "pd":
        path.write_bytes(pickle.dumps([Command(canary)]))
        with pytest.raises(ValueError, match=r"posix\.system"):
            safe_pickle.loads(path.read_bytes())
    else:
        torch.save({"state_dict": {"a": torch.zeros(1)}, "run": Command(canary)}, path)
        refused(read_state_dict, path, "posix.system")
        refused(read_state, path)
    assert not canary.exists()


def test_yaml_tags_execute_nothing(tmp_path):
    path = tmp_path / "meta.yml"
    path.write_text(f"a: !!python/object/apply:os.system ['touch {tmp_path}/canary']\n")
    refused(read_yaml, path, "refused")
    refused(load_config, path, "not plain YAML")
    assert not (tmp_path / "canary").exists()


# Memory and time


def test_an_archive_that_unpacks_to_gigabytes_is_refused(tmp_path):
    path = bomb(tmp_path / "bomb.npz", "a.npy", npy_head("(2000000000,)"), 1100)
    assert path.stat().st_size < 2_000_000
    refused(read_npz, path, "too large", {"a": (None,)})


@pytest.mark.parametrize(
    "shape", ["(1000000000000,)", "(10000, 10000, 10000)", "(4000,)", "(-5,)", "(1, 'x')", "(" * 500]
)
def test_an_array_that_promises_more_than_the_file_holds_is_refused(tmp_path, shape):
    path = tmp_path / "promise.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", npy_head(shape, "<f8") + bytes(64))
    refused(unpack_npz, path, "too large|cut short|damaged", str(path))
    refused(read_hand_arrays, path.rename(tmp_path / "hand.npz"))


@pytest.mark.parametrize("order", "<>")
def test_text_of_no_characters_in_an_array_is_refused(tmp_path, order):
    path = tmp_path / "names.npz"
    np.savez(path, names=np.array(["a\U0010ffff", "b"], f"{order}U2"))
    assert unpack_npz(path, "names.npz")["names"].tolist() == ["a\U0010ffff", "b"]
    np.savez(path, names=np.array([97, 0x110000], f"{order}u4").view(f"{order}U2"))
    refused(unpack_npz, path, "text", str(path))


def test_a_compressed_checkpoint_is_refused(tmp_path):
    refused(read_state_dict, bomb(tmp_path / "a.ckpt", "archive/data.pkl", b"", 5), "compressed")
    refused(read_state, tmp_path / "a.ckpt", "compressed")


def test_a_tensor_of_more_numbers_than_the_file_is_refused(tmp_path):
    path = tmp_path / "wide.ckpt"
    torch.save({"mano.hand_components": torch.zeros(1).expand(10**12)}, path)
    assert path.stat().st_size < 4000
    refused(read_state_dict, path, "mano.hand_components is no plain tensor")
    refused(read_state, path, "no plain tensor")


@pytest.mark.parametrize("size", [2**60, 2**63, 2**64 - 1, 10**9])
def test_a_safetensors_header_of_2_to_the_60_bytes_is_refused(tmp_path, size):
    path = tmp_path / "student.safetensors"
    save_file({"a": torch.zeros(2)}, path, {"fasthamer": "{}"})
    path.write_bytes(size.to_bytes(8, "little") + path.read_bytes()[8:])
    refused(read_header, path, "damaged", Kind("student", "", set()))
    refused(read_state, path)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
@pytest.mark.parametrize("closed", [True, False])
def test_json_nested_100_000_deep_is_refused(tmp_path, opening, closed):
    text = opening * DEEP + ("1" + ("]" if opening == "[" else "}") * DEEP if closed else "")
    path = tmp_path / "deep.json"
    path.write_text(text)
    refused(read_json, path)

    def skip(path):
        with JsonStream(path) as stream:
            stream.skip()

    refused(skip, path)
    path.write_text(f"[[[{text}]]]")
    refused(lambda path: JsonRecords(path, (1, 1), cache="none")[0], path)
    path.write_text(f'{{"info": {text}, "images": {text}, "annotations": []}}')
    refused(lambda path: CocoHands(path.parent, path.name), path)


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30)
)
MERGES = "a0: &a0 {x: 1, y: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 30)
)


@pytest.mark.parametrize(
    "text", [LAUGHS, MERGES, "a: &a [*a]\n", "a: &a {b: *a}\n", "a: " + "[" * DEEP, "a: " + "{a: " * 400]
)
def test_yaml_whose_aliases_explode_is_refused(tmp_path, text):
    path = tmp_path / "laughs.yaml"
    path.write_text(text)
    refused(read_yaml, path)
    refused(load_config, path)


def test_yaml_with_a_few_aliases_is_read(tmp_path):
    path = tmp_path / "meta.yml"
    path.write_text("a: &a [1, 2]\nb: *a\nc: &c {x: 1}\nd: {<<: *c, y: 2}\n")
    assert read_yaml(path) == {"a": [1, 2], "b": [1, 2], "c": {"x": 1}, "d": {"x": 1, "y": 2}}


@pytest.mark.parametrize(
    "content",
    [
        b"]" * 3000 + b"a" * 2999 + b".",  # nested lists
        b"(" * 20_000 + b"t" * 20_000 + b".",
        b"]" + b"2\x86" * 60 + b".",  # a pair of the same pair of the same pair ...: 2**60 values
        b"}(" + b")" + b"2\x86" * 60 + b"Nu.",  # as a key, whose hash takes as many steps
        b"}" + b")" + b"2\x86" * 60 + b"Ns.",
        b"(" + b")" + b"2\x86" * 60 + b"Nd.",
        b"\x8f(" + b")" + b"2\x86" * 60 + b"\x90.",
        b"(" + b")" + b"2\x86" * 60 + b"\x91.",
        b"c__builtin__\nset\n](" + b")" + b"2\x86" * 60 + b"e\x85R.",
        b"]q\x00h\x00a.",  # a list of itself
        b"\x80\x05\x96" + (2**36).to_bytes(8, "little") + b".",  # a byte array of 64 GiB
        b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b".",
        b"\x80\x04\x8b" + (2**31 - 1).to_bytes(4, "little") + b".",
        b"N" + b"r\xff\xff\xff\x7f" * 3 + b"j\xfe\xff\xff\x7f.",  # a memo of 2**31 entries, one of which is missing
    ],
    ids=range(14),
)
def test_pickles_that_would_fill_the_memory_or_never_end_are_refused(content):
    with pytest.raises(ValueError, match=r"a\.pkl"):
        safe_pickle.loads(content, source="a.pkl")


def test_a_pickle_of_parts_that_are_shared_is_read():
    row = [1.5, 2.5]
    content = {"a": [row, row], ("k", 1): {1, 2}, b"x": frozenset(["y"]), "n": np.ones(3), None: (row, True)}
    found = safe_pickle.loads(pickle.dumps(content, 4))
    np.testing.assert_array_equal(found.pop("n"), content.pop("n"))
    assert found == content


@pytest.mark.parametrize("name", ["file.json", "file.yaml", "file.npz", "file.ckpt", "file.tar", "file.png"])
def test_gzip_is_not_unpacked(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(bytes(1 << 20)))
    if name == "file.tar":
        skipped: list[str] = []
        assert not list(members(path, skipped)) and skipped
        return
    readers = {
        "json": read_json,
        "yaml": load_config,
        "npz": read_hand_arrays,
        "ckpt": read_state_dict,
        "png": read_image,
    }
    refused(readers[path.suffix[1:]], path)


# Outside


def hostile_tar(path: Path, outside: Path) -> Path:
    """Links, devices and names that lead outside, and one good sample."""
    record = hand_record(np.random.default_rng(0))
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for number, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)):
            link = tarfile.TarInfo(f"{number}.jpg")
            link.type, link.linkname, link.devmajor, link.devminor = kind, str(outside), 1, 5  # 1, 5: /dev/zero
            archive.addfile(link)
        for name in ("../../escaped.jpg", str(outside), "a/../../escaped.data.pyd", "good.data.pyd", "good.jpg"):
            content = image(record) if name.endswith("jpg") else pickle.dumps([record])
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return path


def test_links_devices_and_parent_folders_in_a_tar_lead_nowhere(tmp_path, mano):
    folder = tmp_path / "a" / "shards"
    folder.mkdir(parents=True)
    outside = tmp_path / "secret.jpg"
    outside.write_bytes(b"secret")
    hostile_tar(folder / "0.tar", outside)
    before = sorted(tmp_path.rglob("*"))
    skipped: list[str] = []
    assert not [each for each in members(folder / "0.tar", skipped) if each["data"] == b"secret"]
    items = list(TarDataset(folder, mano, 64).epoch(0, 0, 1, skipped))
    assert len(items) == 1 and any("no data.pyd" in line for line in skipped)
    assert sorted(tmp_path.rglob("*")) == before and outside.read_bytes() == b"secret"


def test_names_that_lead_outside_an_archive_are_only_names(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("../escaped.npy", "/etc/escaped.npy", "a.npy"):
            archive.writestr(name, npy_head("(2,)") + b"ab")
    assert unpack_npz(path, "a.npz", ["a"])["a"].tolist() == [97, 98]
    assert os.listdir(tmp_path) == ["a.npz"]


def test_labels_that_name_a_device_or_a_pipe_do_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for name in ("/dev/zero", str(tmp_path / "pipe.jpg")):
        for reader in (read_image, read_image_size):
            refused(reader, Path(name), "device or a pipe")
        assert incomplete(Path(name)) == "cannot be read"
    write_coco(tmp_path / "coco", 1)
    labels = tmp_path / "coco" / "annotations" / "hands_train.json"
    labels.write_text(labels.read_text().replace("000000000000.jpg", "/dev/zero"))
    with pytest.raises(FileNotFoundError, match="/dev/zero"):
        CocoHands(tmp_path / "coco", "train")


@pytest.mark.parametrize("location", ["../secret.bin", "{folder}/secret.bin", "link.bin"])
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_an_onnx_file_does_not_take_its_weights_from_outside(tmp_path, location, runtime):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip(runtime)
    from fuzzing.models import write_onnx

    from fasthamer.runtime.sessions import open_session

    (tmp_path / "secret.bin").write_bytes(np.full(3, 7.0, np.float32).tobytes())
    (tmp_path / "model").mkdir()
    path = tmp_path / "model" / "hand.onnx"
    (tmp_path / "model" / "link.bin").symlink_to(tmp_path / "secret.bin")
    write_onnx(path.parent)
    model = onnx.load(path)
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location.format(folder=tmp_path), "offset": "0", "length": "12"}.items():
        weight.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    refused(lambda path: open_session(path, runtime), path)


def test_json_numbers_of_any_length_are_no_traceback(tmp_path):
    write_coco(tmp_path, 1)
    path = tmp_path / "annotations" / "hands_train.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["keypoints"][0] = 10**400
    path.write_text(json.dumps(content))
    refused(lambda path: CocoHands(tmp_path, "train"), path, "annotations")
