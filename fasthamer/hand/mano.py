"""The hand: `smplx.MANOLayer` on checked arrays, with 21 joints in OpenPose order."""

from __future__ import annotations

import contextlib
import hashlib
import io
from pathlib import Path

import numpy as np
import smplx
import torch
from smplx.utils import Struct
from torch import Tensor, nn

from fasthamer.hand.conventions import openpose_joints
from fasthamer.hand.mano_files import check_hand_arrays, read_hand_arrays
from fasthamer.types import ManoParams


class Hand(nn.Module):
    """Parameters to mesh and joints; a right hand, metres, no translation.

    None of its buffers is in the state dict: MANO's arrays must not be part of a student's file, and loading a student
    takes a hand. It has no trainable parameter, so a model may hold it as a submodule.

    Args:
        arrays: with MANO's keys, see `fasthamer.hand.mano_files.SHAPES`.
        name: "embedded" for the procedural hand, else the name for messages.
    """

    def __init__(self, arrays: dict[str, np.ndarray], name: str) -> None:
        super().__init__()
        arrays = check_hand_arrays(arrays, name)
        self.name = name
        self.fingerprint = fingerprint(arrays)
        self.faces = arrays["f"]  # (1538, 3) int64
        self.hands_mean = arrays["hands_mean"]  # (45,) axis-angle
        self.hands_components = arrays["hands_components"]  # (45, 45); only 6 rows in HaMeR's checkpoint
        with contextlib.redirect_stdout(io.StringIO()):  # smplx prints that MANO has 10 betas
            self.layer = smplx.MANOLayer(
                "", is_rhand=True, data_struct=Struct(**arrays), use_pca=False, create_body_pose=False
            )
        for module in self.layer.modules():
            for key, buffer in list(module.named_buffers(recurse=False)):
                module.register_buffer(key, buffer, persistent=False)
        # The layer indexes Python lists with its parents: as a tensor, each would stop the GPU and torch.export.
        del self.layer.parents
        self.layer.parents = arrays["kintree_table"][0]

    @property
    def is_embedded(self) -> bool:
        """Whether this is the procedural hand, whose mesh and parameters are not MANO's."""
        return self.name == "embedded"

    @property
    def J_regressor(self) -> Tensor:
        """(16, 778)"""
        return self.layer.J_regressor

    def forward(self, mano: ManoParams) -> tuple[Tensor, Tensor]:
        """Vertices (B, 778, 3) and joints (B, 21, 3) in OpenPose order, HaMeR's fingertips; always in float32."""
        vertices, mano_joints = self.pose(mano)
        return vertices, openpose_joints(mano_joints, vertices)

    def pose(self, mano: ManoParams) -> tuple[Tensor, Tensor]:
        """Vertices (B, 778, 3) and the kinematic chain's 16 joints (B, 16, 3) in MANO's order."""
        kind = mano.betas.device.type
        exact = torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else contextlib.nullcontext()
        with exact:  # half precision would move vertices by millimetres
            posed = self.layer(
                global_orient=mano.global_orient.float(), hand_pose=mano.hand_pose.float(), betas=mano.betas.float()
            )
        return posed.vertices, posed.joints


def load_hand(source: str | Path = "embedded") -> Hand:
    """The hand of a file, see `read_hand_arrays`, or the one that fasthamer ships.

    Raises:
        FileNotFoundError, ValueError: no such file, or not a usable right hand.
    """
    return Hand(read_hand_arrays(source), "embedded" if str(source) == "embedded" else Path(source).stem)


def fingerprint(arrays: dict[str, np.ndarray]) -> str:
    """Twelve hex digits that identify a hand, the same for every file format and precision.

    Only arrays that shape the mesh are hashed: a checkpoint has fewer pose components than the official file.
    """
    digest = hashlib.sha256()
    for key in ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "weights", "hands_mean"):
        array = arrays[key]
        digest.update(array.astype("<i4" if array.dtype.kind == "i" else "<f4").tobytes())
    return digest.hexdigest()[:12]
