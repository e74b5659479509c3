"""Fixtures that several test files use."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data():
    """A function from the name of a folder of real sample files to its path; skips where they are not at hand."""
    root = Path(os.environ.get("FASTHAMER_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))

    def folder(name: str) -> Path:
        if not (root / name).exists():
            pytest.skip(f"needs {name} from the sample data: set FASTHAMER_TEST_DATA to its folder")
        return root / name

    return folder


@pytest.fixture(scope="session")
def embedded():
    """The embedded hand."""
    from fasthamer.hand.mano import load_hand

    return load_hand("embedded")


@pytest.fixture(scope="session")
def mano():
    """Stands in for the licensed hand: the code only sees that it is not the embedded one."""
    from fasthamer.hand.mano import Hand
    from fasthamer.hand.mano_files import read_hand_arrays

    return Hand(read_hand_arrays("embedded"), "MANO_RIGHT")


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory):
    """Indexes of datasets go where the tests' other files go, never into the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def dexycb_root(tmp_path_factory):
    """A small DexYCB, written once: whoever changes it puts it back (`miniatures_capture.replaced`)."""
    from miniatures_capture import write_dexycb

    return write_dexycb(tmp_path_factory.mktemp("dexycb"))


@pytest.fixture(scope="session")
def exported_teacher(tmp_path_factory):
    """The embedded teacher, and its .onnx file: writing one takes seconds."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="needs the extra [export]")
    from fasthamer.runtime.export import export
    from fasthamer.teachers import build_teacher

    teacher = build_teacher("embedded", precision="fp32")
    path = tmp_path_factory.mktemp("exported") / "hand.onnx"
    export(teacher, path)
    return teacher, path
