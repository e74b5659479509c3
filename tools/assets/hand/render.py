"""A sheet of the embedded hand in its preset poses and two extreme shapes, from three sides."""

from __future__ import annotations

import numpy as np
import torch

from fasthamer.hand.mano import load_hand
from fasthamer.hand.procedural import presets
from fasthamer.hand.rotation import axis_angle_to_matrix
from fasthamer.render.overlay import draw_mesh, sheet
from fasthamer.types import ManoParams

CELL, SKIN = 240, (214, 164, 138)
# rows: right, down, away from the viewer, in the hand's frame (fingers -x, palm -y, thumb +z)
VIEWS = {
    "back": ((0, 0, -1), (1, 0, 0), (0, -1, 0)),
    "palm": ((0, 0, 1), (1, 0, 0), (0, 1, 0)),
    "thumb side": ((1, 0, 0), (0, -1, 0), (0, 0, -1)),
}


def draw() -> np.ndarray:
    """RGB image: one column a pose or shape, one row a view."""
    hand = load_hand("embedded")
    large, small = torch.zeros(2, 1, 10)
    large[0, :3], small[0, :3] = torch.tensor([2.0, 1.5, 1.5]), torch.tensor([-2.0, -1.5, -1.5])
    cases = {name: (pose, torch.zeros(1, 10)) for name, pose in presets().items()}
    cases |= {"large": (presets()["rest"], large), "small": (presets()["rest"], small)}
    rows = []
    for view in VIEWS.values():
        turn = np.array(view, float)
        row = []
        for pose, betas in cases.values():
            rotations = axis_angle_to_matrix(torch.as_tensor(pose, dtype=torch.float32))[None]
            vertices, joints = hand(ManoParams(torch.eye(3)[None, None], rotations, betas))
            centre = joints[0, 9].numpy() - np.array([0.012, 0.0, 0.0])
            camera = (vertices[0].numpy() - centre) @ turn.T + [0, 0, 2.0]
            page = np.full((CELL * 2, CELL * 2, 3), 255, np.uint8)
            row.append(draw_mesh(page, camera, hand.faces, 3900.0, (CELL, CELL), colour=SKIN, opacity=1.0))
        rows.append(row)
    return sheet(rows, columns=list(cases), captions=[[view] * len(cases) for view in VIEWS], cell=CELL)
