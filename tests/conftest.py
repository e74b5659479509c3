"""Fixtures that several test files use."""

import os
from pathlib import Path

import pytest

WORKER = os.environ.get("PYTEST_XDIST_WORKER")  # such as gw1; None without `pytest -n`
if WORKER:
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, and for the processes that tests start
# The files that take longest: with `pytest -n` they come first, so that no process has one left at the end.
SLOW = (
    "test_many_processes.py",
    *("test_students.py", "test_export.py", "test_token_runtime.py", "test_distill_tokens.py", "test_quickstart.py"),
    *("test_study.py", "test_old_files.py", "test_resume.py", "test_mixes.py", "test_ablation.py"),
    *("test_train_tokenizer.py", "test_wilor_teacher.py"),
    *("test_web_in_browser.py", "test_notebook.py", "test_video_tracking.py", "test_video_predict.py"),
    *("test_benchmark_command.py", "test_eval_command.py", "test_benchmark_group.py", "test_teacher_cache_command.py"),
)


def pytest_configure():
    """One thread for each process of `pytest -n`: they share the cores, and sums have one order."""
    if WORKER:
        import cv2
        import torch

        torch.set_num_threads(1)
        cv2.setNumThreads(1)


def pytest_collection_modifyitems(items):
    """Slow files first, in the order of SLOW; all others as they were."""
    if WORKER:
        ranks = {name: rank for rank, name in enumerate(SLOW)}
        items.sort(key=lambda item: ranks.get(item.path.name, len(SLOW)))


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
    """The embedded teacher, and its .onnx file, which takes seconds to write: all processes share one."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="needs the extra [export]")
    from filelock import FileLock

    from fasthamer.runtime.export import export
    from fasthamer.teachers import build_teacher

    teacher = build_teacher("embedded", precision="fp32")
    folder = tmp_path_factory.getbasetemp().parent if WORKER else tmp_path_factory.mktemp("exported")
    path = folder / "hand.onnx"
    with FileLock(folder / "hand.lock"):
        if not path.exists():  # `export` writes it whole or not at all
            export(teacher, path)
    return teacher, path
