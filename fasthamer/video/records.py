"""What the networks computed for each frame of a video, in a file, so that an interrupted run goes on."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fasthamer.detect.landmark_reader import Landmarks
from fasthamer.files.safe_npz import unpack_npz
from fasthamer.predict import Camera, Hands, ManoArrays
from fasthamer.video.follow import Computed
from fasthamer.video.tracker import Observed

LENGTH = 8  # bytes, before each record


class FrameRecords:
    """An append-only file: a description of the run, then one .npz for each frame, each after its length.

    Args:
        path: continued if it describes the same run, replaced otherwise.
        run: what the records depend on: the video, the models, the settings.
        faces: (1538, 3) of each model's right hand, which are not stored.
    """

    def __init__(self, path: Path, run: Mapping[str, Any], faces: list[NDArray[np.int64]]) -> None:
        self.path, self.faces = path, faces
        header = {"run": np.frombuffer(json.dumps(run, sort_keys=True).encode(), np.uint8)}
        path.touch()
        self._file: BinaryIO = path.open("r+b")
        stored = self._next()
        if stored is None or not np.array_equal(stored.get("run", ()), header["run"]):
            self._file.seek(0)
            self._append(header)

    def read(self) -> Computed | None:
        """The next frame's record; None behind the last whole one, and then `append` goes on there."""
        start, arrays = self._file.tell(), self._next()
        try:
            return None if arrays is None else unpacked(arrays, self.faces)
        except (KeyError, ValueError, TypeError, AttributeError):  # damaged: this frame is computed again
            self._file.seek(start)
            return None

    def append(self, computed: Computed) -> None:
        """Adds a frame; it is on the disk when this returns, as far as the operating system is concerned."""
        self._append(packed(computed))

    def close(self) -> None:
        self._file.close()

    def _next(self) -> dict[str, NDArray] | None:
        start = self._file.tell()
        length = int.from_bytes(self._file.read(LENGTH), "little")
        if start + LENGTH + length <= os.fstat(self._file.fileno()).st_size:
            try:
                return unpack_npz(io.BytesIO(self._file.read(length)), str(self.path))
            except ValueError:
                pass
        self._file.seek(start)  # cut off, when the run was killed
        return None

    def _append(self, arrays: Mapping[str, NDArray]) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        blob = buffer.getvalue()
        self._file.truncate()
        self._file.write(len(blob).to_bytes(LENGTH, "little") + blob)
        self._file.flush()


def packed(computed: Computed) -> dict[str, NDArray]:
    """One frame as arrays; the key of a model's array starts with its number."""
    observed, models = computed
    arrays = {f"observed.{name}": value for name, value in observed.hands._asdict().items()}
    arrays["detected"] = np.array(observed.detected)
    for number, hands in enumerate(models):
        for field in fields(hands):
            value = getattr(hands, field.name)
            if field.name == "mano" and value is not None:
                arrays |= {f"{number}.mano.{name}": part for name, part in value._asdict().items()}
            elif field.name not in ("faces", "mano") and value is not None:
                arrays[f"{number}.{field.name}"] = np.asarray(value)
    return arrays


def unpacked(arrays: Mapping[str, NDArray], faces: list[NDArray[np.int64]]) -> Computed:
    """The inverse of `packed`."""
    observed = Observed(
        Landmarks(*(arrays[f"observed.{name}"] for name in Landmarks._fields)), bool(arrays["detected"])
    )
    models = []
    for number, each in enumerate(faces):
        values: dict[str, Any] = {
            field.name: arrays.get(f"{number}.{field.name}") for field in fields(Hands) if field.name != "faces"
        }
        fx, fy, cx, cy, metric = values["camera"].tolist()
        values["camera"] = Camera(fx, fy, cx, cy, bool(metric))
        if f"{number}.mano.betas" in arrays:
            values["mano"] = ManoArrays(*(arrays[f"{number}.mano.{name}"] for name in ManoArrays._fields))
        models.append(Hands(faces=each, **values))
    return Computed(observed, models)
