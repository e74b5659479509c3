"""Several models on the hands of a folder's images: what a stranger looks at first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fasthamer.data.crop import BOX_FACTOR, crop_affine, warp
from fasthamer.detect.detector import MediaPipeDetector
from fasthamer.distill.labelling import image_names
from fasthamer.files.images import read_image
from fasthamer.predict import HandMesh
from fasthamer.render.overlay import MESH_COLOURS, sheet


def real_images(models: Mapping[str, nn.Module], folder: Path, most: int, cell: int = 192) -> NDArray[np.uint8] | None:
    """One row a hand: image, then each model's mesh over it. None if no hand is found.

    Args:
        models: hand models in eval mode by name.
        folder: its images are taken at even distances, the first hand of each that shows one.
        most: rows.
        cell: pixels.

    Raises:
        ValueError, FileNotFoundError: no such folder, or an image that cannot be read.
    """
    detector, rows = MediaPipeDetector(), []
    viewers = {name: HandMesh(model, detector=detector) for name, model in models.items()}
    names = image_names(folder)
    for name in names[:: max(1, len(names) // (2 * most))]:
        image = read_image(folder / name)
        found = detector(image)
        if not len(found.boxes):
            continue
        low, high = found.boxes[0, :2], found.boxes[0, 2:]
        square = crop_affine((low + high) / 2, float((high - low).max()) * BOX_FACTOR * 0.8, cell)
        drawn = [image]
        for title, viewer in viewers.items():
            drawn.append(viewer(image).draw(image, MESH_COLOURS.get(title)))
        rows.append([warp(each, square, cell) for each in drawn])
        if len(rows) == most:
            break
    return sheet(rows, ["image", *models], cell=cell) if rows else None
