"""torch.export's archive (.pt2) of an inference graph: written by torch, read only after its content is checked.

torch's own loader unpickles members of the archive, evaluates its size expressions and calls the functions that nodes
name. An archive is accepted here if it contains only plain tensors and a graph of aten operators.
"""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from fasthamer.files.safe_checkpoint import check_stored
from fasthamer.one_line import one_line
from fasthamer.runtime.contract import KEY, Contract

_MODEL, _SAMPLE, _HEADER = "models/model.json", "data/sample_inputs/model.pt", f"extra/{KEY}"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_MEMBERS = re.compile(r"data/weights/weight_\d+|data/constants/tensor_\d+|archive_\w+|byteorder|\.data/\w+")
_OPERATORS = re.compile(r"torch\.ops\.aten\.\w+\.\w+|_operator\.(add|sub|mul|floordiv|mod|getitem)")
_SIZES = re.compile(r"(Mul|Add|Integer|Symbol|'s\d+'|positive=True|integer=True|-?\d+|[(), ])+")


def save_pt2(module: nn.Module, example: Tensor, contract: Contract, path: Path) -> None:
    """Writes the module, exported with a dynamic batch, to `path` (ends in .pt2).

    Raises:
        OSError: the disk is full.
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, (example,), dynamic_shapes={"image": {0: Dim("batch")}})
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # paths of the machine that exported
        with _Archive(io.FileIO(path, "w")) as file:
            torch.export.save(program, file, extra_files={KEY: contract.to_json()})
            if file.error is not None:
                raise file.error


def load_pt2(path: Path) -> tuple[ExportedProgram, Contract]:
    """The program and its contract.

    Raises:
        ValueError: not an archive that this module wrote, damaged, or with content that would run code.
    """
    header = _checked(path)
    try:
        program = torch.export.load(path)
    except Exception as error:  # of a dozen types, for whatever is damaged
        what = f"{type(error).__name__}: {one_line(error)}"
        raise ValueError(f"{path}: torch cannot read this archive ({what})") from error
    return program, Contract.from_json(header, str(path))


def _checked(path: Path) -> str | None:
    """Checks every member that torch's loader acts on, and returns the header."""
    check_stored(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.split("/", 1)[-1]: name for name in archive.namelist()}  # without the archive's own folder
            strange = [name for name in names if not _known(name)]
            if strange:
                raise _RefusedError(f"it holds {one_line(repr(strange[0]))}")
            for config in _CONFIGS:
                for name, entry in json.loads(archive.read(names[config]))["config"].items():
                    if entry["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", entry["path_name"]):
                        raise _RefusedError(f"its {one_line(repr(name))} is no plain tensor")
            _check_graph(json.loads(archive.read(names[_MODEL])))
            torch.load(io.BytesIO(archive.read(names[_SAMPLE])), weights_only=True)
            return archive.read(names[_HEADER]).decode() if _HEADER in names else None
    except _RefusedError as error:
        raise ValueError(f"{path}: will not be opened, {error}") from None
    except Exception as error:  # zipfile, json and torch raise a dozen types
        raise ValueError(f"{path}: not an archive of torch.export, or a damaged one ({one_line(error)})") from error


class _Archive(io.BufferedWriter):
    """A file that keeps its first error: torch's writer ends the process when a write fails."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        if self.error is None:
            try:
                super().write(data)
                self.flush()
            except OSError as error:
                self.error = error
        return len(data)


class _RefusedError(Exception):
    pass


def _known(name: str) -> bool:
    return name in (_MODEL, _SAMPLE, _HEADER, *_CONFIGS) or _MEMBERS.fullmatch(name) is not None


def _check_graph(graph: dict[str, Any]) -> None:
    if graph.get("guards_code"):
        raise _RefusedError("its guards are code")
    for key, value in _entries(graph):
        rule = {"target": _OPERATORS, "expr_str": _SIZES}.get(key)
        if rule is not None and not (isinstance(value, str) and rule.fullmatch(value)):
            raise _RefusedError(f"its graph has the {key} {str(value)[:80]!r}")


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value of nested JSON."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _entries(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner)
