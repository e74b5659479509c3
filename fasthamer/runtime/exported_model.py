"""An exported model for the Python API: gives mesh, keypoints and camera of every kind of file. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthamer.camera import project, weak_to_translation
from fasthamer.hand.mano_files import read_hand_arrays
from fasthamer.hand.posing import Poser
from fasthamer.runtime.contract import MESH
from fasthamer.runtime.sessions import SUFFIXES, open_session


class ModelArrays(NamedTuple):
    """What a model predicts for B crops; see `HandOutput`."""

    vertices: NDArray
    joints: NDArray
    keypoints_2d: NDArray
    camera: NDArray
    mano: tuple[NDArray, NDArray, NDArray] | None = None  # global_orient, hand_pose, betas

    def take(self, crops: slice) -> ModelArrays:
        mano = self.mano and (self.mano[0][crops], self.mano[1][crops], self.mano[2][crops])
        vertices, joints, points, camera = (each[crops] for each in self[:4])
        return ModelArrays(vertices, joints, points, camera, mano)


class ExportedModel:
    """`model(crops) -> ModelArrays` of an .onnx, .xml or .pt2 file.

    Args:
        path: the file.
        hand: a hand model's file, which a model exported without mesh needs; see `read_hand_arrays`.
        device: auto, cpu or cuda.
        threads: of the CPU; 0 = the runtime's choice.

    Raises:
        FileNotFoundError, ValueError, ImportError: no usable file, or nothing to run it with.
    """

    def __init__(self, path: Path, hand: str | Path | None = None, device: str = "auto", threads: int = 0) -> None:
        self.session = open_session(path, SUFFIXES[path.suffix], "auto", device, threads=threads)
        contract = self.session.contract
        assert contract is not None
        self.crop_size, self.box_shape = contract.image_size, contract.box_shape
        self._poser = None
        if contract.faces is not None:
            if hand is not None:
                raise ValueError(f"{path} has its hand model inside: leave out the hand {str(hand)!r}")
            self.faces = np.array(contract.faces)
            return
        if hand is None:
            raise ValueError(
                f"{path} was exported without the hand's mesh: give the hand it was trained with, "
                f"{contract.hand_name!r} (HandMesh(file, hand=...), --mano)"
            )
        arrays = read_hand_arrays(hand)
        self.faces, self._poser = arrays["f"], Poser(arrays)

    def __call__(self, crops: NDArray[np.uint8]) -> ModelArrays:
        outputs = self.session(crops)
        if self._poser is None:
            return ModelArrays(*(outputs[name] for name in MESH))
        rotations = np.concatenate((outputs["global_orient"], outputs["hand_pose"]), axis=1)  # (B, 16, 3, 3)
        posed = [self._poser(turned, betas) for turned, betas in zip(rotations, outputs["betas"], strict=True)]
        vertices, joints = (np.stack(parts) for parts in zip(*posed, strict=True))
        points = project(joints, weak_to_translation(outputs["camera"]))
        return ModelArrays(vertices, joints, points, outputs["camera"])
