"""Files made in passing, for sessions of modules: each model is exported once a precision, while it lives."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path

from torch import nn

from fasthamer.runtime.export import export_onnx

_files: weakref.WeakKeyDictionary[nn.Module, dict[str, Path]] = weakref.WeakKeyDictionary()


def onnx_file(model: nn.Module, precision: str) -> Path:
    """A temporary .onnx file of the model as it was when first asked for; it goes when the model does."""
    made = _files.setdefault(model, {})
    if precision not in made:
        folder = tempfile.mkdtemp(prefix="fasthamer-")
        weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)
        path = Path(folder) / "model.onnx"
        export_onnx(model, path, precision)
        made[precision] = path
    return made[precision]
