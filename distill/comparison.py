"""Images of what a student sees, beside the truth and its teacher."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fasthamer.camera import fit_weak_camera, turn_to_fit
from fasthamer.render.overlay import MESH_COLOURS, crop_pixels, draw_keypoints, overlay_hand, sheet
from fasthamer.types import Batch


@torch.no_grad()
def comparison(batch: Batch, models: Mapping[str, nn.Module], faces: NDArray, cell: int = 192) -> NDArray[np.uint8]:
    """One row a sample: image, truth, then each model's mesh over the image.

    Args:
        batch: on the models' device.
        models: hand models in eval mode by name; `teacher` and `student` have colours of their own.
        faces: (1538, 3).
        cell: pixels.
    """
    outputs = {name: model(batch.image) for name, model in models.items()}
    rows = []
    for index, image in enumerate(batch.image.permute(0, 2, 3, 1).cpu().numpy()):
        row = [image, _truth(batch, index, image, faces)]
        for name, hand in outputs.items():
            colour = MESH_COLOURS.get(name, MESH_COLOURS["prediction"])
            row.append(
                overlay_hand(image, hand.vertices[index].cpu().numpy(), hand.camera[index].cpu().numpy(), faces, colour)
            )
        rows.append(row)
    return sheet(rows, ["image", "truth", *outputs], cell=cell)


def _truth(batch: Batch, index: int, image: NDArray[np.uint8], faces: NDArray) -> NDArray[np.uint8]:
    """The labelled mesh where there is one, else the labelled keypoints, else the image."""
    one = Batch(*(each[index : index + 1].cpu() for each in batch))
    points, sure = one.keypoints_2d[..., :2], one.keypoints_2d[..., 2]
    if one.has_vertices.item() and sure.any():
        joints = one.joints[..., :3]
        turn = torch.from_numpy(turn_to_fit(joints[0].numpy(), points[0].numpy(), sure[0].numpy())).to(joints)
        camera = fit_weak_camera(joints @ turn.mT, points, sure)
        return overlay_hand(image, (one.vertices @ turn.mT)[0].numpy(), camera[0].numpy(), faces, MESH_COLOURS["truth"])
    return draw_keypoints(image, crop_pixels(points[0].numpy(), image.shape[0]), visible=sure[0].numpy() > 0)
