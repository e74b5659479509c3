"""docs/first_steps.ipynb runs from top to bottom and is stored without outputs."""

import os
from copy import deepcopy
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs the extra [dev]")
NOTEBOOK = nbformat.read(Path(__file__).parents[1] / "docs" / "first_steps.ipynb", as_version=4)
CODE = [cell for cell in NOTEBOOK.cells if cell.cell_type == "code"]


def printed(cell) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


def test_it_is_stored_without_outputs():
    nbformat.validate(NOTEBOOK)
    assert CODE and all(not cell.outputs and cell.execution_count is None for cell in CODE)


def test_it_runs_from_top_to_bottom(tmp_path):
    nbclient = pytest.importorskip("nbclient", reason="needs the extra [dev]")
    for package in ("ipykernel", "trimesh", "onnx", "onnxscript"):
        pytest.importorskip(package, reason="needs the extras [dev] and [export]")
    environment = os.environ | {"TMPDIR": str(tmp_path), "IPYTHONDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    client = nbclient.NotebookClient(deepcopy(NOTEBOOK), timeout=300, kernel_name="python3")
    client.execute(cwd=str(tmp_path), env=environment)
    done = [cell for cell in client.nb.cells if cell.cell_type == "code"]
    images = [output for cell in done for output in cell.outputs if "image/png" in output.get("data", {})]
    assert len(images) == 2  # the image, and the meshes over it
    assert "right" in printed(done[4]) and "(778, 3)" in printed(done[4])
    assert "INDEX_FINGER_TIP" in printed(done[5]) and "hands.glb" in str(done[5].outputs)
    assert float(printed(done[6]).split()[-2]) < 0.01  # mm between the exported model and the original
