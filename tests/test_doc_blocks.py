"""Every Python block of the README and of docs/ runs, page by page, with the files and names that the text assumes."""

import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest

from fasthamer.hand.mano import load_hand
from fasthamer.predict import HandMesh
from fasthamer.students.shipped import shipped_students
from fasthamer.tools import export

ROOT = Path(__file__).parents[1]
ASSETS = ROOT / "fasthamer" / "assets"
RENDERED = Path(__file__).parent / "data" / "rendered_hands" / "13.jpg"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = {
    page.relative_to(ROOT).as_posix(): BLOCK.findall(page.read_text(encoding="utf-8"))
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]  # CONTRIBUTING.md has a test of its own
}
PAGES = {page: blocks for page, blocks in PAGES.items() if blocks}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "hand.onnx"
    assert export.main([str(shipped_students()["mobilenetv3_l"]), "--format", "onnx", "--out", str(path)]) == 0
    return path


@pytest.fixture
def reader_folder(tmp_path, exported, monkeypatch):
    """A directory with the files of someone who reads the docs."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(RENDERED, "image.jpg")
    shutil.copy(exported, "hand.onnx")
    write_clip("clip.mp4", cv2.imread("image.jpg"))
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    shutil.copy(shipped_students()["mobilenetv3_l"], "runs/mine/student.safetensors")
    (tmp_path / "runs" / "tokenizer").mkdir()
    shutil.copy(ASSETS / "embedded_tokenizer.safetensors", "runs/tokenizer/tokenizer.safetensors")
    return tmp_path


def write_clip(path, image, frames=3):
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"mp4v"), 10, image.shape[1::-1])
    for _ in range(frames):
        writer.write(image)
    writer.release()


@pytest.mark.parametrize("page", PAGES)
def test_the_python_blocks_of_a_page_run(page, reader_folder):
    image = cv2.imread("image.jpg")[:, :, ::-1].copy()
    names = {
        "image": image,
        "boxes": np.array([[60.0, 60, 190, 190]]),
        "crops": np.zeros((2, 3, 192, 192), np.uint8),
        "vertices": load_hand("embedded").layer.v_template[None],
        "hands": HandMesh("mobilenetv3_l"),
        "onnxruntime": onnxruntime,
        "frames": [(time / 10, image) for time in range(3)],
    }
    for number, block in enumerate(PAGES[page]):
        # The embedded hand stands in for the licensed file, whose readers have tests of their own.
        runnable = block.replace('"MANO_RIGHT.pkl"', '"embedded"')
        exec(compile(runnable, f"{page}, block {number + 1}", "exec"), names)
